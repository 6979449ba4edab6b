//! What every long-running process needs: drain, readiness, backoff, telemetry, admin HTTP.
