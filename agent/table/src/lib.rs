//! Desired state in tables, and three idempotent verbs that bring it to reality: update, delete, prune.
//!
//! Owns the bookkeeping between "what should be" and "what was written": which entries are new, changed or gone, which
//! failed and when to try again, and whether it is safe to prune. Knows no map, route or API object.
//!
//! A restart is a prune: a new process fills its tables from a full re-list, says so with [`Table::complete`], and only
//! then may what nobody wants any more be removed from the kernel.
//!
//! Map: [`table`] is the desired side, [`reconciler`] drives a [`Target`] towards it.

pub mod reconciler;
pub mod table;

pub use reconciler::{Counters, Outcome, Reconciler, Target};
pub use table::Table;
