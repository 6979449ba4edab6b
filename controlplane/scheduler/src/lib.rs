//! The scheduler: queue, snapshot, framework and plugins; bind and watch are the shell.
