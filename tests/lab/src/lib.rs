//! Tests on real clusters: each suite brings one up beside any other on this machine, runs its cases
//! in order, and takes it down whatever happened.

pub mod asking;
pub mod cluster;
pub mod command;
pub mod outside;
pub mod process;
pub mod suite;
