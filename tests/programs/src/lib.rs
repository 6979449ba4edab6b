//! Packets through the programs with BPF_PROG_TEST_RUN.
