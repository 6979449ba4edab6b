//! From a query's bytes to a reply, or to the decision that somebody else must answer. Pure.

use hickory_proto::{
    op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode},
    rr::{DNSClass, Name, Record, RecordType},
};

use super::zone::{Answer, Zone};

/// The reply size that we offer and accept over UDP: what every path carries unfragmented (RFC 9715).
pub const UDP_PAYLOAD: u16 = 1232;
/// The reply size of a client that does not speak EDNS (RFC 1035).
const PLAIN_PAYLOAD: u16 = 512;
/// Aliases followed inside the cluster before giving up.
const ALIAS_DEPTH: usize = 8;

/// What to do with a packet.
#[derive(Debug)]
pub enum Reaction {
    /// Send this back.
    Reply(Reply),
    /// Ask an upstream with the same bytes.
    Forward(Box<Message>),
    /// Ask an upstream for the alias's target and add its answer to this reply.
    Chase {
        /// The reply so far, with the alias.
        reply: Reply,
        /// The name to ask for.
        target: Name,
        /// The type that was asked for.
        kind: RecordType,
    },
    /// Say nothing: not a query.
    Ignore,
}

/// A reply and the limits it is sent under.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The message.
    pub message: Message,
    /// The largest UDP payload that the client takes.
    pub udp_payload: u16,
}

impl Reply {
    /// The bytes for a stream.
    pub fn to_stream(&self) -> Option<Vec<u8>> {
        self.message.to_vec().ok()
    }

    /// The bytes for a datagram: when they do not fit, an empty reply with the truncation bit, so that the client
    /// comes again over TCP.
    pub fn to_datagram(&self) -> Option<Vec<u8>> {
        let bytes = self.message.to_vec().ok()?;
        if bytes.len() <= usize::from(self.udp_payload) {
            Some(bytes)
        } else {
            self.message.truncate().to_vec().ok()
        }
    }
}

/// Decides on one packet.
pub fn respond(zone: &Zone, bytes: &[u8]) -> Reaction {
    let Ok(query) = Message::from_vec(bytes) else {
        return format_error(bytes).map_or(Reaction::Ignore, Reaction::Reply);
    };
    if query.metadata.message_type != MessageType::Query {
        return Reaction::Ignore;
    }
    if query.metadata.op_code != OpCode::Query {
        return Reaction::Reply(refusal(&query, ResponseCode::NotImp));
    }
    let [question] = query.queries.as_slice() else {
        return Reaction::Reply(refusal(&query, ResponseCode::FormErr));
    };
    if query.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return Reaction::Reply(refusal(&query, ResponseCode::BADVERS));
    }
    if question.query_class() != DNSClass::IN {
        return Reaction::Reply(refusal(&query, ResponseCode::Refused));
    }
    let (name, kind) = (question.name().clone(), question.query_type());
    let mut reply = refusal(&query, ResponseCode::NoError);
    reply.message.metadata.authoritative = true;
    resolve(zone, query, reply, name, kind)
}

fn resolve(zone: &Zone, query: Message, mut reply: Reply, name: Name, kind: RecordType) -> Reaction {
    let mut current = name;
    for _ in 0..ALIAS_DEPTH {
        match zone.lookup(&current, kind) {
            Answer::Records(answers, additional) => {
                reply.message.add_answers(answers);
                reply.message.add_additionals(additional);
                return Reaction::Reply(reply);
            }
            Answer::NoData => return Reaction::Reply(negative(zone, reply, ResponseCode::NoError)),
            Answer::NoName => return Reaction::Reply(negative(zone, reply, ResponseCode::NXDomain)),
            Answer::NotOurs if reply.message.answers.is_empty() => return Reaction::Forward(Box::new(query)),
            Answer::NotOurs => return Reaction::Chase { reply, target: current, kind },
            Answer::Alias(alias, target) => {
                reply.message.add_answer(*alias);
                if kind == RecordType::CNAME {
                    return Reaction::Reply(reply);
                }
                current = target;
            }
        }
    }
    reply.message.metadata.response_code = ResponseCode::ServFail;
    Reaction::Reply(reply)
}

/// Completes a chased reply with what the upstream said.
pub fn complete_chase(mut reply: Reply, upstream: Option<Message>) -> Reply {
    match upstream {
        Some(upstream) => {
            reply.message.metadata.response_code = upstream.metadata.response_code;
            reply.message.add_answers(upstream.answers);
            reply.message.add_authorities(upstream.authorities.into_iter().filter(is_soa));
        }
        None => reply.message.metadata.response_code = ResponseCode::ServFail,
    }
    reply
}

/// A reply to `query` without records.
pub fn refusal(query: &Message, code: ResponseCode) -> Reply {
    let mut message = Message::response(query.metadata.id, query.metadata.op_code);
    message.metadata = Metadata::response_from_request(&query.metadata);
    message.metadata.recursion_available = true;
    message.metadata.response_code = code;
    message.add_queries(query.queries.iter().cloned());
    let mut udp_payload = PLAIN_PAYLOAD;
    if let Some(theirs) = &query.edns {
        udp_payload = theirs.max_payload().clamp(PLAIN_PAYLOAD, UDP_PAYLOAD);
        let mut ours = Edns::new();
        ours.set_max_payload(UDP_PAYLOAD).set_rcode_high(code.high());
        message.set_edns(ours);
    }
    Reply { message, udp_payload }
}

fn negative(zone: &Zone, mut reply: Reply, code: ResponseCode) -> Reply {
    reply.message.metadata.response_code = code;
    reply.message.add_authority(zone.soa());
    reply
}

fn is_soa(record: &Record) -> bool {
    record.record_type() == RecordType::SOA
}

/// A reply to bytes that have at least a query's header.
fn format_error(bytes: &[u8]) -> Option<Reply> {
    let header: [u8; 12] = bytes.get(..12)?.try_into().ok()?;
    if header[2] & 0x80 != 0 {
        return None;
    }
    let id = u16::from_be_bytes([header[0], header[1]]);
    let message = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
    Some(Reply { message, udp_payload: PLAIN_PAYLOAD })
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Query;
    use proptest::prelude::*;
    use skep_model::{DnsTarget, DnsView, HeadlessEndpoint, HeadlessSubset, NamespacedName};

    use super::*;

    fn zone(endpoints: u8) -> Zone {
        let endpoints = (0..endpoints)
            .map(|last| HeadlessEndpoint { address: [10, 244, 1, last].into(), hostname: None })
            .collect();
        let many = DnsTarget::Headless(vec![HeadlessSubset { ports: vec![], endpoints }]);
        let mut zone = Zone::new("cluster.local", Vec::new()).unwrap();
        zone.replace(DnsView {
            services: [
                (NamespacedName::new("a", "many"), many),
                (NamespacedName::new("a", "out"), DnsTarget::External("example.com".into())),
                (NamespacedName::new("a", "loop"), DnsTarget::External("loop.a.svc.cluster.local".into())),
            ]
            .into(),
            namespaces: ["a".to_owned()].into(),
        });
        zone
    }

    fn query(name: &str, edns: Option<u16>) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        if let Some(payload) = edns {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            message.set_edns(edns);
        }
        message.to_vec().unwrap()
    }

    fn reply(zone: &Zone, bytes: &[u8]) -> Reply {
        match respond(zone, bytes) {
            Reaction::Reply(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_large_answer_is_truncated_for_a_small_client_and_whole_on_a_stream() {
        let reply = reply(&zone(100), &query("many.a.svc.cluster.local.", None));
        let datagram = Message::from_vec(&reply.to_datagram().unwrap()).unwrap();
        assert!(datagram.metadata.truncation && datagram.answers.is_empty());
        let stream = Message::from_vec(&reply.to_stream().unwrap()).unwrap();
        assert!(!stream.metadata.truncation && stream.answers.len() == 100);
    }

    #[test]
    fn a_client_with_edns_gets_more_before_truncation() {
        let reply = reply(&zone(50), &query("many.a.svc.cluster.local.", Some(4096)));
        assert_eq!(reply.udp_payload, UDP_PAYLOAD);
        let datagram = Message::from_vec(&reply.to_datagram().unwrap()).unwrap();
        assert_eq!(datagram.answers.len(), 50);
        assert!(datagram.edns.is_some());
    }

    #[test]
    fn a_name_without_records_answers_negative_with_the_soa() {
        let reply = reply(&zone(0), &query("nobody.a.svc.cluster.local.", None));
        assert_eq!(reply.message.metadata.response_code, ResponseCode::NXDomain);
        assert!(reply.message.metadata.authoritative);
        assert!(reply.message.authorities.iter().all(is_soa) && reply.message.authorities.len() == 1);
    }

    #[test]
    fn foreign_names_are_forwarded_and_external_names_chased() {
        assert!(matches!(respond(&zone(0), &query("example.org.", None)), Reaction::Forward(_)));
        let reaction = respond(&zone(0), &query("out.a.svc.cluster.local.", None));
        let Reaction::Chase { reply, target, .. } = reaction else { panic!("{reaction:?}") };
        assert_eq!((reply.message.answers.len(), target.to_string().as_str()), (1, "example.com."));
        assert_eq!(complete_chase(reply, None).message.metadata.response_code, ResponseCode::ServFail);
    }

    #[test]
    fn an_alias_to_itself_ends() {
        let reply = reply(&zone(0), &query("loop.a.svc.cluster.local.", None));
        assert_eq!(reply.message.metadata.response_code, ResponseCode::ServFail);
    }

    #[test]
    fn replies_are_never_answered() {
        let mut bytes = query("many.a.svc.cluster.local.", None);
        bytes[2] |= 0x80;
        assert!(matches!(respond(&zone(1), &bytes), Reaction::Ignore));
    }

    proptest! {
        #[test]
        fn any_bytes_get_a_reply_that_encodes_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Reaction::Reply(reply) = respond(&zone(3), &bytes) {
                prop_assert!(reply.to_datagram().is_some());
            }
        }
    }
}
