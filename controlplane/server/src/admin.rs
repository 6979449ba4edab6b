//! The admin listener, on a thread and a runtime of its own so that a scrape never delays a request.

use std::io;
use std::net::SocketAddr;
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use prometheus::Registry;
use prometheus::process_collector::ProcessCollector;
use skep_runtime::admin::{self, Admin};
use skep_runtime::telemetry::LogLevel;
use skep_runtime::{Drain, Readiness};
use tokio::sync::oneshot;

/// The admin thread.
pub(crate) struct AdminThread(JoinHandle<()>);

impl AdminThread {
    /// Waits until the thread has ended, which it does with the drain.
    pub(crate) fn join(self) {
        if self.0.join().is_err() {
            tracing::warn!("the admin thread panicked");
        }
    }
}

/// Binds at once, so that a taken address is an error of the start, and serves until the drain.
pub(crate) async fn start(
    address: SocketAddr,
    readiness: Readiness,
    metrics: Registry,
    log_level: LogLevel,
    drain: Drain,
) -> Result<AdminThread> {
    metrics.register(Box::new(ProcessCollector::for_self())).context("cannot register process metrics")?;
    let admin = Admin { readiness, metrics, log_level };
    let (bound, binding) = oneshot::channel();
    let serve = move || serve(address, admin, drain, bound);
    let thread = std::thread::Builder::new().name("skep-admin".to_owned()).spawn(serve);
    let thread = thread.context("cannot start the admin thread")?;
    binding
        .await
        .context("the admin thread ended at once")?
        .with_context(|| format!("cannot listen on the admin address {address}: choose another --admin"))?;
    Ok(AdminThread(thread))
}

fn serve(address: SocketAddr, admin: Admin, drain: Drain, bound: oneshot::Sender<io::Result<()>>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let opened = runtime.and_then(|runtime| {
        let listener = runtime.block_on(admin::bind(address))?;
        Ok((runtime, listener))
    });
    let (runtime, listener) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            // Whoever asked reports it.
            let _ = bound.send(Err(error));
            return;
        }
    };
    let _ = bound.send(Ok(()));
    if let Err(error) = runtime.block_on(admin::serve(listener, admin.router(), drain)) {
        tracing::warn!(%error, "the admin listener has stopped");
    }
}
