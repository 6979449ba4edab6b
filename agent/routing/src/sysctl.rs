//! Settings below `/proc/sys`, of the calling thread's network namespace.

use std::{fs, io, path::Path};

use crate::RoutingError;

/// Writes a setting unless it has the value already: writing `ip_forward` resets the forwarding of every device, and
/// some settings are read-only but right. A setting that this kernel lacks (IPv6 off) needs no value.
pub fn write(key: &str, value: &str) -> Result<(), RoutingError> {
    let path = Path::new("/proc/sys").join(key);
    let failed = |source| RoutingError::Sysctl { key: key.into(), value: value.into(), source };
    match fs::read_to_string(&path) {
        Ok(now) if now.trim() == value => Ok(()),
        Ok(_) => fs::write(&path, value).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::NotFound && key.starts_with("net/ipv6/") => Ok(()),
        Err(source) => Err(failed(source)),
    }
}

/// Reads a setting; `None` when this kernel lacks it.
#[must_use]
pub fn read(key: &str) -> Option<String> {
    fs::read_to_string(Path::new("/proc/sys").join(key)).ok().map(|text| text.trim().to_owned())
}
