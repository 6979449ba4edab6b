//! `GET /containerLogs`: what a container wrote, from where the user asks, followed if asked.

use std::{io, path::Path as FilePath, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{Path, State},
    http::Uri,
    response::{IntoResponse, Response},
};
use jiff::Timestamp;

use super::{
    query::Query,
    routes::{Api, Refusal},
};
use crate::{
    container,
    cri::Cri,
    logs::{line::Filter, reader::Reader},
    pod::view::ContainerView,
    sandbox,
};

const CHUNK: usize = 32 * 1024;
const IDLE: Duration = Duration::from_millis(100);
const CHECKS: u32 = 10;

/// What the user asks for.
#[derive(Debug, Clone, Default)]
struct Wish {
    follow: bool,
    previous: bool,
    tail: Option<usize>,
    limit: Option<usize>,
    filter: Filter,
}

fn wish(query: &Query, now: Timestamp) -> Result<Wish, Refusal> {
    let natural = |key: &str| -> Result<Option<usize>, Refusal> {
        let Some(text) = query.first(key) else { return Ok(None) };
        text.parse().map(Some).map_err(|error| Refusal::Bad(format!("{key}={text}: {error}")))
    };
    let since_seconds = natural("sinceSeconds")?.map(|s| now - Duration::from_secs(s as u64));
    let since_time = query.first("sinceTime").map(str::parse).transpose();
    let since_time = since_time.map_err(|error| Refusal::Bad(format!("sinceTime: {error}")))?;
    let only = match query.first("stream") {
        Some("Stdout" | "stdout") => Some(false),
        Some("Stderr" | "stderr") => Some(true),
        _ => None,
    };
    Ok(Wish {
        follow: query.flag(&["follow"]),
        previous: query.flag(&["previous"]),
        tail: natural("tailLines")?,
        limit: natural("limitBytes")?,
        filter: Filter { since: since_seconds.or(since_time), timestamps: query.flag(&["timestamps"]), only },
    })
}

pub(crate) async fn serve(
    State(api): State<Api>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    uri: Uri,
) -> Response {
    let query = Query::parse(uri.query());
    match open(&api, &namespace, &pod, &container, &query).await {
        Ok(body) => ([("content-type", "text/plain")], body).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn open(
    api: &Api,
    namespace: &str,
    pod: &str,
    container: &str,
    query: &Query,
) -> Result<Body, Refusal> {
    let wish = wish(query, Timestamp::now())?;
    let (model, view) = api.look(namespace, pod).await?;
    let names = || (pod.to_owned(), container.to_owned());
    if model.unit(container).is_none() {
        let (pod, container) = names();
        return Err(Refusal::NoContainer { pod, container });
    }
    let latest = view.latest(container).filter(|c| c.started_at.is_some() || c.finished_at.is_some());
    let chosen: Option<&ContainerView> = if wish.previous {
        let before = if latest.is_some_and(|c| c.is_alive()) { view.previous(container) } else { latest };
        Some(before.ok_or_else(|| {
            let (pod, container) = names();
            Refusal::NoPrevious { pod, container }
        })?)
    } else {
        latest.or_else(|| view.previous(container))
    };
    let Some(chosen) = chosen else {
        let (pod, container) = names();
        return Err(Refusal::Waiting { pod, container, reason: "ContainerCreating".to_owned() });
    };
    let directory = sandbox::log_directory(&api.shared.config.log_dir, &model);
    let path = directory.join(container::log_path(container, chosen.attempt));
    let reader =
        reader(&path, wish.tail).map_err(|error| Refusal::Bad(format!("{}: {error}", path.display())))?;
    let follower = Follower {
        cri: api.shared.cri.clone(),
        id: chosen.id.clone(),
        reader,
        filter: wish.filter,
        left: wish.limit,
        follow: wish.follow,
        ended: !chosen.is_alive(),
    };
    Ok(Body::from_stream(futures::stream::try_unfold(follower, Follower::next)))
}

fn reader(path: &FilePath, tail: Option<usize>) -> io::Result<Reader> {
    Reader::open(path, tail)
}

struct Follower {
    cri: Cri,
    id: String,
    reader: Reader,
    filter: Filter,
    left: Option<usize>,
    follow: bool,
    ended: bool,
}

impl Follower {
    /// The next chunk; none at the end.
    async fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        loop {
            let chunk = self.read()?;
            if !chunk.is_empty() {
                return Ok(Some((chunk, self)));
            }
            if self.left == Some(0) || !self.follow {
                return Ok(None);
            }
            if self.reader.follow_rotation()? {
                continue;
            }
            // The last look comes after the container ended, so nothing it wrote is missed.
            if self.ended {
                return Ok(None);
            }
            self.wait().await?;
        }
    }

    fn read(&mut self) -> io::Result<Bytes> {
        let mut chunk = Vec::new();
        while chunk.len() < CHUNK && self.left != Some(0) {
            let Some(raw) = self.reader.next_line()? else { break };
            let Some(mut text) = self.filter.render(&raw) else { continue };
            if let Some(left) = &mut self.left {
                text.truncate(*left);
                *left -= text.len();
            }
            chunk.extend(text);
        }
        Ok(chunk.into())
    }

    /// Waits until there is more to read or the container has ended.
    async fn wait(&mut self) -> io::Result<()> {
        for _ in 0..CHECKS {
            tokio::time::sleep(IDLE).await;
            if self.reader.has_more()? {
                return Ok(());
            }
        }
        match self.cri.container_status(&self.id).await {
            Ok(Some(status)) => {
                self.ended = status.state() != skep_wire::cri::v1::ContainerState::ContainerRunning;
            }
            Ok(None) => self.ended = true,
            Err(error) => self.ended = error.is_not_found(),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_users_wish() {
        let query =
            Query::parse(Some("follow=true&tailLines=3&sinceSeconds=10&timestamps=true&stream=Stderr"));
        let wish = wish(&query, Timestamp::from_second(100).unwrap()).unwrap();
        assert!(wish.follow && wish.filter.timestamps);
        assert_eq!(wish.tail, Some(3));
        assert_eq!(wish.filter.since, Some(Timestamp::from_second(90).unwrap()));
        assert_eq!(wish.filter.only, Some(true));
        assert!(super::wish(&Query::parse(Some("tailLines=x")), Timestamp::UNIX_EPOCH).is_err());
    }
}
