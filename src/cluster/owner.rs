//! What the gate makes in its own namespace goes when its Deployment goes.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Api, Client};
use tracing::warn;

use super::client::said;

/// How long the Deployment may take to be read; it is only about tidiness.
const LIMIT: Duration = Duration::from_secs(5);

/// The Deployment of the gate, as the owner of what the gate makes: the garbage collector removes that with it. `None` where it
/// cannot be read; then somebody has to remove it by hand, and the log says so.
///
/// Source: <https://kubernetes.io/docs/concepts/architecture/garbage-collection/>.
pub async fn owner(client: &Client, namespace: &str, deployment: &str) -> Option<OwnerReference> {
    let api = Api::<Deployment>::namespaced(client.clone(), namespace);
    let reason = match tokio::time::timeout(LIMIT, api.get(deployment)).await {
        Ok(Ok(found)) => {
            let uid = found.metadata.uid?;
            return Some(OwnerReference {
                api_version: "apps/v1".to_owned(),
                kind: "Deployment".to_owned(),
                name: deployment.to_owned(),
                uid,
                ..OwnerReference::default()
            });
        }
        Ok(Err(error)) => said(&error),
        Err(_) => format!("no answer within {} s", LIMIT.as_secs()),
    };
    warn!(
        deployment,
        namespace,
        reason,
        "what the gate makes will outlive its Deployment; remove it by hand when you remove the gate"
    );
    None
}
