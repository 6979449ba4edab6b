//! Short names for revisions of a template: the suffix of a ReplicaSet's or ControllerRevision's name.

use serde::Serialize;
use sha2::{Digest, Sha256};

/// Letters and digits that form no words and are safe in names.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const LENGTH: usize = 10;

/// A short name of `value`; `collisions` makes another one when two values share a name.
///
/// The name identifies a revision when it is made and is never computed again for an existing one, so it may change
/// between versions of this program.
pub(crate) fn template_hash(value: &impl Serialize, collisions: i32) -> Result<String, serde_json::Error> {
    let mut digest = Sha256::new();
    digest.update(serde_json::to_vec(value)?);
    if collisions > 0 {
        digest.update(collisions.to_be_bytes());
    }
    let bytes = digest.finalize();
    Ok(bytes
        .iter()
        .take(LENGTH)
        .map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_depends_on_value_and_collisions() {
        let name = template_hash(&"a", 0).unwrap();
        assert_eq!(name, template_hash(&"a", 0).unwrap());
        assert_ne!(name, template_hash(&"b", 0).unwrap());
        assert_ne!(name, template_hash(&"a", 1).unwrap());
        assert_eq!(name.len(), LENGTH);
    }
}
