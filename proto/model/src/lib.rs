//! Nouns shared by all: labels, selectors, CIDRs, ports, frontends, backends. Pure, no I/O.
