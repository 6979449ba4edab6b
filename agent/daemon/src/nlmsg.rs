//! Netlink messages and attributes, as far as what no crate of ours speaks needs them (netlink(7)).

/// Length of nlmsghdr.
pub(crate) const HEADER: usize = 16;
/// Kinds and flags of messages.
pub(crate) const NLMSG_ERROR: u16 = 2;
/// The end of a list.
pub(crate) const NLMSG_DONE: u16 = 3;
/// A request.
pub(crate) const NLM_F_REQUEST: u16 = 1;
/// An acknowledgement is wanted.
pub(crate) const NLM_F_ACK: u16 = 4;
/// A list is wanted.
pub(crate) const NLM_F_DUMP: u16 = 0x300;
/// Flags in an attribute's type.
const ATTRIBUTE_TYPE: u16 = 0x3fff;

/// A message of this kind.
pub(crate) fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = HEADER + body.len();
    let mut message = Vec::with_capacity(length);
    message.extend((length as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

/// The messages of a datagram: kind and body of each.
pub(crate) struct Messages<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let head = self.0.get(..HEADER)?;
        let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let kind = u16::from_ne_bytes([head[4], head[5]]);
        let body = self.0.get(HEADER..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    }
}

/// The attributes of a body: type and value of each.
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let head = self.0.get(..4)?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & ATTRIBUTE_TYPE;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_attributes_are_walked_and_truncated_ones_end_the_walk() {
        let body = [8, 0, 1, 0, b'a', b'b', b'c', 0, 5, 0, 3, 0, b'x', 0, 0, 0];
        let datagram = message(7, 0, &body);
        let (kind, found) = Messages(&datagram).next().unwrap();
        assert_eq!(kind, 7);
        let attributes: Vec<_> = Attributes(found).collect();
        assert_eq!(attributes, [(1, &b"abc\0"[..]), (3, b"x")]);
        assert_eq!(Messages(&[1, 2, 3]).count(), 0);
        let mut long = vec![0; 32];
        long[0] = 200;
        assert_eq!((Messages(&long).count(), Attributes(&[200, 0, 1, 0]).count()), (0, 0));
    }
}
