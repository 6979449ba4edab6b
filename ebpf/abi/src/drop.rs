//! Why packets die. One table gives the enum, the labels for metrics and the sentence for people.

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $label:literal, $text:literal;)*) => {
        /// Why a packet was dropped. The number is what the kernel counts under; numbers are never reused.
        #[repr(u8)]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum DropReason {
            $(#[doc = $text] $name = $number,)*
        }

        impl DropReason {
            /// Every reason, in numeric order.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$name),*];

            /// The label of the reason in metrics: lower case, underscores.
            pub const fn label(self) -> &'static str {
                match self { $(DropReason::$name => $label,)* }
            }

            /// What happened, for a person.
            pub const fn text(self) -> &'static str {
                match self { $(DropReason::$name => $text,)* }
            }

            /// The reason of a number.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(DropReason::$name),)* _ => None }
            }
        }
    };
}

reasons! {
    Malformed = 1, "malformed", "Headers are truncated or contradict each other.";
    UnsupportedProtocol = 2, "unsupported_protocol", "The Ethernet type or family is not carried for pods.";
    SpoofedSource = 3, "spoofed_source", "The source address is not the sender's own.";
    SpoofedMac = 4, "spoofed_mac", "The link-layer source address is not the sender's own.";
    SpoofedArp = 5, "spoofed_arp", "An ARP packet claims an address that is not the sender's own.";
    DhcpServer = 6, "dhcp_server", "A pod tried to answer DHCP.";
    RouterAdvertisement = 7, "router_advertisement", "A pod tried to announce itself as a router or to redirect.";
    Martian = 8, "martian", "A loopback address appeared on the wire.";
    GroupDestination = 9, "group_destination", "Multicast and broadcast are not carried between pods.";
    NoEndpoint = 10, "no_endpoint", "No pod has the destination address.";
    NoService = 11, "no_service", "The destination is in the Service range, but no Service listens on that port.";
    NoBackend = 12, "no_backend", "The Service has no ready endpoint.";
    NoRoute = 13, "no_route", "The node has no route to a destination outside the cluster.";
    Hairpin = 14, "hairpin", "The only endpoint of the Service is the sender itself.";
    FlowConflict = 15, "flow_conflict", "Another live flow uses the translated addresses and ports.";
    ConntrackFull = 16, "conntrack_full", "The flow could not be recorded in conntrack.";
    FragmentUnknown = 17, "fragment_unknown", "A fragment came without the one that carries its ports.";
    PeerUnknown = 18, "peer_unknown", "The source is inside the cluster's ranges, but no node has announced it.";
    TunnelSpoofed = 19, "tunnel_spoofed", "The tunnel's outer source does not own the inner source.";
    UnknownVni = 20, "unknown_vni", "The tunnel packet carries a network identifier that is not ours.";
    PolicyDenied = 21, "policy_denied", "A network policy denies the flow.";
    RewriteFailed = 22, "rewrite_failed", "The packet could not be rewritten.";
    TunnelFailed = 23, "tunnel_failed", "The tunnel destination could not be set.";
    NotForThisNode = 24, "not_for_this_node", "A tunnel packet's destination is neither a pod nor an address of this node.";
    UntrackedReply = 25, "untracked_reply", "A TCP segment or ICMP error belongs to no known flow.";
    SnatExhausted = 26, "snat_exhausted", "No source port is free towards the Service's endpoint.";
    SctpPort = 27, "sctp_port", "SCTP ports cannot be translated: the Service's port and target port differ.";
    SourceRange = 28, "source_range", "The client is not in the Service's loadBalancerSourceRanges.";
    IcmpRedirect = 29, "icmp_redirect", "A pod tried to change routes with an ICMP redirect.";
    IcmpMismatch = 30, "icmp_mismatch", "An ICMP error is not addressed to the sender of the packet it quotes.";
    NoLocalBackend = 31, "no_local_backend", "The Service's traffic policy is Local, and this node has no endpoint of it.";
    SpoofedNeighbour = 32, "spoofed_neighbour", "An IPv6 neighbour message claims an address that is not the sender's own.";
    ExtensionHeaders = 33, "extension_headers", "IPv6 extension headers are too many, or of a kind that is not carried.";
    NotOutside = 34, "not_outside", "A tunnel packet for outside clients comes from inside the cluster, or is for no Service.";
}

/// Slots in the counters: one above the largest reason's number; slot zero counts what passed.
pub const REASON_SLOTS: u32 = 64;

const _: () = {
    let mut index = 0;
    while index < DropReason::ALL.len() {
        let number = DropReason::ALL[index] as u32;
        assert!(number > 0 && number < REASON_SLOTS);
        index += 1;
    }
};

impl core::fmt::Display for DropReason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unique_and_fit_metrics() {
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert!(reason.label().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
            assert!(DropReason::ALL[index + 1..].iter().all(|other| other.label() != reason.label()));
            assert_eq!(DropReason::from_number(*reason as u8), Some(*reason));
        }
    }
}
