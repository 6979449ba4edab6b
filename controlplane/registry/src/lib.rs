//! What each resource is: schema, defaults, validation, strategy, printer columns. Pure.
