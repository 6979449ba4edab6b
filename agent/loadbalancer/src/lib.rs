//! Services and EndpointSlices to frontends and backends. Pure.
