//! The source guard: what a workload may say about itself, whatever its policy says.
//!
//! In:  a parsed packet and the endpoint it came from (or goes to).
//! Out: [`Guard`]: neighbour discovery to let through, a packet to judge, or a reason to drop.
//! Not here: policy (`verdict`), ARP (`arp`).
//!
//! Holds in audit mode too: everything after it trusts the source address.

use crate::{
    address::Addr,
    endpoint::{Endpoint, NOT_OWN},
    ipcache,
    packet::{Bytes, Packet, Part},
    protocol,
    reason::DropReason,
};

/// What becomes of a packet that may exist at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Guard {
    /// Link-local control traffic that no policy speaks about.
    Control,
    /// Everything else.
    Judge,
}

/// ICMPv6 types (RFC 4861, RFC 2710, RFC 3810).
mod icmpv6 {
    pub(super) const LISTENER_QUERY: u8 = 130;
    pub(super) const LISTENER_REPORT: u8 = 131;
    pub(super) const LISTENER_DONE: u8 = 132;
    pub(super) const ROUTER_SOLICITATION: u8 = 133;
    pub(super) const ROUTER_ADVERTISEMENT: u8 = 134;
    pub(super) const NEIGHBOUR_SOLICITATION: u8 = 135;
    pub(super) const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    pub(super) const REDIRECT: u8 = 137;
    pub(super) const LISTENER_REPORT_V2: u8 = 143;
}

/// ICMP types (RFC 792, RFC 1256).
mod icmpv4 {
    pub(super) const REDIRECT: u8 = 5;
    pub(super) const ROUTER_ADVERTISEMENT: u8 = 9;
}

/// Hop limit that proves that no router was on the way (RFC 4861 §7.1).
const FROM_LINK: u8 = 255;

/// Checks a packet that a workload sends. `own` is the index of its source address among the
/// workload's own; `peer_identity` is asked only for neighbour discovery
/// between global addresses.
///
/// # Errors
/// The rule that it breaks.
#[inline(always)]
pub fn from_workload(
    bytes: &impl Bytes,
    packet: &Packet,
    endpoint: &Endpoint,
    own: u8,
    peer_identity: impl FnOnce(&Addr) -> u32,
) -> Result<Guard, DropReason> {
    let destination = packet.destination;
    if destination.is_loopback() || destination.is_unspecified() || destination == Addr::v4([0; 4])
    {
        return Err(DropReason::InvalidDestinationIp);
    }
    let own = own != NOT_OWN;
    match packet.protocol {
        protocol::ICMPV6 if packet.part == Part::Whole => {
            if let Some(guard) = discovery(bytes, packet, endpoint, own, peer_identity)? {
                return Ok(guard);
            }
        }
        protocol::ICMP if packet.part != Part::Later => {
            if matches!(
                packet.icmp_type(),
                icmpv4::REDIRECT | icmpv4::ROUTER_ADVERTISEMENT
            ) {
                return Err(DropReason::ForbiddenIcmp);
            }
        }
        protocol::UDP if packet.part != Part::Later => {
            let server = if packet.source.is_v4() {
                (67, 68)
            } else {
                (547, 546)
            };
            if (packet.source_port, packet.destination_port) == server {
                return Err(DropReason::ForbiddenDhcp);
            }
        }
        _ => {}
    }
    if own {
        Ok(Guard::Judge)
    } else {
        Err(DropReason::InvalidSourceIp)
    }
}

/// Neighbour discovery and multicast listener messages of a workload; `None` for other ICMPv6.
#[inline(always)]
fn discovery(
    bytes: &impl Bytes,
    packet: &Packet,
    endpoint: &Endpoint,
    own: bool,
    peer_identity: impl FnOnce(&Addr) -> u32,
) -> Result<Option<Guard>, DropReason> {
    let source = packet.source;
    let destination = packet.destination;
    let on_link = destination.is_link_multicast_v6() || destination.is_link_local_v6();
    let source_fits = own || source.is_link_local_v6() || source.is_unspecified();
    match packet.icmp_type() {
        icmpv6::ROUTER_ADVERTISEMENT | icmpv6::REDIRECT => Err(DropReason::ForbiddenIcmpv6),
        icmpv6::LISTENER_QUERY
        | icmpv6::LISTENER_REPORT
        | icmpv6::LISTENER_DONE
        | icmpv6::LISTENER_REPORT_V2 => {
            // Never with a hop limit that a multicast router would forward (RFC 3810 §5).
            if !destination.is_multicast_v6() || packet.hop_limit != 1 {
                return Ok(None);
            }
            fits(source_fits)
        }
        icmpv6::ROUTER_SOLICITATION => {
            if !on_link {
                return Ok(None);
            }
            fits(source_fits)
        }
        kind @ (icmpv6::NEIGHBOUR_SOLICITATION | icmpv6::NEIGHBOUR_ADVERTISEMENT) => {
            if kind == icmpv6::NEIGHBOUR_ADVERTISEMENT {
                let mut target = [0_u8; 16];
                if packet.transport.wrapping_add(24) > packet.end
                    || !bytes.read(packet.transport.wrapping_add(8), &mut target)
                {
                    return Err(DropReason::TruncatedHeader);
                }
                let target = Addr::v6(target);
                if !endpoint.owns(&target) && !target.is_link_local_v6() {
                    return Err(DropReason::InvalidSourceIp);
                }
            }
            if !source_fits {
                return Err(DropReason::InvalidSourceIp);
            }
            // Neighbours are workloads and nodes. Towards the world such a message would be a
            // way out that no policy sees, so policy judges it like any other packet.
            if packet.hop_limit == FROM_LINK
                && (on_link || !ipcache::names_count_for(peer_identity(&destination)))
            {
                return Ok(Some(Guard::Control));
            }
            Ok(None)
        }
        _ => Ok(None),
    }
}

#[inline(always)]
const fn fits(source_fits: bool) -> Result<Option<Guard>, DropReason> {
    if source_fits {
        Ok(Some(Guard::Control))
    } else {
        Err(DropReason::InvalidSourceIp)
    }
}

/// Which packets to a workload no policy speaks about: discovery that cannot come from beyond
/// the link. Whoever sent it on this link was under the source guard, or is the node.
#[inline(always)]
pub fn to_workload(packet: &Packet) -> Guard {
    if packet.protocol != protocol::ICMPV6 || packet.part != Part::Whole {
        return Guard::Judge;
    }
    match packet.icmp_type() {
        icmpv6::ROUTER_SOLICITATION
        | icmpv6::ROUTER_ADVERTISEMENT
        | icmpv6::NEIGHBOUR_SOLICITATION
        | icmpv6::NEIGHBOUR_ADVERTISEMENT
        | icmpv6::REDIRECT
            if packet.hop_limit == FROM_LINK =>
        {
            Guard::Control
        }
        icmpv6::LISTENER_QUERY
        | icmpv6::LISTENER_REPORT
        | icmpv6::LISTENER_DONE
        | icmpv6::LISTENER_REPORT_V2
            if packet.hop_limit == 1
                && (packet.source.is_link_local_v6() || packet.source.is_unspecified()) =>
        {
            Guard::Control
        }
        _ => Guard::Judge,
    }
}
