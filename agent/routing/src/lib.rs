//! Route and tunnel plans (pure) and the netlink shell that applies them.
