//! Why a packet was dropped: one list for the kernel, flow records and the command line.
//!
//! In:  a rule of the datapath that was broken.
//! Out: [`DropReason`]: Cilium's number, name and text where Cilium has one for the same thing
//!      (`api/v1/flow/flow.proto`, `pkg/monitor/api/drop.go` of 1.20), 240 and up where it has not.
//! Not here: which policy is behind a denial (`rule_set` of the event).

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, $text:literal;)*) => {
        /// Why a packet was dropped.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[$doc])* $variant = $number,)*
        }

        impl DropReason {
            /// Every reason, ascending by number.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The reason with this number.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The name as in Hubble's `DropReason`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The text as people read it.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

reasons! {
    /// The frame's source MAC is not the workload's.
    InvalidSourceMac = 130, "INVALID_SOURCE_MAC", "Invalid source mac";
    /// The packet's source address is not the workload's.
    InvalidSourceIp = 132, "INVALID_SOURCE_IP", "Invalid source ip";
    /// No rule allows it and the direction is in default deny.
    PolicyDenied = 133, "POLICY_DENIED", "Policy denied";
    /// The headers contradict themselves.
    InvalidPacket = 134, "INVALID_PACKET_DROPPED", "Invalid packet";
    /// The transport header is cut off.
    TruncatedHeader = 135, "CT_TRUNCATED_OR_INVALID_HEADER", "CT: Truncated or invalid header";
    /// Neither IPv4, IPv6 nor ARP.
    UnsupportedL3 = 139, "UNSUPPORTED_L3_PROTOCOL", "Unsupported L3 protocol";
    /// Steering would have to rewrite the frame and could not.
    CannotWrite = 141, "ERROR_WRITING_TO_PACKET", "Error writing to packet";
    /// The flow could not be remembered.
    CtInsertFailed = 155, "CT_MAP_INSERTION_FAILED", "CT: Map insertion failed";
    /// IPv6 extension headers beyond what is walked, or out of place.
    InvalidExtensionHeader = 156, "INVALID_IPV6_EXTENSION_HEADER", "Invalid IPv6 extension header";
    /// A fragment that may not be let through one by one.
    FragmentUnsupported = 157, "IP_FRAGMENTATION_NOT_SUPPORTED", "IP fragmentation not supported";
    /// The program runs without a configuration, or with one of another ABI.
    NoConfig = 165, "NO_CONFIGURATION_AVAILABLE_TO_PERFORM_POLICY_DECISION",
        "No configuration available to perform policy decision";
    /// Not an Ethernet II frame.
    UnsupportedL2 = 166, "UNSUPPORTED_L2_PROTOCOL", "Unsupported L2 protocol";
    /// A later fragment whose first one was not seen, or not let through.
    FirstFragmentMissing = 175, "FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND",
        "First logical datagram fragment not found";
    /// Router advertisement, redirect or another message a workload has no business sending.
    ForbiddenIcmpv6 = 176, "FORBIDDEN_ICMPV6_MESSAGE", "Forbidden ICMPv6 message";
    /// The proxy has no socket for it: it is down.
    SocketLookupFailed = 178, "SOCKET_LOOKUP_FAILED", "Socket lookup failed";
    /// The kernel refused the proxy's socket.
    SocketAssignFailed = 179, "SOCKET_ASSIGN_FAILED", "Socket assign failed";
    /// A deny rule.
    PolicyDeny = 181, "POLICY_DENY", "Policy denied by denylist";
    /// A VLAN tag.
    VlanFiltered = 182, "VLAN_FILTERED", "VLAN traffic disallowed by VLAN filter";
    /// The endpoint has no connection table.
    CtMapMissing = 190, "CT_NO_MAP_FOUND", "No conntrack map found";
    /// The interface belongs to no endpoint.
    NoEndpoint = 203, "DROP_EP_NOT_READY", "Endpoint policy program not available";
    /// A fragment towards a port whose traffic goes through the proxy.
    FragmentIntercepted = 240, "NAMEGATE_FRAGMENT_INTERCEPTED", "Fragment towards an intercepted port";
    /// IPv4 loose or strict source routing.
    SourceRouting = 241, "NAMEGATE_SOURCE_ROUTING", "IPv4 source routing";
    /// IPv6 routing header with segments left.
    RoutingHeader = 242, "NAMEGATE_ROUTING_HEADER", "IPv6 routing header with segments left";
    /// An ICMP error that quotes no flow of this endpoint.
    IcmpErrorUnrelated = 243, "NAMEGATE_ICMP_ERROR_UNRELATED", "ICMP error about no known flow";
    /// The workload answers DHCP.
    ForbiddenDhcp = 244, "NAMEGATE_FORBIDDEN_DHCP", "DHCP server reply from a workload";
    /// IPv4 redirect or router advertisement from the workload.
    ForbiddenIcmp = 245, "NAMEGATE_FORBIDDEN_ICMP", "Forbidden ICMP message";
    /// Loopback, unspecified or IPv4-mapped destination.
    InvalidDestinationIp = 246, "NAMEGATE_INVALID_DESTINATION_IP", "Invalid destination ip";
    /// Only a rule about what is inside of the connection allows it, and nobody is there to look.
    NeedsProxy = 247, "NAMEGATE_NEEDS_L7_PROXY", "Needs the L7 proxy, which this version does not have";
    /// Behind a service's address some backends may be reached and others may not.
    MixedBackends = 248, "NAMEGATE_MIXED_BACKENDS", "Policy allows some backends of the service and not all";
}

impl DropReason {
    /// The number as events and counters hold it.
    #[inline(always)]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

impl core::fmt::Display for DropReason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_reasons_are_each_others_inverse() {
        for reason in DropReason::ALL {
            assert_eq!(DropReason::from_number(reason.number()), Some(*reason));
            assert!(!reason.text().is_empty() && !reason.name().is_empty());
        }
        assert!(DropReason::ALL.is_sorted());
        assert_eq!(DropReason::from_number(0), None);
    }
}
