//! Every byte that kernel and user space share: map layouts, names, drop reasons, verdicts.
#![no_std]
