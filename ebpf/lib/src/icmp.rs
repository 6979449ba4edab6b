//! ICMP errors: they belong to the flow of the packet they quote, and the quote is translated like that flow.

use skep_abi::{CtFlags, DropReason};

use crate::{
    conntrack::{Target, peek},
    env::Env,
    family::Family,
    frame::{Content, Frame},
    nat::{End, rewrite},
    packet::{ChecksumFix, ETH_LEN, Packet},
};

const ICMP_HEADER_LEN: u32 = 8;

/// Translates an ICMP error about a translated flow; errors about unknown flows are refused.
///
/// The quoted L4 checksum is left as it is: receivers match the quote by addresses and ports.
///
/// # Errors
/// [`DropReason::UntrackedReply`], [`DropReason::RewriteFailed`].
#[inline(always)]
pub fn translate<A: Family, P: Packet, E: Env<A>>(
    env: &mut E,
    packet: &mut P,
    frame: &mut Frame<A>,
) -> Result<(), DropReason> {
    let at = frame.l4 + ICMP_HEADER_LEN;
    let quoted = A::parse_quoted(packet, at).ok_or(DropReason::UntrackedReply)?;
    let (value, is_reply) = peek(env, &quoted).ok_or(DropReason::UntrackedReply)?;
    let target = Target { addr: value.nat_addr, port: value.nat_port };
    if value.flags.any(CtFlags::REVNAT) && !is_reply {
        // The client's packet was translated on its way out: the client must read of the frontend.
        let from_backend = frame.src == quoted.dst;
        rewrite_quote(packet, frame.l4, at, &quoted, End::Destination, target)
            .ok_or(DropReason::RewriteFailed)?;
        if from_backend {
            let outer = Target { addr: target.addr, port: frame.src_port };
            rewrite(packet, frame, End::Source, outer).ok_or(DropReason::RewriteFailed)?;
        }
    } else if value.flags.any(CtFlags::DNAT) && is_reply {
        // The client complains to the frontend about what the backend sent: the backend must read of itself.
        rewrite_quote(packet, frame.l4, at, &quoted, End::Source, target).ok_or(DropReason::RewriteFailed)?;
        let outer = Target { addr: target.addr, port: frame.dst_port };
        rewrite(packet, frame, End::Destination, outer).ok_or(DropReason::RewriteFailed)?;
    }
    Ok(())
}

#[inline(always)]
fn rewrite_quote<A: Family, P: Packet>(
    packet: &mut P,
    icmp: u32,
    at: u32,
    quoted: &Frame<A>,
    end: End,
    to: Target<A>,
) -> Option<()> {
    let (addr_at, port_at, from, from_port) = match end {
        End::Source => (A::SRC_AT, 0, quoted.src, quoted.src_port),
        End::Destination => (A::DST_AT, 2, quoted.dst, quoted.dst_port),
    };
    packet.write(at + addr_at - ETH_LEN, to.addr)?;
    let checksum = icmp + 2;
    let (old, new) = (from.words(), to.addr.words());
    if let Some(header) = A::CHECKSUM_AT {
        // The quoted header with its checksum keeps its sum, so the outer checksum does not change.
        packet.fix_l3(at + header - ETH_LEN, old[0], new[0])?;
    } else {
        for word in 0..4 {
            let fix = ChecksumFix {
                at: checksum,
                from: old[word],
                to: new[word],
                size: 4,
                pseudo: false,
                udp: false,
            };
            packet.fix_l4(fix)?;
        }
    }
    if quoted.content == Content::Ports && from_port != to.port {
        packet.write(quoted.l4 + port_at, to.port)?;
        let (from, to) = (u32::from(from_port.raw()), u32::from(to.port.raw()));
        packet.fix_l4(ChecksumFix { at: checksum, from, to, size: 2, pseudo: false, udp: false })?;
    }
    Some(())
}
