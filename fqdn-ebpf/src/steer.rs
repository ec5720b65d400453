//! Handing a packet to the DNS proxy: the socket, the mark, and on a bridge port the way there.
//!
//! In:  a whole TCP or UDP packet that policy redirects.
//! Out: the packet with the proxy's socket and our mark, or the reason why that failed.
//! Not here: the listener (`dnsproxy`), routing of the mark and NOTRACK (`agent`).
//!
//! For TCP the connection's own socket comes first, TIME_WAIT included: a SYN that reuses a port
//! must reach it. Any socket that does not carry our mark is somebody else's and is left alone.

use aya_ebpf::{
    bindings::{BPF_F_INGRESS, bpf_sock, bpf_sock_tuple},
    helpers::{
        bpf_redirect, bpf_sk_assign, bpf_sk_fullsock, bpf_sk_lookup_udp, bpf_sk_release,
        bpf_skb_store_bytes, bpf_skc_lookup_tcp,
    },
};
use fqdn_ebpf_common::{
    address::Addr, config::Config, endpoint::Endpoint, packet::Packet, protocol, reason::DropReason,
};

use crate::env::Skb;

/// How the packet gets to the proxy.
pub(crate) enum Steered {
    /// By its mark: the stack routes it.
    Marked,
    /// Through the bridge, with this return code.
    Redirected(i32),
}

/// The network namespace of the packet's device.
const CURRENT_NETNS: u64 = -1_i32 as i64 as u64;
/// Socket states (`include/net/tcp_states.h`).
const TIME_WAIT: u32 = 6;
const LISTEN: u32 = 10;

/// Addresses and ports of a socket look-up, in network order.
#[repr(C)]
union Tuple {
    v4: Tuple4,
    v6: Tuple6,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Tuple4 {
    source: u32,
    destination: u32,
    source_port: u16,
    destination_port: u16,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Tuple6 {
    source: [u32; 4],
    destination: [u32; 4],
    source_port: u16,
    destination_port: u16,
}

const _: () = assert!(size_of::<Tuple>() == size_of::<bpf_sock_tuple>());

const LOCALHOST_V4: Addr = Addr::v4([127, 0, 0, 1]);
const LOCALHOST_V6: Addr = Addr::v6([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

impl Tuple {
    #[inline(always)]
    fn new(source: Addr, source_port: u16, destination: Addr, destination_port: u16) -> (Self, u32) {
        let (source_port, destination_port) = (source_port.to_be(), destination_port.to_be());
        if source.is_v4() {
            let [.., source] = source.words();
            let [.., destination] = destination.words();
            let v4 = Tuple4 {
                source,
                destination,
                source_port,
                destination_port,
            };
            (Self { v4 }, size_of::<Tuple4>() as u32)
        } else {
            let v6 = Tuple6 {
                source: source.words(),
                destination: destination.words(),
                source_port,
                destination_port,
            };
            (Self { v6 }, size_of::<Tuple6>() as u32)
        }
    }
}

/// Hands the packet to the proxy.
#[inline(always)]
pub(crate) fn to_proxy(
    skb: &Skb,
    config: &Config,
    endpoint: &Endpoint,
    packet: &Packet,
) -> Result<Steered, DropReason> {
    let localhost = if packet.source.is_v4() { LOCALHOST_V4 } else { LOCALHOST_V6 };
    let (mut listener, size) = Tuple::new(
        packet.source,
        packet.source_port,
        localhost,
        config.listener_port(endpoint.id()),
    );
    if packet.protocol == protocol::UDP {
        // SAFETY: the tuple lives on the stack and `size` is that of its variant.
        let socket = unsafe {
            bpf_sk_lookup_udp(
                skb.raw().cast(),
                (&raw mut listener).cast(),
                size,
                CURRENT_NETNS,
                0,
            )
        };
        assign_listener(skb, config, socket)?;
    } else if !assign_connection(skb, config, packet)? {
        // SAFETY: as above.
        let socket = unsafe {
            bpf_skc_lookup_tcp(
                skb.raw().cast(),
                (&raw mut listener).cast(),
                size,
                CURRENT_NETNS,
                0,
            )
        };
        assign_listener(skb, config, socket)?;
    }
    skb.set_mark(config.steered(skb.mark()));
    match endpoint.bridge() {
        None => Ok(Steered::Marked),
        // The bridge would forward by hardware address and lose the socket on its way through
        // netfilter: the frame is made to be for the bridge itself.
        Some(bridge) => {
            // SAFETY: six bytes at the front of an Ethernet frame that was parsed before.
            let stored = unsafe {
                bpf_skb_store_bytes(skb.raw().cast(), 0, bridge.mac.as_ptr().cast(), 6, 0)
            };
            if stored != 0 {
                return Err(DropReason::CannotWrite);
            }
            // SAFETY: the helper takes numbers only.
            let code = unsafe { bpf_redirect(bridge.ifindex, u64::from(BPF_F_INGRESS)) };
            Ok(Steered::Redirected(code as i32))
        }
    }
}

/// Gives the packet to the listener if it is ours, and releases the look-up's reference.
#[inline(always)]
fn assign_listener(skb: &Skb, config: &Config, socket: *mut bpf_sock) -> Result<(), DropReason> {
    if socket.is_null() {
        return Err(DropReason::SocketLookupFailed);
    }
    if !is_ours(config, socket) {
        release(socket);
        return Err(DropReason::SocketLookupFailed);
    }
    assign(skb, socket)
}

/// Gives the packet to its connection's socket; false when the proxy has none.
#[inline(always)]
fn assign_connection(skb: &Skb, config: &Config, packet: &Packet) -> Result<bool, DropReason> {
    let (mut tuple, size) = Tuple::new(
        packet.source,
        packet.source_port,
        packet.destination,
        packet.destination_port,
    );
    // SAFETY: the tuple lives on the stack and `size` is that of its variant.
    let socket = unsafe {
        bpf_skc_lookup_tcp(skb.raw().cast(), (&raw mut tuple).cast(), size, CURRENT_NETNS, 0)
    };
    if socket.is_null() {
        return Ok(false);
    }
    // SAFETY: a socket the kernel returned; its state may be read whatever kind it is.
    let state = unsafe { (&raw const (*socket).state).read_volatile() };
    // SAFETY: the reference is held until `release` or `assign`.
    let full = unsafe { bpf_sk_fullsock(socket) };
    if !full.is_null() {
        // A listener here is another server's on this node (a local resolver), and so is a
        // connection without our mark.
        // SAFETY: checked for null; full sockets have a mark.
        let mark = unsafe { (&raw const (*full).mark).read_volatile() };
        if state == LISTEN || !config.is_from_proxy(mark) {
            release(socket);
            return Ok(false);
        }
    } else if state == TIME_WAIT && packet.opens_tcp() && foreign_listener(skb, config, packet) {
        // The kernel would look for a listener at the packet's own destination and hand the new
        // connection to it, past the proxy.
        release(socket);
        return Err(DropReason::SocketLookupFailed);
    }
    assign(skb, socket).map(|()| true)
}

/// Whether somebody else listens at the packet's destination on this node.
#[inline(always)]
fn foreign_listener(skb: &Skb, config: &Config, packet: &Packet) -> bool {
    // Port 0 belongs to no connection, so only a listener can be found.
    let (mut tuple, size) = Tuple::new(packet.source, 0, packet.destination, packet.destination_port);
    // SAFETY: the tuple lives on the stack and `size` is that of its variant.
    let socket = unsafe {
        bpf_skc_lookup_tcp(skb.raw().cast(), (&raw mut tuple).cast(), size, CURRENT_NETNS, 0)
    };
    if socket.is_null() {
        return false;
    }
    let ours = is_ours(config, socket);
    release(socket);
    !ours
}

/// Whether a socket carries our mark.
#[inline(always)]
fn is_ours(config: &Config, socket: *mut bpf_sock) -> bool {
    // SAFETY: the caller holds a reference.
    let full = unsafe { bpf_sk_fullsock(socket) };
    if full.is_null() {
        return false;
    }
    // SAFETY: checked for null; full sockets have a mark.
    config.is_from_proxy(unsafe { (&raw const (*full).mark).read_volatile() })
}

#[inline(always)]
fn assign(skb: &Skb, socket: *mut bpf_sock) -> Result<(), DropReason> {
    // SAFETY: the caller holds a reference, which ends here.
    let code = unsafe { bpf_sk_assign(skb.raw().cast(), socket.cast(), 0) };
    release(socket);
    if code == 0 {
        Ok(())
    } else {
        Err(DropReason::SocketAssignFailed)
    }
}

#[inline(always)]
fn release(socket: *mut bpf_sock) {
    // SAFETY: the caller holds a reference and does not use it again.
    unsafe { bpf_sk_release(socket.cast()) };
}
