//! The standard gRPC health check (`grpc.health.v1.Health/Check`), messages written out: two fields in all.

use std::time::Duration;

use tonic::transport::Endpoint;

use super::http::authority;

#[derive(Clone, PartialEq, prost::Message)]
struct Request {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Response {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;

/// Asks whether `service` is serving.
pub(crate) async fn check(host: &str, port: u16, service: &str, timeout: Duration) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("gRPC health check of {host}:{port}: {error}");
    let exchange = async {
        let endpoint =
            Endpoint::from_shared(format!("http://{}", authority(host, port))).map_err(|e| failed(&e))?;
        let channel = endpoint.connect().await.map_err(|e| failed(&e))?;
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.map_err(|e| failed(&e))?;
        let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
        let codec = tonic_prost::ProstCodec::<Request, Response>::default();
        let request = tonic::Request::new(Request { service: service.to_owned() });
        let response = client.unary(request, path, codec).await.map_err(|e| failed(&e.message()))?;
        match response.into_inner().status {
            SERVING => Ok(()),
            other => Err(failed(&format!("service unhealthy (responded with status {other})"))),
        }
    };
    tokio::time::timeout(timeout, exchange)
        .await
        .unwrap_or_else(|_elapsed| Err(failed(&format!("no answer in {} s", timeout.as_secs()))))
}
