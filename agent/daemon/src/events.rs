//! Events on Services (and pods with host ports) whose wishes are refused, and the same in the log.
//!
//! Every node refuses the same things. An Event's name is made from what it says, so that the first agent to tell it
//! has told it for all: the others find it there.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference, Pod, Service},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{Api, Client, ResourceExt, api::PostParams};
use skep_loadbalancer::{Owner, Report};
use skep_model::NodeName;
use tokio::sync::mpsc;

/// Pause after each Event, so that a flood of bad objects does not become one of requests.
const PACE: Duration = Duration::from_millis(50);

/// Tells what comes in, for ever.
pub(crate) async fn run(mut reports: mpsc::Receiver<Vec<Report>>, client: Client, node: NodeName) {
    while let Some(batch) = reports.recv().await {
        for note in notes(batch) {
            tracing::warn!(owner = %note.owner, reason = note.reason, "{}", note.message);
            if let Err(error) = tell(&client, &node, &note).await {
                tracing::debug!(owner = %note.owner, %error, "cannot write an Event");
            }
            tokio::time::sleep(PACE).await;
        }
    }
}

/// What is told of one object for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Note {
    owner: Arc<Owner>,
    reason: &'static str,
    message: String,
}

impl Note {
    fn event_name(&self) -> String {
        let mut hasher = DefaultHasher::new();
        (&*self.owner, self.reason, &self.message).hash(&mut hasher);
        format!("{}.{:016x}", self.owner.name().name, hasher.finish())
    }
}

/// One note for each object and reason: the first case, and how many more there are.
fn notes(reports: Vec<Report>) -> Vec<Note> {
    let mut grouped: BTreeMap<(Arc<Owner>, &'static str), Vec<String>> = BTreeMap::new();
    for report in reports {
        let key = (report.owner, report.problem.reason());
        grouped.entry(key).or_default().push(report.problem.to_string());
    }
    let note = |((owner, reason), texts): ((Arc<Owner>, &'static str), Vec<String>)| {
        let more = texts.len().saturating_sub(1);
        let first = texts.into_iter().next().unwrap_or_default();
        let message = if more == 0 { first } else { format!("{first} (and {more} more like this)") };
        Note { owner, reason, message }
    };
    grouped.into_iter().map(note).collect()
}

async fn tell(client: &Client, node: &NodeName, note: &Note) -> kube::Result<()> {
    let name = note.owner.name();
    let (kind, uid) = match &*note.owner {
        Owner::Service(_) => {
            let api: Api<Service> = Api::namespaced(client.clone(), &name.namespace);
            ("Service", api.get_metadata_opt(&name.name).await?.map(|object| object.uid()))
        }
        Owner::Pod(_) => {
            let api: Api<Pod> = Api::namespaced(client.clone(), &name.namespace);
            ("Pod", api.get_metadata_opt(&name.name).await?.map(|object| object.uid()))
        }
    };
    // Gone meanwhile: nobody would read it.
    let Some(uid) = uid else { return Ok(()) };
    let now = Time(Timestamp::now());
    let event = Event {
        metadata: ObjectMeta {
            name: Some(note.event_name()),
            namespace: Some(name.namespace.clone()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".into()),
            kind: Some(kind.into()),
            name: Some(name.name.clone()),
            namespace: Some(name.namespace.clone()),
            uid,
            ..ObjectReference::default()
        },
        reason: Some(note.reason.into()),
        message: Some(note.message.clone()),
        type_: Some("Warning".into()),
        source: Some(EventSource { component: Some("skep-agent".into()), host: Some(node.to_string()) }),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now),
        count: Some(1),
        ..Event::default()
    };
    let api: Api<Event> = Api::namespaced(client.clone(), &name.namespace);
    match api.create(&PostParams::default(), &event).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use skep_loadbalancer::Problem;
    use skep_model::NamespacedName;

    use super::*;

    #[test]
    fn many_cases_of_one_reason_are_one_event_with_one_name_on_every_node() {
        let owner = Arc::new(Owner::Service(NamespacedName::new("a", "web")));
        let report =
            |n: u8| Report { owner: Arc::clone(&owner), problem: Problem::ExternalIp([192, 0, 2, n].into()) };
        let told = notes(vec![report(1), report(2), report(3)]);
        assert_eq!(told.len(), 1);
        assert!(
            told[0].message.starts_with("external IP 192.0.2.1 ")
                && told[0].message.ends_with("(and 2 more like this)")
        );
        assert_eq!(told[0].event_name(), notes(vec![report(1), report(2), report(3)])[0].event_name());
        assert_ne!(told[0].event_name(), notes(vec![report(1)])[0].event_name());
    }
}
