//! What every client of the API inside the control plane shares.
//!
//! * [`Informer`]: one watch per type kept as an indexed [`Store`], with change handlers that enqueue keys;
//! * [`WorkQueue`] and [`work`]: deduplicated keys with per-key backoff, drained by a fixed set of workers;
//! * [`Recorder`]: events as `kubectl describe` shows them, aggregated so that a failing loop cannot flood the store.
//!
//! Nothing here decides what a cluster should look like; that is the callers' plans. Nothing here spawns: every
//! long-running part is a future that its owner polls and drops.

mod correlate;
mod informer;
mod key;
mod queue;
mod recorder;
mod store;
mod work;

pub use correlate::{Correlator, EventRequest, EventType, Write};
pub use informer::{Change, Informer};
pub use key::ObjectKey;
pub use queue::{Pop, QueueCore, WorkQueue};
pub use recorder::{Recorder, RecorderTask};
pub use store::{IndexFn, Store};
pub use work::{Outcome, work};
