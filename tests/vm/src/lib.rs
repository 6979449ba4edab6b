//! What a test machine says to `cargo xtask test vm`, and how its kernel is asked what it can do.
//!
//! The machine has two serial ports: the kernel's messages go to the first, and everything said here to the second.
//! Lines that begin with [`MARK`] are for the runner, all others are the tests' own output.

pub mod features;
pub mod verifier;

/// Begins a line for the runner.
pub const MARK: &str = "@skep ";
