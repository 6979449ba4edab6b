//! The gRPC contracts between processes, generated from .proto files; conversions to model live here only.
