//! The Kubernetes API over HTTP: negotiation, authn, authz, admission, watch, patch, subresources.
//!
//! A request passes [`pipeline`]: `authn` -> `authz` -> `rest` (decode, `admission` mutate, validate) -> `store`.
//! What a resource is comes from skep-registry, what is stored from skep-storage; this crate adds who may do what,
//! and how the answer looks on the wire.
//!
//! | module | owns |
//! |---|---|
//! | `listen`, `server` | connections, life and death |
//! | `pipeline`, `context`, `request_info` | one request's way through the stages |
//! | `authn`, `authz`, `user` | who asks, and whether they may |
//! | `rest`, `list_options`, `selector` | verbs on resources |
//! | `subresource`, `review`, `service` | what is special about single resources |
//! | `apply` | server-side apply and field ownership |
//! | `admission` | completion and refusal of writes |
//! | `proxy` | what leads to a kubelet, a pod or a Service |
//! | `document` | discovery, OpenAPI, health, version |
//! | `bootstrap`, `follow`, `custom_resources` | work besides requests |
//! | `media`, `shape`, `respond`, `status` | the wire |

mod admission;
mod apply;
mod authn;
mod authz;
mod bootstrap;
mod config;
mod context;
mod custom_resources;
mod document;
mod follow;
mod list_options;
mod listen;
mod media;
mod meta;
mod metrics;
mod pipeline;
mod proxy;
mod registry_view;
mod request_info;
mod respond;
mod rest;
mod review;
mod selector;
mod server;
mod service;
mod shape;
mod state;
mod status;
mod store;
mod subresource;
mod user;

pub use authn::jwt::TokenError;
pub use config::{ApiServerConfig, KubeletClientConfig, TlsConfig};
pub use listen::ListenError;
pub use server::{ApiServer, ApiServerError};
pub use service::PoolError;
pub use status::{ApiError, ApiResult, Cause, Details};
pub use user::UserInfo;
