//! Keeps both certificates fresh: asks for the next one at 70 to 90 % of the life of the present one, and goes
//! on trying while the API is away.

use std::{path::PathBuf, sync::Arc, time::Duration};

use jiff::Timestamp;
use rand::Rng;
use skep_runtime::Backoff;

use super::{
    keypair::Keypair,
    request::{self, Purpose, Subject},
};
use crate::{
    server::tls::ServingCertificate,
    session::{self, Credential, Server, Session},
};

/// What renewal works on.
#[derive(Debug, Clone)]
pub(crate) struct Renewal {
    /// The connection whose client is replaced.
    pub(crate) session: Arc<Session>,
    /// Where the API is.
    pub(crate) server: Server,
    /// The node.
    pub(crate) subject: Subject,
    /// What the first certificate was asked for with; needed again after the last one expired.
    pub(crate) bootstrap: Option<Credential>,
}

/// Never looks away longer: the machine's clock may jump.
const LONGEST_SLEEP: Duration = Duration::from_secs(600);

impl Renewal {
    /// Renews the client certificate for ever.
    pub(crate) async fn client(self, mut pair: Keypair, file: PathBuf) {
        loop {
            sleep_until(renewal_time(&pair)).await;
            pair = self.next(Purpose::Client, &file, Some(&pair)).await;
            let credential = Credential::Certificate { cert: pair.cert.clone(), key: pair.key.clone() };
            match session::client(&self.server, &credential).await {
                Ok(client) => self.session.replace(client),
                Err(error) => tracing::error!(%error, "the renewed client certificate cannot be used"),
            }
        }
    }

    /// Gets the serving certificate and renews it for ever.
    pub(crate) async fn serving(
        self,
        serving: Arc<ServingCertificate>,
        stored: Option<Keypair>,
        file: PathBuf,
    ) {
        let mut current = stored.filter(|pair| pair.is_valid(Timestamp::now()));
        loop {
            if let Some(pair) = &current {
                if let Err(error) = serving.install(pair) {
                    tracing::error!(%error, "the serving certificate cannot be used");
                }
                sleep_until(renewal_time(pair)).await;
            }
            current = Some(self.next(Purpose::Serving, &file, None).await);
        }
    }

    /// The client to ask with: the node's own, or the bootstrap one when `present` has expired.
    async fn client_for(&self, present: Option<&Keypair>) -> kube::Client {
        let expired = present.is_some_and(|pair| !pair.is_valid(Timestamp::now()));
        let Some(credential) = self.bootstrap.as_ref().filter(|_| expired) else {
            return self.session.client();
        };
        match session::client(&self.server, credential).await {
            Ok(client) => client,
            Err(error) => {
                tracing::warn!(%error, "the bootstrap credential cannot be used");
                self.session.client()
            }
        }
    }

    async fn next(&self, purpose: Purpose, file: &std::path::Path, present: Option<&Keypair>) -> Keypair {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        loop {
            let client = self.client_for(present).await;
            match request::obtain(client, &self.subject, purpose).await {
                Ok(pair) => {
                    if let Err(error) = pair.store(file) {
                        tracing::error!(%error, "the certificate is used but could not be stored");
                    }
                    return pair;
                }
                Err(error) => {
                    tracing::warn!(%error, ?purpose, "no new certificate yet");
                    tokio::time::sleep(backoff.next_delay()).await;
                }
            }
        }
    }
}

fn renewal_time(pair: &Keypair) -> Timestamp {
    pair.renew_at(rand::rng().random_range(0.7..0.9))
}

async fn sleep_until(at: Timestamp) {
    loop {
        let left = at.duration_since(Timestamp::now());
        let Ok(left) = Duration::try_from(left) else { return };
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
    }
}
