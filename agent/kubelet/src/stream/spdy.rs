//! The part of SPDY/3.1 that a client of a streaming server needs: open streams, send and receive data, close
//! halves. Pure.
//!
//! Header blocks are written as stored (uncompressed) deflate blocks, which every inflater reads, so no
//! dictionary and no compressor state is needed. Headers from the other side say nothing we act on, so they are
//! skipped, never inflated. There is no flow control: the transport's is enough.

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes before every payload.
pub(crate) const HEAD: usize = 8;
/// Larger frames are refused.
pub(crate) const LARGEST: usize = 1 << 24;

const FIN: u8 = 1;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;

/// A frame from the other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    /// Data, the last of its stream with `fin`.
    Data {
        /// The stream.
        stream: u32,
        /// Whether the other side sends no more.
        fin: bool,
        /// The bytes.
        payload: Bytes,
    },
    /// The stream was accepted.
    Reply {
        /// The stream.
        stream: u32,
        /// Whether the other side sends nothing.
        fin: bool,
    },
    /// The stream was refused or broken off.
    Reset(u32),
    /// To be answered with the same.
    Ping(u32),
    /// The connection ends.
    GoAway,
    /// Something that needs no reaction.
    Other,
}

/// What the first bytes of a frame say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    control: Option<u16>,
    stream: u32,
    flags: u8,
    /// Bytes of payload that follow.
    pub(crate) length: usize,
}

/// Parses the first bytes of a frame.
pub(crate) fn head(bytes: [u8; HEAD]) -> Head {
    let word = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let is_control = word & 0x8000_0000 != 0;
    Head {
        control: is_control.then_some((word & 0xffff) as u16),
        stream: word & 0x7fff_ffff,
        flags: bytes[4],
        length: u32::from_be_bytes([0, bytes[5], bytes[6], bytes[7]]) as usize,
    }
}

/// Puts a frame together.
pub(crate) fn frame(head: Head, payload: Bytes) -> Frame {
    let fin = head.flags & FIN != 0;
    let Some(kind) = head.control else {
        return Frame::Data { stream: head.stream, fin, payload };
    };
    let word = payload.get(..4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
    match (kind, word) {
        (SYN_REPLY, Some(stream)) => Frame::Reply { stream: stream & 0x7fff_ffff, fin },
        (RST_STREAM, Some(stream)) => Frame::Reset(stream & 0x7fff_ffff),
        (PING, Some(id)) => Frame::Ping(id),
        (GOAWAY, _) => Frame::GoAway,
        _ => Frame::Other,
    }
}

/// Writes frames; keeps what the header stream needs between them.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    begun: bool,
}

impl Writer {
    /// Opens a stream; with `fin` this side will send nothing on it.
    pub(crate) fn open(&mut self, stream: u32, fin: bool, headers: &[(&str, &str)]) -> Bytes {
        let block = self.compress(&header_block(headers));
        let mut payload = BytesMut::with_capacity(10 + block.len());
        payload.put_u32(stream);
        payload.put_u32(0);
        payload.put_u16(0);
        payload.put_slice(&block);
        control(SYN_STREAM, if fin { FIN } else { 0 }, &payload)
    }

    /// One stored block and an empty one, which flushes the reader's inflater.
    fn compress(&mut self, block: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(block.len() + 12);
        if !self.begun {
            out.put_slice(&[0x78, 0x01]);
            self.begun = true;
        }
        for part in [block, &[]] {
            let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
            out.put_u8(0);
            out.put_u16_le(length);
            out.put_u16_le(!length);
            out.put_slice(&part[..usize::from(length)]);
        }
        out.freeze()
    }
}

/// Data on a stream, the last with `fin`.
pub(crate) fn data(stream: u32, fin: bool, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD + payload.len());
    out.put_u32(stream & 0x7fff_ffff);
    put_flags(&mut out, if fin { FIN } else { 0 }, payload.len());
    out.put_slice(payload);
    out.freeze()
}

/// The answer to a ping.
pub(crate) fn pong(id: u32) -> Bytes {
    control(PING, 0, &id.to_be_bytes())
}

fn control(kind: u16, flags: u8, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD + payload.len());
    out.put_u16(0x8003);
    out.put_u16(kind);
    put_flags(&mut out, flags, payload.len());
    out.put_slice(payload);
    out.freeze()
}

fn put_flags(out: &mut BytesMut, flags: u8, length: usize) {
    let length = u32::try_from(length).unwrap_or(0xff_ffff).min(0xff_ffff);
    out.put_u32((u32::from(flags) << 24) | length);
}

fn header_block(headers: &[(&str, &str)]) -> Bytes {
    let mut block = BytesMut::new();
    let put = |text: &str, block: &mut BytesMut| {
        block.put_u32(u32::try_from(text.len()).unwrap_or(0));
        block.put_slice(text.as_bytes());
    };
    block.put_u32(u32::try_from(headers.len()).unwrap_or(0));
    for (name, value) in headers {
        put(name, &mut block);
        put(value, &mut block);
    }
    block.freeze()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn split(bytes: &Bytes) -> (Head, Bytes) {
        let head = head(bytes[..HEAD].try_into().unwrap());
        (head, bytes.slice(HEAD..))
    }

    #[test]
    fn data_survives_the_wire() {
        let (head, payload) = split(&data(5, true, b"abc"));
        assert_eq!(head.length, 3);
        let expected = Frame::Data { stream: 5, fin: true, payload: Bytes::from_static(b"abc") };
        assert_eq!(frame(head, payload), expected);
    }

    #[test]
    fn pings_are_answered_with_their_id() {
        let (head, payload) = split(&pong(7));
        assert_eq!(frame(head, payload), Frame::Ping(7));
    }

    #[test]
    fn an_inflater_reads_the_headers_of_consecutive_streams() {
        let mut writer = Writer::default();
        let mut zlib = Vec::new();
        for stream in [1, 3] {
            let (head, payload) = split(&writer.open(stream, false, &[("streamtype", "stdin")]));
            assert_eq!(head.control, Some(SYN_STREAM));
            assert_eq!(payload[..4], stream.to_be_bytes());
            zlib.extend_from_slice(&payload[10..]);
        }
        let mut plain = Vec::new();
        // The stream has no end marker: the inflater reports that after handing out everything.
        let end = flate2::read::ZlibDecoder::new(zlib.as_slice()).read_to_end(&mut plain);
        assert!(end.is_err());
        let once = header_block(&[("streamtype", "stdin")]);
        assert_eq!(plain, [once.clone(), once].concat());
    }

    #[test]
    fn control_frames_are_told_apart() {
        let of = |kind, payload: &'static [u8]| {
            let (head, payload) = split(&control(kind, 0, payload));
            frame(head, payload)
        };
        assert_eq!(of(SYN_REPLY, &[0, 0, 0, 9]), Frame::Reply { stream: 9, fin: false });
        assert_eq!(of(RST_STREAM, &[0, 0, 0, 9, 0, 0, 0, 5]), Frame::Reset(9));
        assert_eq!(of(GOAWAY, &[0; 8]), Frame::GoAway);
        assert_eq!(of(9, &[0; 8]), Frame::Other);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_from_the_other_side_panic(head in proptest::array::uniform8(proptest::num::u8::ANY), payload: Vec<u8>) {
            let head = super::head(head);
            proptest::prop_assert!(head.length < LARGEST);
            let _ = frame(head, payload.into());
        }

        #[test]
        fn any_data_survives_the_wire(stream in 1u32..0x7fff_ffff, fin: bool, bytes: Vec<u8>) {
            let (head, payload) = split(&data(stream, fin, &bytes));
            proptest::prop_assert_eq!(head.length, bytes.len());
            proptest::prop_assert_eq!(frame(head, payload), Frame::Data { stream, fin, payload: bytes.into() });
        }
    }
}
