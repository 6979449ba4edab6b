//! Config maps, secrets, Services and service-account tokens, read from the API when a pod needs them.
//!
//! Answers are kept for a few seconds, so that pods that start together ask once, and longer for when the API is
//! away; nothing is watched, so a node's memory does not grow with the cluster.

mod cache;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use cache::Cache;
use jiff::Timestamp;
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{ConfigMap, Secret, Service, ServiceAccountTokenProjection},
};
use kube::api::{Api, ListParams, PostParams};
use tokio::sync::Mutex;

use crate::{
    env,
    pod::model::PodModel,
    session::{CallError, Session, bounded},
    volume::VolumeError,
};

const OBJECT_TTL: Duration = Duration::from_secs(5);
const SERVICE_TTL: Duration = Duration::from_secs(2);

/// Variables that name Services.
type Variables = Arc<BTreeMap<String, String>>;

/// The reader.
#[derive(Debug)]
pub(crate) struct Objects {
    session: Arc<Session>,
    config_maps: Cache<Option<Arc<ConfigMap>>>,
    secrets: Cache<Option<Arc<Secret>>>,
    services: Cache<Variables>,
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
            config_maps: Cache::new(OBJECT_TTL),
            secrets: Cache::new(OBJECT_TTL),
            services: Cache::new(SERVICE_TTL),
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
        let fetch = async { Ok(bounded(api.get_opt(name)).await?.map(Arc::new)) };
        let found = self.config_maps.get(namespace, name, fetch).await;
        found.map_err(failed(format!("get configmap {namespace}/{name}")))
    }

    /// A secret, if it exists.
    pub(crate) async fn secret(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Secret>>, VolumeError> {
        let api: Api<Secret> = Api::namespaced(self.session.client(), namespace);
        let fetch = async { Ok(bounded(api.get_opt(name)).await?.map(Arc::new)) };
        let found = self.secrets.get(namespace, name, fetch).await;
        found.map_err(failed(format!("get secret {namespace}/{name}")))
    }

    /// Variables that name all Services of a namespace.
    pub(crate) async fn service_variables(&self, namespace: &str) -> Result<Variables, VolumeError> {
        let api: Api<Service> = Api::namespaced(self.session.client(), namespace);
        let fetch = async {
            let list = bounded(api.list(&ListParams::default())).await?;
            Ok(Arc::new(env::services::variables(list.items.iter())))
        };
        let found = self.services.get(namespace, "", fetch).await;
        found.map_err(failed(format!("list services of {namespace}")))
    }

    /// Variables that name the API server.
    pub(crate) async fn api_variables(&self) -> Result<Variables, VolumeError> {
        const NAMESPACE: &str = "default";
        const NAME: &str = "kubernetes";
        let api: Api<Service> = Api::namespaced(self.session.client(), NAMESPACE);
        let fetch = async {
            let found = bounded(api.get_opt(NAME)).await?;
            Ok(Arc::new(env::services::variables(found.iter())))
        };
        let found = self.services.get(NAMESPACE, NAME, fetch).await;
        found.map_err(failed(format!("get service {NAMESPACE}/{NAME}")))
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
        let token = match (self.request_token(model, audience, seconds, now).await, known) {
            (Ok(token), _) => token,
            // Not yet expired: it serves while the API is away.
            (Err(error), Some(token)) => {
                tracing::warn!(pod = %model.id, %error, "the service account token was not renewed");
                return Ok(token.text);
            }
            (Err(error), None) => return Err(error),
        };
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
        let params = PostParams::default();
        let answer =
            bounded(api.create_token_request(&account, &params, &request)).await.map_err(failed(what))?;
        let status = answer.status.unwrap_or_default();
        let end = status.expiration_timestamp.map_or(now, |t| t.0);
        let life = u64::try_from(end.duration_since(now).as_secs()).unwrap_or(0).max(60);
        Ok(Token {
            text: status.token.unwrap_or_default(),
            renew_at: now + Duration::from_secs(life * 4 / 5),
        })
    }
}

fn failed(what: String) -> impl FnOnce(CallError) -> VolumeError {
    move |source| VolumeError::Api { what, source: Box::new(source) }
}
