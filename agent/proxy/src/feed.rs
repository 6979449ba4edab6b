//! Keeps the zone current from the agent's feed; serves the last view while the agent is away.

use std::{path::PathBuf, sync::Arc, time::Duration};

use parking_lot::RwLock;
use skep_model::{DnsChange, DnsView};
use skep_runtime::{Backoff, ReadyToken};
use skep_wire::{
    dns::DnsWireError,
    proxy::{DnsPosition, DnsRequest, DnsUpdate, dns_update::Change, feed_client::FeedClient},
    socket::{self, SocketError},
};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{dns::zone::Zone, metrics::Metrics, stored::ViewFile};

/// Changes are written to disk at most this often.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// Why a feed ended.
#[derive(Debug, thiserror::Error)]
enum FeedError {
    #[error(transparent)]
    Connect(#[from] SocketError),
    #[error("the agent ended the DNS feed: {0}")]
    Stream(#[from] tonic::Status),
    #[error("the agent sent an update that cannot be applied")]
    Update(#[from] DnsWireError),
    #[error("the agent closed the DNS feed")]
    Closed,
}

/// The receiving end of the feed.
#[derive(Debug)]
pub struct Feed {
    socket: PathBuf,
    zone: Arc<RwLock<Zone>>,
    file: ViewFile,
    metrics: Metrics,
    ready: ReadyToken,
    position: Option<DnsPosition>,
    unsaved_since: Option<Instant>,
}

impl Feed {
    /// A feed from the agent's socket into `zone`; `ready` is met once there is a view.
    pub fn new(
        socket: PathBuf,
        zone: Arc<RwLock<Zone>>,
        file: ViewFile,
        metrics: Metrics,
        ready: ReadyToken,
    ) -> Self {
        Self { socket, zone, file, metrics, ready, position: None, unsaved_since: None }
    }

    /// Starts from the view on disk, when there is one.
    pub fn restore(&mut self) {
        match self.file.load() {
            Ok(Some((position, view))) => {
                tracing::info!(services = view.services.len(), "answering from the stored view");
                self.position = position;
                self.replace(view);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "no stored view"),
        }
    }

    /// Follows the agent for ever, across its restarts.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let mut was_connected = true;
        loop {
            let error = match self.follow(&mut backoff, &mut was_connected).await {
                Ok(()) => FeedError::Closed,
                Err(error) => error,
            };
            self.metrics.feed_connected.set(0);
            self.save();
            if std::mem::replace(&mut was_connected, false) {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "lost the agent; serving the last view"
                );
            }
            sleep(backoff.next_delay()).await;
        }
    }

    async fn follow(&mut self, backoff: &mut Backoff, was_connected: &mut bool) -> Result<(), FeedError> {
        let mut client =
            FeedClient::new(socket::connect(&self.socket).await?).max_decoding_message_size(usize::MAX);
        let request =
            DnsRequest { resume: self.position.clone(), proxy_version: env!("CARGO_PKG_VERSION").into() };
        let mut updates = client.dns(request).await?.into_inner();
        self.metrics.feed_connected.set(1);
        tracing::info!("connected to the agent");
        *was_connected = true;
        loop {
            let save_at = self.unsaved_since.map(|since| since + SAVE_EVERY);
            let next = match save_at {
                Some(at) => match timeout_at(at, updates.message()).await {
                    Ok(next) => next?,
                    Err(_) => {
                        self.save();
                        continue;
                    }
                },
                None => updates.message().await?,
            };
            let Some(update) = next else { return Ok(()) };
            self.apply(update)?;
            backoff.reset();
        }
    }

    fn apply(&mut self, update: DnsUpdate) -> Result<(), DnsWireError> {
        match update.change.ok_or(DnsWireError::Missing("change"))? {
            Change::Snapshot(snapshot) => {
                let view = DnsView::try_from(snapshot)?;
                self.replace(view);
            }
            Change::Delta(delta) => {
                let change = DnsChange::try_from(delta)?;
                self.zone.write().apply(change);
                self.shown();
            }
        }
        self.position = update.position;
        self.unsaved_since.get_or_insert_with(Instant::now);
        Ok(())
    }

    fn replace(&mut self, view: DnsView) {
        self.zone.write().replace(view);
        self.shown();
        self.ready.ready();
    }

    fn shown(&self) {
        let services = self.zone.read().view().services.len();
        self.metrics.services.set(i64::try_from(services).unwrap_or(i64::MAX));
    }

    fn save(&mut self) {
        if self.unsaved_since.take().is_none() {
            return;
        }
        let view = self.zone.read().view().clone();
        if let Err(error) = self.file.save(self.position.clone(), &view) {
            tracing::warn!(error = &error as &dyn std::error::Error, "the view is not on disk");
        }
    }
}
