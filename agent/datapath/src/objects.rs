//! Finds the compiled programs: in a folder named at run time, else embedded at build time.

use std::{borrow::Cow, fs, path::Path};

use crate::error::DatapathError;

mod embedded {
    include!(concat!(env!("OUT_DIR"), "/embedded.rs"));
}

/// Names of the objects that this build embeds.
#[must_use]
pub fn embedded_names() -> Vec<&'static str> {
    embedded::EMBEDDED.iter().map(|(name, _)| *name).collect()
}

/// The bytes of an object.
///
/// # Errors
/// [`DatapathError::NoObject`] when it is nowhere, [`DatapathError::File`] when the folder's copy cannot be read.
pub fn object(name: &str, folder: Option<&Path>) -> Result<Cow<'static, [u8]>, DatapathError> {
    if let Some(folder) = folder {
        let path = folder.join(format!("{name}.o"));
        return fs::read(&path).map(Cow::Owned).map_err(|source| DatapathError::File {
            action: "cannot read the eBPF object",
            path,
            source,
        });
    }
    embedded::EMBEDDED
        .iter()
        .find(|(embedded, _)| *embedded == name)
        .map(|(_, bytes)| Cow::Borrowed(*bytes))
        .ok_or_else(|| DatapathError::NoObject { name: name.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_object_says_what_to_run() {
        let error = object("nonesuch", None).unwrap_err();
        assert!(error.to_string().contains("cargo xtask ebpf"));
    }
}
