//! Config maps, secrets, Services and service-account tokens, read from the API when a pod needs them.
//!
//! Answers are kept for a few seconds, so that pods that start together ask once; nothing is watched, so a node's
//! memory does not grow with the cluster.

use std::{
    collections::HashMap,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{ConfigMap, Secret, Service, ServiceAccountTokenProjection},
};
use kube::api::{Api, ListParams, PostParams};
use tokio::sync::Mutex;

use crate::{pod::model::PodModel, session::Session, volume::VolumeError};

const OBJECT_TTL: Duration = Duration::from_secs(5);
const SERVICE_TTL: Duration = Duration::from_secs(2);

type Cached<T> = Mutex<HashMap<(String, String), (Instant, T)>>;

/// The reader.
#[derive(Debug)]
pub(crate) struct Objects {
    session: Arc<Session>,
    config_maps: Cached<Option<Arc<ConfigMap>>>,
    secrets: Cached<Option<Arc<Secret>>>,
    services: Cached<Arc<Vec<Service>>>,
    tokens: Mutex<HashMap<(String, String), Token>>,
}

#[derive(Debug, Clone)]
struct Token {
    text: String,
    renew_at: Timestamp,
}

impl Objects {
    /// A reader that speaks as the node.
    pub(crate) fn new(session: Arc<Session>) -> Self {
        Self {
            session,
            config_maps: Mutex::default(),
            secrets: Mutex::default(),
            services: Mutex::default(),
            tokens: Mutex::default(),
        }
    }

    /// A config map, if it exists.
    pub(crate) async fn config_map(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<ConfigMap>>, VolumeError> {
        let api: Api<ConfigMap> = Api::namespaced(self.session.client(), namespace);
        cached(&self.config_maps, OBJECT_TTL, namespace, name, async {
            Ok(api.get_opt(name).await?.map(Arc::new))
        })
        .await
        .map_err(failed(format!("get configmap {namespace}/{name}")))
    }

    /// A secret, if it exists.
    pub(crate) async fn secret(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Secret>>, VolumeError> {
        let api: Api<Secret> = Api::namespaced(self.session.client(), namespace);
        cached(&self.secrets, OBJECT_TTL, namespace, name, async {
            Ok(api.get_opt(name).await?.map(Arc::new))
        })
        .await
        .map_err(failed(format!("get secret {namespace}/{name}")))
    }

    /// The Services of a namespace.
    pub(crate) async fn services(&self, namespace: &str) -> Result<Arc<Vec<Service>>, VolumeError> {
        let api: Api<Service> = Api::namespaced(self.session.client(), namespace);
        cached(&self.services, SERVICE_TTL, namespace, "", async {
            Ok(Arc::new(api.list(&ListParams::default()).await?.items))
        })
        .await
        .map_err(failed(format!("list services of {namespace}")))
    }

    /// A token of the pod's service account, bound to the pod; renewed after four fifths of its life.
    pub(crate) async fn token(
        &self,
        model: &PodModel,
        source: &ServiceAccountTokenProjection,
    ) -> Result<String, VolumeError> {
        let audience = source.audience.clone().filter(|a| !a.is_empty());
        let seconds = source.expiration_seconds.unwrap_or(3600);
        let key = (model.id.uid.clone(), format!("{}/{seconds}", audience.as_deref().unwrap_or_default()));
        let now = Timestamp::now();
        let mut tokens = self.tokens.lock().await;
        tokens.retain(|_, token| token.renew_at + Duration::from_secs(86_400) > now);
        let known = tokens.get(&key).cloned();
        drop(tokens);
        if let Some(token) = known.as_ref().filter(|t| t.renew_at > now) {
            return Ok(token.text.clone());
        }
        let token = self.request_token(model, audience, seconds, now).await?;
        let text = token.text.clone();
        self.tokens.lock().await.insert(key, token);
        Ok(text)
    }

    async fn request_token(
        &self,
        model: &PodModel,
        audience: Option<String>,
        seconds: i64,
        now: Timestamp,
    ) -> Result<Token, VolumeError> {
        let account =
            model.spec().and_then(|s| s.service_account_name.clone()).unwrap_or_else(|| "default".to_owned());
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: audience.map(|a| vec![a]),
                expiration_seconds: Some(seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: Some(model.id.name.clone()),
                    uid: Some(model.id.uid.clone()),
                }),
            }),
            ..TokenRequest::default()
        };
        let api: Api<k8s_openapi::api::core::v1::ServiceAccount> =
            Api::namespaced(self.session.client(), &model.id.namespace);
        let what = format!("request a token for service account {}/{account}", model.id.namespace);
        let answer = api
            .create_token_request(&account, &PostParams::default(), &request)
            .await
            .map_err(failed(what))?;
        let status = answer.status.unwrap_or_default();
        let end = status.expiration_timestamp.map_or(now, |t| t.0);
        let life = u64::try_from(end.duration_since(now).as_secs()).unwrap_or(0).max(60);
        Ok(Token {
            text: status.token.unwrap_or_default(),
            renew_at: now + Duration::from_secs(life * 4 / 5),
        })
    }
}

fn failed(what: String) -> impl FnOnce(kube::Error) -> VolumeError {
    move |source| VolumeError::Api { what, source: Box::new(source) }
}

async fn cached<T: Clone>(
    cache: &Cached<T>,
    ttl: Duration,
    namespace: &str,
    name: &str,
    fetch: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, kube::Error> {
    let key = (namespace.to_owned(), name.to_owned());
    let known = {
        let mut entries = cache.lock().await;
        entries.retain(|_, (at, _)| at.elapsed() < ttl);
        entries.get(&key).map(|(_, value)| value.clone())
    };
    if let Some(value) = known {
        return Ok(value);
    }
    let value = fetch.await?;
    cache.lock().await.insert(key, (Instant::now(), value.clone()));
    Ok(value)
}
