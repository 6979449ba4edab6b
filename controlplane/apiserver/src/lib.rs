//! The Kubernetes API over HTTP: negotiation, authn, authz, admission, watch, patch, subresources.

mod config;
mod media;
mod request_info;
mod selector;
mod server;
mod status;
mod user;

pub use config::{ApiServerConfig, KubeletClientConfig, TlsConfig};
pub use server::{ApiServer, ApiServerError};
pub use status::{ApiError, ApiResult, Cause};
pub use user::UserInfo;
