//! By what API servers reach the gate: its ValidatingWebhookConfiguration, and the Service that it names.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingWebhook, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::Service;
use kube::api::DeleteParams;
use kube::{Api, Client};

use super::client::said;

/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Why the registration cannot be read or taken away.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistrationError {
    /// It is not there.
    #[error("there is no {what}; install the gate, or say the right name")]
    Absent {
        /// Kind and name.
        what: String,
    },
    /// The API server does not allow it.
    #[error(
        "may not {verb} {what}; grant this account {{apiGroups: [{group:?}], resources: [{resource}], resourceNames: [{name}], verbs: [{verb}]}}"
    )]
    Forbidden {
        /// What is not allowed.
        verb: &'static str,
        /// Kind and name.
        what: String,
        /// The API group; empty for the core group.
        group: &'static str,
        /// As RBAC spells the kind.
        resource: &'static str,
        /// The name alone.
        name: String,
    },
    /// The API server does not answer, or not with that.
    #[error("{what}: {cause}")]
    Unreadable {
        /// Kind and name.
        what: String,
        /// What was answered.
        cause: String,
    },
    /// Nobody can connect to the Service by an address of its own.
    #[error(
        "{what} has no ClusterIP ({found}); API servers reach a webhook by one, give it `type: ClusterIP`"
    )]
    NoAddress {
        /// Kind and name.
        what: String,
        /// What it has instead.
        found: String,
    },
    /// The Service does not have the port that the webhook names.
    #[error(
        "{what} has no port {port}; it has {found}: name one of these in clientConfig.service.port"
    )]
    NoPort {
        /// Kind and name.
        what: String,
        /// The port of the webhook.
        port: i32,
        /// The ports of the Service.
        found: String,
    },
    /// It was deleted and stays.
    #[error(
        "{what} is deleted and stays in force because of its finalizers {finalizers:?}; remove these"
    )]
    Held {
        /// Kind and name.
        what: String,
        /// Who holds it.
        finalizers: Vec<String>,
    },
}

/// What a request is about.
struct Asked<'a> {
    kind: &'static str,
    group: &'static str,
    resource: &'static str,
    namespace: &'a str,
    name: &'a str,
}

impl<'a> Asked<'a> {
    fn configuration(name: &'a str) -> Self {
        Self {
            kind: "ValidatingWebhookConfiguration",
            group: "admissionregistration.k8s.io",
            resource: "validatingwebhookconfigurations",
            namespace: "",
            name,
        }
    }

    fn what(&self) -> String {
        match self.namespace {
            "" => format!("{} {}", self.kind, self.name),
            namespace => format!("{} {namespace}/{}", self.kind, self.name),
        }
    }

    async fn answer<T>(
        &self,
        verb: &'static str,
        asking: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, RegistrationError> {
        let Self { group, resource, .. } = *self;
        let what = self.what();
        let answered = tokio::time::timeout(LIMIT, asking).await.map_err(|_| {
            let cause = format!("the API server did not answer within {} s", LIMIT.as_secs());
            RegistrationError::Unreadable { what: self.what(), cause }
        })?;
        answered.map_err(|error| match &error {
            kube::Error::Api(status) if status.code == 404 => RegistrationError::Absent { what },
            kube::Error::Api(status) if status.code == 403 => {
                let name = self.name.to_owned();
                RegistrationError::Forbidden { verb, what, group, resource, name }
            }
            error => RegistrationError::Unreadable { what, cause: said(error) },
        })
    }
}

/// The webhooks of a ValidatingWebhookConfiguration.
///
/// # Errors
/// Where it is not there or may not be read.
pub async fn webhooks(
    client: &Client,
    name: &str,
) -> Result<Vec<ValidatingWebhook>, RegistrationError> {
    let api = Api::<ValidatingWebhookConfiguration>::all(client.clone());
    let found = Asked::configuration(name).answer("get", api.get(name)).await?;
    Ok(found.webhooks.unwrap_or_default())
}

/// The address at which an API server reaches a Service, without DNS.
///
/// # Errors
/// Where there is none, or the Service does not have this port.
///
/// Source: `k8s.io/apiserver/pkg/util/proxy/proxy.go` `ResolveCluster`.
pub async fn cluster_ip(
    client: &Client,
    namespace: &str,
    name: &str,
    port: i32,
) -> Result<IpAddr, RegistrationError> {
    let api = Api::<Service>::namespaced(client.clone(), namespace);
    let asked = Asked { kind: "Service", group: "", resource: "services", namespace, name };
    let spec = asked.answer("get", api.get(name)).await?.spec.unwrap_or_default();
    let ports = spec.ports.unwrap_or_default().iter().map(|own| own.port).collect::<Vec<_>>();
    if !ports.contains(&port) {
        let found = ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        return Err(RegistrationError::NoPort { what: asked.what(), port, found });
    }
    let written = spec.cluster_ip.unwrap_or_default();
    written.parse().map_err(|_| {
        let found = format!("{} {written:?}", spec.type_.unwrap_or_default());
        RegistrationError::NoAddress { what: asked.what(), found }
    })
}

/// Deletes a ValidatingWebhookConfiguration; whether it was there.
///
/// # Errors
/// Where that is not allowed, or it stays because of its finalizers.
pub async fn unregister(client: &Client, name: &str) -> Result<bool, RegistrationError> {
    let api = Api::<ValidatingWebhookConfiguration>::all(client.clone());
    let asked = Asked::configuration(name);
    let parameters = DeleteParams::default();
    match asked.answer("delete", api.delete(name, &parameters)).await {
        Ok(answer) => match answer.left().and_then(|own| own.metadata.finalizers) {
            Some(finalizers) if !finalizers.is_empty() => {
                Err(RegistrationError::Held { what: asked.what(), finalizers })
            }
            _ => Ok(true),
        },
        Err(RegistrationError::Absent { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
