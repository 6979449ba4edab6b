//! Exec, attach and port-forward: bytes between the API server and the runtime's streaming server.
//!
//! The runtime is always spoken to in SPDY/3.1, the only protocol in which it honours a closed stdin. A client
//! side that speaks SPDY, bare or inside a WebSocket, is piped through; WebSocket channels are translated.

pub(crate) mod bridge;
pub(crate) mod channels;
pub(crate) mod dial;
pub(crate) mod spdy;
pub(crate) mod upgrade;
