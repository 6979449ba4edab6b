//! The node's certificates: the client certificate by bootstrap token, the serving certificate, and the renewal
//! of both before they expire. The API may be away for days: what is on disk is used meanwhile.

pub(crate) mod bootstrap;
pub(crate) mod keypair;
pub(crate) mod renewal;
pub(crate) mod request;
