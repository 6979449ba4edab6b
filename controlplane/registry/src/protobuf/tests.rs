//! Messages built by hand, and bytes that are none.

use proptest::prelude::*;

use super::*;

fn varint(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let byte = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            out.push(byte);
            return out;
        }
        out.push(byte | 0x80);
    }
}

fn bytes(number: u64, content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    [varint(number << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
}

fn int(number: u64, value: i64) -> Vec<u8> {
    [varint(number << 3), varint(u64::from_ne_bytes(value.to_ne_bytes()))].concat()
}

fn envelope(api_version: &str, kind: &str, raw: Vec<u8>) -> Vec<u8> {
    let meta = [bytes(1, api_version), bytes(2, kind)].concat();
    [MAGIC.to_vec(), bytes(1, meta), bytes(2, raw), bytes(3, ""), bytes(4, "")].concat()
}

#[test]
fn an_access_review_decodes() {
    let attributes = [bytes(1, "default"), bytes(2, "create"), bytes(3, ""), bytes(5, "pods")].concat();
    let raw = [bytes(1, bytes(1, "")), bytes(2, bytes(1, attributes)), bytes(3, int(1, 0))].concat();
    let object = decode(&envelope("authorization.k8s.io/v1", "SelfSubjectAccessReview", raw)).unwrap();
    assert_eq!(object["kind"], "SelfSubjectAccessReview");
    let attributes = json!({"namespace": "default", "verb": "create", "resource": "pods"});
    assert_eq!(object["spec"]["resourceAttributes"], attributes);
}

#[test]
fn options_decode_whatever_their_group() {
    let raw = [int(1, 0), bytes(2, bytes(1, "u")), bytes(4, "Background"), bytes(5, "All")].concat();
    let object = decode(&envelope("policy/v1", "DeleteOptions", raw)).unwrap();
    let wanted = json!({"apiVersion": "policy/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
        "preconditions": {"uid": "u"}, "propagationPolicy": "Background", "dryRun": ["All"]});
    assert_eq!(object, wanted);
}

#[test]
fn a_pod_decodes_with_maps_lists_times_and_embedded_sources() {
    let label = bytes(11, [bytes(1, "app"), bytes(2, "web")].concat());
    let metadata = [bytes(1, "p"), bytes(8, [int(1, 1_700_000_000), int(2, 0)].concat()), label].concat();
    let empty_dir = bytes(2, bytes(2, bytes(1, "Memory")));
    let volume = bytes(1, [bytes(1, "tmp"), empty_dir].concat());
    let limit = bytes(1, [bytes(1, "cpu"), bytes(2, bytes(1, "500m"))].concat());
    let probe = bytes(
        10,
        [bytes(1, bytes(2, bytes(2, [int(1, 0), int(2, 80), bytes(3, "")].concat()))), int(3, 5)].concat(),
    );
    let container = bytes(2, [bytes(1, "c"), bytes(2, "image"), bytes(8, limit), probe].concat());
    let spec = [volume, container, int(4, 30)].concat();
    let object = decode(&envelope("v1", "Pod", [bytes(1, metadata), bytes(2, spec)].concat())).unwrap();
    assert_eq!(object["metadata"]["creationTimestamp"], "2023-11-14T22:13:20Z");
    assert_eq!(object["metadata"]["labels"], json!({"app": "web"}));
    assert_eq!(object["spec"]["volumes"], json!([{"name": "tmp", "emptyDir": {"medium": "Memory"}}]));
    assert_eq!(object["spec"]["containers"][0]["resources"]["limits"], json!({"cpu": "500m"}));
    assert_eq!(object["spec"]["containers"][0]["livenessProbe"]["httpGet"]["port"], 80);
    assert_eq!(object["spec"]["terminationGracePeriodSeconds"], 30);
}

#[test]
fn secrets_become_base64_and_microseconds_survive() {
    let entry = bytes(2, [bytes(1, "k"), bytes(2, [0xff, 0x00])].concat());
    let secret = decode(&envelope("v1", "Secret", entry)).unwrap();
    assert_eq!(secret["data"], json!({"k": "/wA="}));
    let spec = bytes(2, bytes(4, [int(1, 1_700_000_000), int(2, 123_456_000)].concat()));
    let lease = decode(&envelope("coordination.k8s.io/v1", "Lease", spec)).unwrap();
    assert_eq!(lease["spec"]["renewTime"], "2023-11-14T22:13:20.123456Z");
}

#[test]
fn what_is_no_message_is_refused() {
    assert_eq!(decode(b"{}"), Err(ProtobufError::NoEnvelope));
    assert!(matches!(
        decode(&envelope("example.com/v1", "Foo", vec![])),
        Err(ProtobufError::UnknownKind { .. })
    ));
    assert!(matches!(decode(&envelope("v1", "Pod", vec![0x0a, 0x7f])), Err(ProtobufError::Malformed(_))));
}

#[test]
fn every_listed_message_names_fields_of_its_definition() {
    let types = builtin::types();
    for object in types.objects().filter(|object| !object.name.is_empty()) {
        let Some(numbers) = NUMBERS.get(short(&object.name)) else { continue };
        for name in numbers.values().filter(|name| !name.starts_with('~')) {
            assert!(object.field(name).is_some(), "{}: {name}", object.name);
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(kind in prop::sample::select(vec!["Pod", "Service", "Secret"]),
                                   raw in prop::collection::vec(any::<u8>(), 0..200)) {
        let _decided = decode(&envelope("v1", kind, raw));
    }
}
