//! Pod address allocation from a node's own ranges.
//!
//! Owns which attachment holds which address, the quarantine of freed ones, and the state file that makes both survive
//! a crash. Does not touch interfaces or the API server: ranges are handed in, time is a parameter.
//!
//! Map: [`pool`] allocates within one range of one family, [`allocator`] joins the families of a node and says what an
//! attachment is, [`state`] is the file.

pub mod allocator;
pub mod pool;
pub mod state;

pub use allocator::{Allocation, Allocator, Attachment, AttachmentKey, IpamError};
pub use pool::{Pool, UnixSeconds};
pub use state::{StateError, StateFile};
