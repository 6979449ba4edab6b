//! Kubeconfig files: one cluster, one user, one context.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::{Identity, PkiError, files};

/// How the user proves who it is.
#[derive(Clone, Debug)]
pub enum Credential {
    /// A client certificate.
    Certificate(Identity),
    /// A bearer token.
    Token(String),
}

/// A kubeconfig with one context.
#[derive(Clone, Debug)]
pub struct Kubeconfig {
    /// Name of the cluster and the context.
    pub cluster: String,
    /// URL of the API server.
    pub server: String,
    /// Certificate of the cluster's CA, PEM.
    pub ca_pem: String,
    /// Name of the user entry.
    pub user: String,
    /// The user's credential.
    pub credential: Credential,
}

impl Kubeconfig {
    /// Writes the file with mode 0600.
    pub fn write(&self, path: &Path) -> Result<(), PkiError> {
        files::write_private(path, &self.to_yaml())
    }

    /// The file's content.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        let Self { cluster, server, user, .. } = self;
        let ca = STANDARD.encode(&self.ca_pem);
        let credential = match &self.credential {
            Credential::Certificate(identity) => format!(
                "client-certificate-data: {}\n    client-key-data: {}",
                STANDARD.encode(&identity.certificate_pem),
                STANDARD.encode(&identity.key_pem)
            ),
            Credential::Token(token) => format!("token: {token:?}"),
        };
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: {cluster:?}\n  cluster:\n    server: {server:?}\n    \
             certificate-authority-data: {ca}\nusers:\n- name: {user:?}\n  user:\n    {credential}\ncontexts:\n\
             - name: {cluster:?}\n  context:\n    cluster: {cluster:?}\n    user: {user:?}\ncurrent-context: {cluster:?}\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cluster_user_and_context() {
        let config = Kubeconfig {
            cluster: "skep".to_owned(),
            server: "https://127.0.0.1:6443".to_owned(),
            ca_pem: "CA".to_owned(),
            user: "admin".to_owned(),
            credential: Credential::Token("abcdef.0123456789abcdef".to_owned()),
        };
        let expected = "apiVersion: v1\nkind: Config\nclusters:\n- name: \"skep\"\n  cluster:\n    \
            server: \"https://127.0.0.1:6443\"\n    certificate-authority-data: Q0E=\nusers:\n- name: \"admin\"\n  \
            user:\n    token: \"abcdef.0123456789abcdef\"\ncontexts:\n- name: \"skep\"\n  context:\n    \
            cluster: \"skep\"\n    user: \"admin\"\ncurrent-context: \"skep\"\n";
        assert_eq!(config.to_yaml(), expected);
    }
}
