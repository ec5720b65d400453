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

/// Addresses and ports of a socket look-up (`struct bpf_sock_tuple`), as words in network order.
/// Words and not a union: every byte the verifier looks at must have been written.
struct Tuple {
    words: [u32; 9],
    is_v4: bool,
}

const _: () = assert!(size_of::<[u32; 9]>() == size_of::<bpf_sock_tuple>());

/// Bytes of the IPv4 and IPv6 variant.
const SIZE_V4: u32 = 12;
const SIZE_V6: u32 = 36;

const LOCALHOST_V4: Addr = Addr::v4([127, 0, 0, 1]);
const LOCALHOST_V6: Addr = Addr::v6([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

impl Tuple {
    #[inline(always)]
    fn new(source: Addr, source_port: u16, destination: Addr, destination_port: u16) -> Self {
        let ports = u32::from(source_port.to_be()) | u32::from(destination_port.to_be()) << 16;
        let [a, b, c, d] = source.words();
        let [e, f, g, h] = destination.words();
        if source.is_v4() {
            Self {
                words: [d, h, ports, 0, 0, 0, 0, 0, 0],
                is_v4: true,
            }
        } else {
            Self {
                words: [a, b, c, d, e, f, g, h, ports],
                is_v4: false,
            }
        }
    }

    /// The TCP socket for these addresses and ports, of whatever state; with a reference.
    #[inline(always)]
    fn tcp(&mut self, skb: &Skb) -> *mut bpf_sock {
        // The size is spelled out in each branch: the verifier must see a constant.
        // SAFETY: the words live on the stack and the size is at most theirs.
        unsafe {
            let (skb, words) = (skb.raw().cast(), self.words.as_mut_ptr().cast());
            if self.is_v4 {
                bpf_skc_lookup_tcp(skb, words, SIZE_V4, CURRENT_NETNS, 0)
            } else {
                bpf_skc_lookup_tcp(skb, words, SIZE_V6, CURRENT_NETNS, 0)
            }
        }
    }

    /// The UDP socket for these addresses and ports; with a reference.
    #[inline(always)]
    fn udp(&mut self, skb: &Skb) -> *mut bpf_sock {
        // SAFETY: as above.
        unsafe {
            let (skb, words) = (skb.raw().cast(), self.words.as_mut_ptr().cast());
            if self.is_v4 {
                bpf_sk_lookup_udp(skb, words, SIZE_V4, CURRENT_NETNS, 0)
            } else {
                bpf_sk_lookup_udp(skb, words, SIZE_V6, CURRENT_NETNS, 0)
            }
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
    let localhost = if packet.source.is_v4() {
        LOCALHOST_V4
    } else {
        LOCALHOST_V6
    };
    let mut listener = Tuple::new(
        packet.source,
        packet.source_port,
        localhost,
        config.listener_port(endpoint.id()),
    );
    if packet.protocol == protocol::UDP {
        assign_listener(skb, config, listener.udp(skb))?;
    } else if !assign_connection(skb, config, packet)? {
        assign_listener(skb, config, listener.tcp(skb))?;
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
    let socket = Tuple::new(
        packet.source,
        packet.source_port,
        packet.destination,
        packet.destination_port,
    )
    .tcp(skb);
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
    let socket = Tuple::new(
        packet.source,
        0,
        packet.destination,
        packet.destination_port,
    )
    .tcp(skb);
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
