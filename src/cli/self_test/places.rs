use std::time::Duration;

use anyhow::{Context as _, ensure};
use hyper::Uri;
use k8s_openapi::api::admissionregistration::v1::{
    RuleWithOperations, ServiceReference, ValidatingWebhook, WebhookClientConfig,
};
use kube::Client;

use crate::cli::caller::Place;
use crate::cluster;

/// What to do where nobody answers.
pub(super) const UNREACHABLE: &str =
    "is a Pod of the gate ready, and does no NetworkPolicy or firewall stand in between?";

/// Webhooks of the configuration that lead to the same place.
pub(super) struct Webhook<'a> {
    config: &'a WebhookClientConfig,
    names: Vec<&'a str>,
    /// In seconds; the shortest one.
    timeout: i32,
}

/// Each place once, in the order of the configuration.
pub(super) fn distinct(entries: &[ValidatingWebhook]) -> Vec<Webhook<'_>> {
    let mut found: Vec<Webhook<'_>> = Vec::new();
    for entry in entries {
        // What the API server puts there unless told otherwise.
        let timeout = entry.timeout_seconds.unwrap_or(10);
        match found.iter_mut().find(|own| own.config == &entry.client_config) {
            Some(own) => {
                own.names.push(&entry.name);
                own.timeout = own.timeout.min(timeout);
            }
            None => {
                let config = &entry.client_config;
                found.push(Webhook { config, names: vec![&entry.name], timeout });
            }
        }
    }
    found
}

impl Webhook<'_> {
    pub(super) fn names(&self) -> String {
        self.names.join(", ")
    }

    pub(super) fn ca_pem(&self) -> Option<&[u8]> {
        let own = self.config.ca_bundle.as_ref().map(|bundle| bundle.0.as_slice());
        own.filter(|bundle| !bundle.trim_ascii().is_empty())
    }

    pub(super) fn timeout(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.timeout).unwrap_or_default())
    }

    /// Where an API server finds it.
    ///
    /// Source: `k8s.io/apiserver/pkg/util/webhook/client.go` `HookClient`.
    pub(super) async fn place(&self, client: &Client) -> anyhow::Result<Place> {
        let timeout = self.timeout;
        if let Some(ServiceReference { name, namespace, path, port }) = &self.config.service {
            let port = port.unwrap_or(443);
            let ip = cluster::cluster_ip(client, namespace, name, port).await?;
            let name = format!("{name}.{namespace}.svc");
            let number = u16::try_from(port).context("clientConfig.service.port")?;
            let path = path.as_deref().unwrap_or("/").trim_start_matches('/');
            return Ok(Place {
                address: (ip, number).into(),
                host: format!("{name}:{port}"),
                name,
                path: format!("/{path}?timeout={timeout}s"),
            });
        }
        let url = self.config.url.as_deref().context("clientConfig has neither service nor url")?;
        let uri = url.parse::<Uri>().with_context(|| format!("clientConfig.url {url}"))?;
        ensure!(uri.scheme_str() == Some("https"), "clientConfig.url {url} is not https");
        let host = uri.host().with_context(|| format!("clientConfig.url {url} has no host"))?;
        let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(443);
        let found = tokio::net::lookup_host((name.as_str(), port)).await;
        let address = found.ok().and_then(|mut all| all.next());
        Ok(Place {
            address: address.with_context(|| format!("{name} cannot be resolved"))?,
            host: format!("{host}:{port}"),
            name,
            path: format!("{}?timeout={timeout}s", uri.path()),
        })
    }
}

/// What to do about a connection that did not come about.
pub(super) fn remedy(error: &anyhow::Error) -> &'static str {
    let text = format!("{error:#}");
    if !text.contains("certificate") {
        return UNREACHABLE;
    }
    if text.contains("expired") || text.contains("not valid yet") {
        return "is the certificate renewed, and are the clocks right? the log of the gate says when the one that it serves ends";
    }
    if text.contains("name") {
        return "issue the gate's certificate for SERVICE.NAMESPACE.svc, the name that API servers ask for";
    }
    "caBundle must hold the CA of the certificate that the gate serves: look at the gate's log, and at who else writes caBundle"
}

/// The writes that no webhook is for.
pub(super) fn unasked(entries: &[ValidatingWebhook]) -> Vec<String> {
    let has = |list: &Option<Vec<String>>, word: &str| {
        list.iter().flatten().any(|own| own == word || own == "*")
    };
    let is_for = |rule: &RuleWithOperations, resource: &str, operation: &str| {
        has(&rule.api_groups, "networking.istio.io")
            && (has(&rule.resources, resource) || has(&rule.resources, "*/*"))
            && has(&rule.operations, operation)
    };
    let mut found = Vec::new();
    for resource in ["virtualservices", "destinationrules"] {
        for operation in ["CREATE", "UPDATE"] {
            let mut rules = entries.iter().flat_map(|own| own.rules.iter().flatten());
            if !rules.any(|rule| is_for(rule, resource, operation)) {
                found.push(format!("{operation} of {resource}"));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(
        config: serde_json::Value,
        operations: &[&str],
        resources: &[&str],
    ) -> ValidatingWebhook {
        serde_json::from_value(json!({
            "name": "a.example.com", "clientConfig": config, "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "rules": [{"apiGroups": ["networking.istio.io"], "apiVersions": ["v1"], "operations": operations, "resources": resources}],
        }))
        .expect("a webhook")
    }

    #[test]
    fn webhooks_that_lead_to_the_same_place_are_asked_once() {
        let service = |name: &str| json!({"service": {"name": name, "namespace": "home"}});
        let all = ["a", "a", "b"].map(|name| entry(service(name), &["CREATE"], &["*"]));
        let found = distinct(&all);
        assert_eq!(found.iter().map(|own| own.names.len()).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn what_nobody_is_asked_about_is_named() {
        let config = || json!({"url": "https://127.0.0.1/"});
        let both = ["virtualservices", "destinationrules"];
        for (entries, want) in [
            (vec![entry(config(), &["CREATE", "UPDATE"], &both)], 0),
            (vec![entry(config(), &["*"], &["*"])], 0),
            (vec![entry(config(), &["CREATE"], &both), entry(config(), &["UPDATE"], &both)], 0),
            (vec![entry(config(), &["UPDATE"], &both)], 2),
            (vec![entry(config(), &["CREATE", "UPDATE"], &["virtualservices"])], 2),
            (Vec::new(), 4),
        ] {
            assert_eq!(unasked(&entries).len(), want, "{entries:?}");
        }
    }

    #[test]
    fn an_empty_bundle_is_no_bundle() {
        for (bundle, want) in [
            (json!(null), false),
            (json!(""), false),
            (json!("Cg=="), false),
            (json!("QQ=="), true),
        ] {
            let config = json!({"url": "https://127.0.0.1/", "caBundle": bundle});
            let entries = [entry(config, &["*"], &["*"])];
            let found = distinct(&entries);
            assert_eq!(found[0].ca_pem().is_some(), want, "{bundle}");
        }
    }
}
