//! Documents that follow from the registry alone, rendered once for each registry: the whole OpenAPI description takes
//! long to build, and every kubectl asks for parts of it.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Bytes;
use parking_lot::Mutex;
use sha2::{Digest, Sha512};
use skep_registry::Registry;

/// A document as it goes out.
#[derive(Debug)]
pub struct Rendered {
    /// Its bytes.
    pub body: Bytes,
    /// Its media type.
    pub content_type: &'static str,
    /// Its ETag, quotes included.
    pub tag: String,
}

impl Rendered {
    fn new(body: Vec<u8>, content_type: &'static str) -> Self {
        let digest = Sha512::digest(&body);
        let tag: String = digest.iter().map(|byte| format!("{byte:02X}")).collect();
        Self { body: body.into(), content_type, tag: format!("\"{tag}\"") }
    }
}

type Key = (String, &'static str);

#[derive(Default)]
struct Held {
    registry: Option<Arc<Registry>>,
    rendered: HashMap<Key, Arc<Rendered>>,
}

impl Held {
    fn is_of(&self, registry: &Arc<Registry>) -> bool {
        self.registry.as_ref().is_some_and(|known| Arc::ptr_eq(known, registry))
    }
}

/// Documents of the registry in force; another registry empties it.
#[derive(Default)]
pub struct Documents {
    held: Mutex<Held>,
}

impl Documents {
    /// The document at a path in an encoding, rendered now if nobody has asked before; `None` is not kept.
    pub fn get(
        &self,
        registry: &Arc<Registry>,
        path: &str,
        content_type: &'static str,
        render: impl FnOnce() -> Option<Vec<u8>>,
    ) -> Option<Arc<Rendered>> {
        let key = (path.to_owned(), content_type);
        {
            let mut held = self.held.lock();
            if !held.is_of(registry) {
                *held = Held { registry: Some(Arc::clone(registry)), rendered: HashMap::new() };
            }
            if let Some(rendered) = held.rendered.get(&key) {
                return Some(Arc::clone(rendered));
            }
        }
        // Rendered outside of the lock: two who ask at once do it twice, nobody waits for another's document.
        let rendered = Arc::new(Rendered::new(render()?, content_type));
        let mut held = self.held.lock();
        if held.is_of(registry) {
            held.rendered.insert(key, Arc::clone(&rendered));
        }
        Some(rendered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_rendered_once_for_each_registry() {
        let documents = Documents::default();
        let (one, two) = (Arc::new(Registry::builtin()), Arc::new(Registry::builtin()));
        let mut rendered = 0;
        for registry in [&one, &one, &two, &two] {
            let found = documents.get(registry, "openapi/v2", "application/json", || {
                rendered += 1;
                Some(b"{}".to_vec())
            });
            assert_eq!(found.unwrap().body, "{}");
        }
        assert_eq!(rendered, 2);
        assert!(documents.get(&one, "nowhere", "application/json", || None).is_none());
    }
}
