//! Loads, attaches and pins the eBPF programs; typed map handles with in-memory fakes.
