//! One conversation: the commands of a script, carried out on a core.
//!
//! In:  steps of a script.
//! Out: what each step caused, as lines of text.
//! Not here: what the words of the world mean (`world`), messages (`message`), what a script
//! expects (`script`).

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use dnsproxy_core::{
    Batch, Cleaned, Client, ConnectionId, Core, Effect, ExchangeId, Moment, PortSlot, QueryRecord,
    QueryVerdict, Transport, Via,
};
use hickory_proto::rr::DNSClass;
use identity::EndpointId;
use policy::fqdn::Pattern;

use crate::{
    kernel::Kernel,
    message::{self, Asked, Replied},
    script::Step,
    world::{World, server},
};

/// A query of the script.
#[derive(Clone, Debug)]
struct Query {
    client: Client,
    asked: Asked,
    bytes: Vec<u8>,
    flight: Option<Flight>,
}

/// How the core sent it on.
#[derive(Clone, Copy, Debug)]
struct Flight {
    exchange: ExchangeId,
    server: SocketAddr,
    via: Via,
    id: u16,
}

/// The core, the world around it, and what was said so far.
#[derive(Default)]
pub(crate) struct Conversation {
    world: World,
    core: Option<Core>,
    now: Moment,
    kernel: Kernel,
    /// Batches held back, if they are.
    held: Option<VecDeque<Batch>>,
    queries: BTreeMap<String, Query>,
    happened: Vec<String>,
    next_port: u16,
}

impl Conversation {
    /// Carries out a step; what it caused.
    pub(crate) fn step(&mut self, step: &Step) -> Result<Vec<String>> {
        let words: Vec<_> = step.text.split_whitespace().collect();
        self.command(&words, step.records.clone())
            .with_context(|| format!("line {}: {}", step.line, step.text))?;
        Ok(std::mem::take(&mut self.happened))
    }

    fn command(&mut self, words: &[&str], records: Vec<Vec<String>>) -> Result<()> {
        if self.world.describe(words)? {
            self.kernel
                .selector_names
                .clone_from(&self.world.selector_names);
            return Ok(());
        }
        let now = self.now;
        match words {
            ["apply"] => {
                let snapshot = self.world.snapshot()?;
                self.kernel
                    .selector_names
                    .clone_from(&self.world.selector_names);
                self.core().handle_snapshot(now, snapshot);
            }
            ["wait", seconds] => return self.wait(seconds.parse()?),
            [
                "ask",
                label,
                number,
                transport,
                qtype,
                name,
                "at",
                at,
                options @ ..,
            ] => {
                let query = self.query(number, transport, qtype, name, at, options)?;
                self.queries.insert((*label).to_owned(), query.clone());
                self.core().handle_query(now, query.client, &query.bytes);
            }
            ["again", label] => {
                let query = self.asked(label)?.clone();
                self.core().handle_query(now, query.client, &query.bytes);
            }
            ["forge", number, transport, kind, "at", at] => {
                let query = self.query(number, transport, "A", "forged.example", at, &[])?;
                let bytes = forged(kind, query.bytes)?;
                self.core().handle_query(now, query.client, &bytes);
            }
            ["flood", count, number, qtype, name, "at", at] => {
                return self.flood(count.parse()?, number, qtype, name, at);
            }
            ["reply", label, options @ ..] => {
                let query = self.asked(label)?.clone();
                let (from, via, bytes) = reply(&query, options, records)?;
                self.core().handle_reply(now, from, via, &bytes);
            }
            ["unreachable", label, reason @ ..] => {
                let flight = self.asked(label)?.flight.context("it was not forwarded")?;
                self.core()
                    .handle_unreachable(now, flight.exchange, reason.join(" "));
            }
            ["close", connection] => {
                let connection = ConnectionId(connection.parse()?);
                self.core().handle_connection_closed(now, connection);
            }
            ["map", "capacity", capacity] => self.kernel.capacity = capacity.parse()?,
            ["map", "fail", failures] => self.kernel.failures = failures.parse()?,
            ["map", "hold"] => self.held = Some(VecDeque::new()),
            ["map", "go"] => {
                for batch in self.held.take().unwrap_or_default() {
                    self.install(batch);
                }
            }
            ["connect", number, address] => self.connect(number, address)?,
            ["clean", number, pattern @ ..] => self.clean(number, pattern.first().copied())?,
            ["cache", number] => self.show_cache(number)?,
            ["count", counter] => self.show_counter(counter)?,
            ["usage", number] => {
                let usage = self.core().usage(EndpointId::new(number.parse()?));
                let entries = self.kernel.len();
                self.happened.push(format!(
                    "in flight {}, names {}, addresses {}, kernel {entries}",
                    usage.in_flight, usage.names, usage.addresses
                ));
            }
            _ => bail!("no such command"),
        }
        self.drain();
        Ok(())
    }

    /// The core, made from the settings when it is first needed.
    fn core(&mut self) -> &mut Core {
        let config = &self.world.config;
        self.core.get_or_insert_with(|| {
            // Every draw differs, so that a guess in a script is a wrong guess.
            let mut drawn = 0x1234u64;
            Core::new(
                config.clone(),
                Box::new(move || {
                    drawn = drawn
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    drawn >> 20
                }),
            )
        })
    }

    fn asked(&self, label: &str) -> Result<&Query> {
        self.queries
            .get(label)
            .with_context(|| format!("nobody asked {label}"))
    }

    fn query(
        &mut self,
        number: &str,
        transport: &str,
        qtype: &str,
        name: &str,
        at: &str,
        options: &[&str],
    ) -> Result<Query> {
        let number: u32 = number.parse()?;
        self.next_port += 1;
        let mut port = 40_000 + self.next_port;
        let mut connection = (transport == "tcp").then_some(u64::from(port));
        let mut asked = Asked {
            id: 0x0100 + self.next_port,
            name: name.to_owned(),
            qtype: qtype.to_owned(),
            class: DNSClass::IN,
            edns: None,
        };
        for option in options {
            match option.split_once('=') {
                None if *option == "edns" => asked.edns = Some(Vec::new()),
                Some(("option", option)) => asked
                    .edns
                    .get_or_insert_default()
                    .push(edns_option(option)?),
                Some(("port", value)) => port = value.parse()?,
                Some(("id", value)) => asked.id = value.parse()?,
                Some(("conn", value)) => connection = Some(value.parse()?),
                Some(("class", "CH")) => asked.class = DNSClass::CH,
                _ => bail!("option `{option}`"),
            }
        }
        let client = Client {
            endpoint: EndpointId::new(number),
            address: SocketAddr::new(self.world.address(number)?, port),
            server: server(at)?,
            connection: connection.map(ConnectionId),
        };
        let bytes = message::query(&asked)?;
        Ok(Query {
            client,
            asked,
            bytes,
            flight: None,
        })
    }

    fn wait(&mut self, seconds: f64) -> Result<()> {
        let until = self.now.after(Duration::from_secs_f64(seconds));
        for _ in 0..1_000_000 {
            match self.core().poll_timeout() {
                Some(deadline) if deadline <= until => {
                    self.now = self.now.max(deadline);
                    let now = self.now;
                    self.core().handle_timeout(now);
                    self.drain();
                }
                _ => {
                    self.now = until;
                    return Ok(());
                }
            }
        }
        bail!("time does not get on: a deadline is never met")
    }

    fn flood(
        &mut self,
        count: usize,
        number: &str,
        qtype: &str,
        name: &str,
        at: &str,
    ) -> Result<()> {
        let mut sums: BTreeMap<String, usize> = BTreeMap::new();
        for i in 0..count {
            let name = name.replace('%', &i.to_string());
            let mut query = self.query(number, "udp", qtype, &name, at, &[])?;
            self.next_port %= 20_000;
            query.asked.id = u16::try_from(i % 65_536)?;
            let bytes = message::query(&query.asked)?;
            let now = self.now;
            self.core().handle_query(now, query.client, &bytes);
            while let Some(effect) = self.core().poll_effect() {
                let what = match effect {
                    Effect::Forward { .. } => "forward".to_owned(),
                    Effect::Reply { message, .. } => {
                        let text = message::show(&message);
                        format!("reply {}", text.split(' ').next().unwrap_or_default())
                    }
                    Effect::Record(_) => continue,
                    other => format!("{other:?}"),
                };
                *sums.entry(what).or_default() += 1;
            }
        }
        self.happened
            .extend(sums.into_iter().map(|(what, sum)| format!("{what} x{sum}")));
        Ok(())
    }

    fn drain(&mut self) {
        while let Some(effect) = self.core().poll_effect() {
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        let line = match effect {
            Effect::Forward {
                exchange,
                server,
                transport,
                slot,
                connection,
                message,
            } => {
                let via = match connection {
                    Some(connection) => Via::Tcp(connection),
                    None => Via::Udp(slot),
                };
                let tcp = if transport == Transport::Tcp {
                    " tcp"
                } else {
                    ""
                };
                let label = self.forwarded(
                    &message,
                    connection,
                    Flight {
                        exchange,
                        server,
                        via,
                        id: id_of(&message),
                    },
                );
                format!("forward {label} to {server}{tcp}")
            }
            Effect::Reply { client, message } => {
                format!(
                    "reply {} {}",
                    self.label(&client, &message),
                    message::show(&message)
                )
            }
            Effect::Release {
                client, message, ..
            } => {
                format!(
                    "release {} {}",
                    self.label(&client, &message),
                    message::show(&message)
                )
            }
            Effect::Install(batch) => match &mut self.held {
                Some(held) => {
                    held.push_back(batch);
                    return;
                }
                None => return self.install(batch),
            },
            Effect::Close(ConnectionId(connection)) => format!("close {connection}"),
            Effect::Record(record) => match note(&record) {
                Some(note) => note,
                None => return,
            },
        };
        self.happened.push(line);
    }

    fn install(&mut self, batch: Batch) {
        let now = self.now;
        let outcome = batch.install(&mut self.kernel.at(now));
        self.happened.append(&mut self.kernel.log);
        match outcome {
            Ok(proof) => self.core().handle_installed(now, proof),
            Err(failed) => {
                self.happened.push(format!("install failed: {failed}"));
                self.core().handle_install_failed(now, failed);
            }
        }
        self.drain();
    }

    /// The query a forwarded message is, by its bytes behind the id.
    fn forwarded(
        &mut self,
        message: &[u8],
        connection: Option<ConnectionId>,
        flight: Flight,
    ) -> String {
        let same = |query: &&mut Query| {
            query.bytes[2..] == message[2..] && query.client.connection == connection
        };
        let mut candidates: Vec<_> = self
            .queries
            .iter_mut()
            .filter(|(_, query)| same(query))
            .collect();
        // Two queries with the same bytes: the one that was not sent on yet.
        candidates.sort_by_key(|(_, query)| query.flight.is_some());
        match candidates.into_iter().next() {
            Some((label, query)) => {
                query.flight = Some(flight);
                label.clone()
            }
            None => "?".to_owned(),
        }
    }

    /// The query a message to a client answers, by the client and the id.
    fn label(&self, client: &Client, message: &[u8]) -> String {
        let id = id_of(message);
        self.queries
            .iter()
            .find(|(_, query)| query.client == *client && query.asked.id == id)
            .map_or("?".to_owned(), |(label, _)| label.clone())
    }

    fn connect(&mut self, number: &str, address: &str) -> Result<()> {
        let address: IpAddr = address.parse()?;
        let open = self
            .kernel
            .open(self.now, EndpointId::new(number.parse()?), address);
        self.happened.push(if open.is_empty() {
            "closed".to_owned()
        } else {
            format!("open {}", open.join(" "))
        });
        Ok(())
    }

    fn clean(&mut self, number: &str, pattern: Option<&str>) -> Result<()> {
        let endpoint = match number {
            "all" => None,
            number => Some(EndpointId::new(number.parse()?)),
        };
        let pattern = pattern.map(Pattern::parse).transpose()?;
        let now = self.now;
        let Cleaned { names, addresses } =
            self.core().handle_clean(now, endpoint, pattern.as_ref());
        self.happened
            .push(format!("cleaned {names} names {addresses} addresses"));
        Ok(())
    }

    fn show_cache(&mut self, number: &str) -> Result<()> {
        let now = self.now;
        let endpoint = EndpointId::new(number.parse()?);
        for row in self.core().cache(now, Some(endpoint)) {
            let addresses: Vec<_> = row.addresses.iter().map(ToString::to_string).collect();
            let left = row.expires.since(now).as_secs_f64();
            self.happened.push(format!(
                "{} {} ttl {} left {left}s {}",
                row.endpoint,
                row.name,
                row.ttl,
                addresses.join(",")
            ));
        }
        Ok(())
    }

    fn show_counter(&mut self, counter: &str) -> Result<()> {
        let counters = self.core().counters();
        let value = match counter {
            "garbage" => counters.garbage,
            "repeated" => counters.repeated,
            "unsolicited" => counters.unsolicited,
            "wrong-question" => counters.wrong_question,
            "refused" => counters.refused,
            "over-limit" => counters.over_limit,
            "silent" => counters.silent,
            "taught" => counters.taught,
            "write-failures" => counters.write_failures,
            other => bail!("counter `{other}`"),
        };
        self.happened.push(value.to_string());
        Ok(())
    }
}

/// A code and bytes, as in `option=10:00ff`.
fn edns_option(text: &str) -> Result<(u16, Vec<u8>)> {
    let (code, data) = text.split_once(':').context("an option is CODE:BYTES")?;
    Ok((code.parse()?, message::hex(data)?))
}

fn id_of(message: &[u8]) -> u16 {
    message
        .first_chunk::<2>()
        .map_or(0, |id| u16::from_be_bytes(*id))
}

/// A record as one line; the forwarding half says nothing the effect does not.
fn note(record: &QueryRecord) -> Option<String> {
    let mut line = match &record.verdict {
        QueryVerdict::Forwarded => return None,
        QueryVerdict::Taught => "note taught".to_owned(),
        QueryVerdict::Answered(why) => format!("note taught nothing: {why}"),
        QueryVerdict::Refused { policies, hint } => {
            format!("note refused by {} ({hint})", policies.join(" "))
        }
        QueryVerdict::WouldRefuse { policies, .. } => {
            format!("note would be refused by {}", policies.join(" "))
        }
        QueryVerdict::Failed(why) => format!("note failed: {why}"),
    };
    if !record.cnames.is_empty() {
        let names: Vec<_> = record.cnames.iter().map(ToString::to_string).collect();
        line += &format!(" via {}", names.join(" "));
    }
    if !record.withheld.is_empty() {
        let addresses: Vec<_> = record.withheld.iter().map(ToString::to_string).collect();
        line += &format!(" withheld {}", addresses.join(" "));
    }
    Some(line)
}

fn reply(
    query: &Query,
    options: &[&str],
    records: Vec<Vec<String>>,
) -> Result<(SocketAddr, Via, Vec<u8>)> {
    let mut flight = query.flight.context("it was not forwarded")?;
    let asked = &query.asked;
    let mut replied = Replied {
        id: flight.id,
        question: Some((asked.name.clone(), asked.qtype.clone(), asked.class)),
        rcode: "NOERROR".to_owned(),
        truncated: false,
        edns: None,
        records,
    };
    let mut cut = 0;
    let mut is_query = false;
    for option in options {
        match (option.split_once('='), &mut replied.question) {
            (Some(("from", from)), _) => flight.server = server(from)?,
            (Some(("question", name)), Some(question)) => question.0 = name.to_owned(),
            (Some(("type", qtype)), Some(question)) => question.1 = qtype.to_owned(),
            (Some(("class", "CH")), Some(question)) => question.2 = DNSClass::CH,
            (Some(("option", option)), _) => {
                replied
                    .edns
                    .get_or_insert_default()
                    .push(edns_option(option)?);
            }
            (Some(("cut", bytes)), _) => cut = bytes.parse()?,
            (None, _) if *option == "empty" => replied.question = None,
            (None, _) if *option == "tc" => replied.truncated = true,
            (None, _) if *option == "as-query" => is_query = true,
            (None, _) if *option == "id" => replied.id = replied.id.wrapping_add(1),
            (None, _) if *option == "slot" => {
                flight.via = match flight.via {
                    Via::Udp(PortSlot(slot)) => Via::Udp(PortSlot(slot ^ 1)),
                    Via::Tcp(ConnectionId(connection)) => Via::Tcp(ConnectionId(connection + 1)),
                };
            }
            (None, _) => replied.rcode = (*option).to_owned(),
            _ => bail!("option `{option}`"),
        }
    }
    let mut bytes = replied.bytes()?;
    bytes.truncate(bytes.len() - cut);
    if is_query {
        bytes[2] &= 0x7f;
    }
    Ok((flight.server, flight.via, bytes))
}

/// Messages that no stub resolver sends.
fn forged(kind: &str, mut bytes: Vec<u8>) -> Result<Vec<u8>> {
    match kind {
        "short" => bytes.truncate(11),
        "response" => bytes[2] |= 0x80,
        // Opcode NOTIFY.
        "notify" => bytes[2] |= 4 << 3,
        // The others that are not QUERY; 7 to 15 are nobody's (RFC 6895 section 2.2).
        "inverse" => bytes[2] |= 1 << 3,
        "status" => bytes[2] |= 2 << 3,
        "opcode-3" => bytes[2] |= 3 << 3,
        "update" => bytes[2] |= 5 << 3,
        "stateful" => bytes[2] |= 6 << 3,
        "opcode-15" => bytes[2] |= 15 << 3,
        "no-question" => bytes[5] = 0,
        "two-questions" => bytes[5] = 2,
        // The first label becomes a pointer to the header.
        "pointer" => bytes[12..14].copy_from_slice(&[0xc0, 0]),
        "reserved-label" => bytes[12] = 0x80,
        // The name runs on to the end of the message.
        "endless" => bytes.truncate(20),
        // One record is announced, none is there.
        "junk" => bytes[11] = 1,
        "transfer" => {
            let at = bytes.len() - 4;
            bytes[at..at + 2].copy_from_slice(&252u16.to_be_bytes());
        }
        other => bail!("forgery `{other}`"),
    }
    Ok(bytes)
}
