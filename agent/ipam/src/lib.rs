//! Pod address allocation from a node's ranges, crash-safe. Pure but for its state file.
