//! Any message to and from the proxy core, in any order: `wire_decode`.
//!
//! In:  a script of queries, replies, closed connections, failures and time.
//! Out: a panic when a message panics the core, is answered twice, or leaves something behind.
//! Not here: what a good answer teaches (`answer`).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use dnsproxy_core::{Config, ConnectionId, ExchangeId, Limits, PortSlot, RefuseWith, Via};
use identity::EndpointId;

use crate::{
    input::Input,
    message::{self, NAMES},
    shell::{Shell, TRUSTED, client, learning},
};

const ENDPOINT: EndpointId = EndpointId::new(7);
const LIMITS: Limits = Limits {
    in_flight_per_endpoint: 8,
    names_per_endpoint: 4,
    addresses_per_name: 8,
    addresses_per_endpoint: 8,
    unmatched_names: 4,
    names_per_address: 2,
};
/// Past this a script only repeats itself.
const STEPS: usize = 200;

/// Any bytes through the core's inputs: no panic, no answer nobody asked for, limits kept, and
/// nothing left over in the end.
pub fn wire_decode(data: &[u8]) {
    let mut input = Input::new(data);
    let settings = input.byte();
    let config = Config {
        limits: LIMITS,
        refuse_with: if settings & 1 == 0 {
            RefuseWith::Refused
        } else {
            RefuseWith::NxDomain
        },
        ..Config::default()
    };
    let mut shell = Shell::new(config);
    shell.audit = settings & 2 != 0;
    shell.kernel.fail_every = usize::from(settings >> 4);
    if shell.kernel.fail_every == 1 {
        shell.kernel.fail_every = 0;
    }
    let patterns = [(1, "*"), (2, "*.x"), (3, "**.com")];
    shell
        .policies
        .insert(ENDPOINT, Arc::new(learning(patterns)));
    shell.publish();
    for nth in 0..STEPS {
        if input.is_over() {
            break;
        }
        step(&mut shell, &mut input, u16::try_from(nth).unwrap_or(0));
        let usage = shell.core.usage(ENDPOINT);
        assert!(usage.in_flight <= LIMITS.in_flight_per_endpoint);
        assert!(usage.names <= LIMITS.names_per_endpoint);
        assert!(usage.addresses <= LIMITS.addresses_per_endpoint);
        assert!(shell.kernel.count(ENDPOINT) <= LIMITS.addresses_per_endpoint);
    }
    shell.kernel.fail_every = 0;
    shell.nothing_is_left();
}

fn step(shell: &mut Shell, input: &mut Input<'_>, nth: u16) {
    match input.below(9) {
        0 => {
            let client = client(ENDPOINT, 9, input.flag(), TRUSTED);
            let len = usize::from(input.short() % 600);
            shell.query(client, input.bytes(len));
        }
        1 => {
            let len = usize::from(input.short() % 600);
            let via = Via::Udp(PortSlot(u16::from(input.byte())));
            shell.reply(SocketAddr::new(TRUSTED, 53), via, input.bytes(len));
        }
        2 | 3 => {
            let client = client(ENDPOINT, u16::from(input.below(4)), input.flag(), TRUSTED);
            let name = *input.pick(&NAMES);
            let qtype = *input.pick(&[1, 28, 65, 5, 252, 255, 41]);
            let mut query = message::query(nth, &message::question(name, qtype));
            input.spoil(&mut query);
            let cut = usize::from(input.byte().saturating_sub(200));
            query.truncate(query.len().saturating_sub(cut));
            shell.query(client, &query);
        }
        4 => answer_with(shell, input, |input| {
            let len = usize::from(input.short() % 400);
            input.bytes(len).to_vec()
        }),
        5 => answer_with(shell, input, |input| {
            let mut records = Vec::new();
            for _ in 0..input.below(8) {
                message::push_record(&mut records, input);
            }
            records
        }),
        6 => {
            let connection = ConnectionId(u64::from(input.below(10)));
            shell.core.handle_connection_closed(shell.now, connection);
            shell.drain();
        }
        7 => {
            let exchange = match shell.flying.front() {
                Some(flying) => flying.exchange,
                None => ExchangeId(u64::from(input.byte())),
            };
            shell
                .core
                .handle_unreachable(shell.now, exchange, "generated");
            shell.drain();
        }
        _ => {
            let span = Duration::from_secs(u64::from(input.short() % 400));
            shell.wait(span, |_| {});
        }
    }
}

/// Replies to something in flight with its id, its question, and these records.
fn answer_with(
    shell: &mut Shell,
    input: &mut Input<'_>,
    records: impl FnOnce(&mut Input<'_>) -> Vec<u8>,
) {
    let Some(flying) = shell.flying.pop_front() else {
        return;
    };
    if flying.message.len() < 12 {
        return;
    }
    if input.flag() {
        // Asked again: the answer below is then one of two.
        shell.flying.push_back(flying.clone());
    }
    let id = u16::from_be_bytes([flying.message[0], flying.message[1]]);
    let flags = *input.pick(&[0x8180, 0x8380, 0x8182, 0x8183, 0x8500, 0x0100]);
    let answers = u16::from(input.byte());
    let mut reply = message::header(id, flags, [1, answers, 0, 0]);
    reply.extend(&flying.message[12..]);
    reply.extend(records(input));
    input.spoil(&mut reply);
    shell.reply(flying.server, flying.via, &reply);
}
