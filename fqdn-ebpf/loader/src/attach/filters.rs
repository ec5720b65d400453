//! What runs at a clsact hook before everything else: its filters of priority 1.
//!
//! In:  an interface of the calling thread's network namespace, one of its two hooks.
//! Out: [`Filter`]s in the order in which they run.
//! Not here: changing them (`clsact`).

use std::io;

use aya::programs::{TcAttachType, tc::TcHandle};
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{self, TcAttribute, TcFilterBpfOption, TcMessage, TcOption},
};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};

/// The lowest one there is: nothing runs before it but filters of the same priority.
pub(super) const PRIORITY: u16 = 1;

/// A program at a hook.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Filter {
    pub(super) handle: TcHandle,
    /// What it was called when it was attached.
    pub(super) name: String,
    /// The kernel's number of the program.
    pub(super) program: u32,
}

/// The filters of priority 1. Where there is no clsact there are none.
pub(super) fn list(ifindex: u32, at: TcAttachType) -> io::Result<Vec<Filter>> {
    let mut message =
        TcMessage::with_index(i32::try_from(ifindex).map_err(|_| io::ErrorKind::InvalidInput)?);
    message.header.parent = tc::TcHandle {
        major: tc::TcHandle::CLSACT.major,
        minor: match at {
            TcAttachType::Egress => tc::TcHandle::MIN_EGRESS,
            TcAttachType::Ingress | TcAttachType::Custom(_) => tc::TcHandle::MIN_INGRESS,
        },
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut request = NetlinkMessage::new(
        header,
        NetlinkPayload::from(RouteNetlinkMessage::GetTrafficFilter(message)),
    );
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);

    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.send(&bytes, 0)?;
    let mut filters = Vec::new();
    loop {
        let (answer, _) = socket.recv_from_full()?;
        if !read(&answer, &mut filters)? {
            return Ok(filters);
        }
    }
}

/// Takes in the messages of one datagram; false after the last one.
fn read(answer: &[u8], filters: &mut Vec<Filter>) -> io::Result<bool> {
    let mut rest = answer;
    while let Ok(frame) = NetlinkBuffer::new_checked(rest) {
        let length = usize::try_from(frame.length()).unwrap_or(rest.len());
        // A filter that this library cannot read is of another kind, hence of another priority.
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map(|m| m.payload) {
            Ok(NetlinkPayload::Done(_)) => return Ok(false),
            Ok(NetlinkPayload::Error(error)) => return Err(error.to_io()),
            Ok(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewTrafficFilter(message))) => {
                filters.extend(filter(&message));
            }
            _ => {}
        }
        // Messages begin at multiples of four.
        let next = length.next_multiple_of(4);
        match rest.get(next..) {
            Some(more) if !more.is_empty() => rest = more,
            _ => break,
        }
    }
    Ok(true)
}

fn filter(message: &TcMessage) -> Option<Filter> {
    if message.header.info >> 16 != u32::from(PRIORITY) {
        return None;
    }
    let options = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            TcAttribute::Options(options) => Some(options),
            _ => None,
        })?;
    let mut filter = Filter {
        handle: TcHandle::new(message.header.handle.major, message.header.handle.minor),
        name: String::new(),
        program: 0,
    };
    for option in options {
        match option {
            TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => filter.name.clone_from(name),
            TcOption::Bpf(TcFilterBpfOption::ProgId(program)) => filter.program = *program,
            _ => {}
        }
    }
    Some(filter)
}
