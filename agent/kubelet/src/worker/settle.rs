//! What came of a command goes into the pod's memory.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Worker,
    ops::{Done, Outcome},
    volumes,
};
use crate::pod::{ending, memory::TornDown};

impl Worker {
    pub(super) fn settle(&mut self, done: Done) {
        if self.handles.get(&done.key).is_none_or(|(sequence, _)| *sequence != done.sequence) {
            return;
        }
        self.handles.remove(&done.key);
        self.in_flight.remove(&done.key);
        let now = Timestamp::now();
        let memory = &mut self.memory;
        match done.outcome {
            Outcome::Volumes(Ok(refresh)) => {
                memory.volumes_ready = true;
                memory.volumes = Default::default();
                memory.refresh_at = refresh.then(|| now + volumes::REFRESH);
                return;
            }
            Outcome::Volumes(Err(())) => memory.volumes.fail(now, Duration::from_secs(120)),
            Outcome::Refreshed => {
                memory.refresh_at = Some(now + volumes::REFRESH);
                return;
            }
            Outcome::Sandbox(Ok(())) => memory.sandbox = Default::default(),
            Outcome::Sandbox(Err(())) => memory.sandbox.fail(now, Duration::from_secs(60)),
            Outcome::Started(name) => memory.container(&name).failure = None,
            Outcome::NotStarted(name, failure) => {
                memory.start_failed(&name, failure.reason, failure.message, now);
            }
            Outcome::Stopped => {}
            Outcome::TornDown(Ok(removed)) => {
                memory.teardown = Default::default();
                memory.torn = if removed { TornDown::Removed } else { TornDown::Stopped };
            }
            Outcome::TornDown(Err(())) => memory.teardown.fail(now, ending::LONGEST_RETRY),
            Outcome::Finalized(Ok(())) => memory.finalized = true,
            Outcome::Finalized(Err(())) => memory.finalize.fail(now, ending::LONGEST_RETRY),
            Outcome::Reported(Some(status)) => {
                self.reported = Some(*status);
                return;
            }
            Outcome::Reported(None) => {
                self.report_at = Some(now + Duration::from_secs(2));
                return;
            }
        }
        self.looked = false;
    }
}
