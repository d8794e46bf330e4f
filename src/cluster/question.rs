//! Which list requests confirm what a refusal rests on.

use std::collections::{BTreeMap, BTreeSet};

use super::floor::Scope;
use super::read::SERVICE_NAME;
use super::resources::resource;
use crate::policy::Reference;
use crate::world::{Kind, World};

/// How many list requests the confirmation of one review may cost the API server, over all of its rounds. What any one refusal
/// rests on fits: a Service and the ServiceEntries; the slices and Pods of a Service with the DestinationRules of all clients, with
/// the VirtualServices of a namespace, or with its Deployments. The labels of the Namespaces, which count only where istiod does not read all of them and
/// are read once at the most, come on top.
pub const MOST_REQUESTS: usize = 3;

/// One list request and what it covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) kind: Kind,
    /// Empty for all namespaces.
    pub(super) namespace: String,
    pub(super) labels: Option<String>,
    pub(super) fields: Option<String>,
    pub(super) scope: Scope,
}

/// The fewest requests that answer all of `references`: one per kind and namespace.
pub(super) fn plan(references: &[Reference], world: &World) -> Vec<Question> {
    let mut services: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut endpoints: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut written: BTreeMap<Kind, BTreeSet<&str>> = BTreeMap::new();
    let (mut entries, mut labels) = (false, false);
    for reference in references {
        match reference {
            // The names come from whoever writes; one that no object can have needs no request, and never gets into a URL.
            Reference::Service { namespace, .. }
            | Reference::Endpoints { namespace, .. }
            | Reference::DestinationRules { namespace }
            | Reference::VirtualServices { namespace }
            | Reference::Sidecars { namespace }
            | Reference::Gateways { namespace }
            | Reference::Canaries { namespace }
            | Reference::Rollouts { namespace }
            | Reference::Deployments { namespace }
                if !is_label(namespace) => {}
            Reference::Service { name: service, .. } | Reference::Endpoints { service, .. }
                if !is_label(service) => {}
            Reference::Service { namespace, name } => {
                services.entry(namespace).or_default().insert(name.clone());
            }
            Reference::Endpoints { namespace, service } => {
                endpoints.entry(namespace).or_default().insert(service.clone());
            }
            Reference::DestinationRules { namespace } => {
                written.entry(Kind::DestinationRule).or_default().insert(namespace);
            }
            Reference::VirtualServices { namespace } => {
                written.entry(Kind::VirtualService).or_default().insert(namespace);
            }
            Reference::Sidecars { namespace } => {
                written.entry(Kind::Sidecar).or_default().insert(namespace);
            }
            Reference::Gateways { namespace } => {
                written.entry(Kind::Gateway).or_default().insert(namespace);
            }
            Reference::Canaries { namespace } => {
                written.entry(Kind::Canary).or_default().insert(namespace);
            }
            Reference::Rollouts { namespace } => {
                written.entry(Kind::Rollout).or_default().insert(namespace);
            }
            Reference::Deployments { namespace } => {
                written.entry(Kind::Deployment).or_default().insert(namespace);
            }
            Reference::ServiceEntries => entries = true,
            Reference::Namespaces => labels = true,
        }
    }
    let all = |kind, namespace: &str, scope| Question {
        kind,
        namespace: namespace.to_owned(),
        labels: None,
        fields: None,
        scope,
    };
    let mut questions = Vec::new();
    for (namespace, names) in services {
        let mut one = names.iter();
        let fields = match (one.next(), one.next()) {
            (Some(name), None) => Some(format!("metadata.name={name}")),
            _ => None,
        };
        let scope = match fields {
            Some(_) => Scope::Named(namespace.to_owned(), names),
            None => Scope::Namespace(namespace.to_owned()),
        };
        questions.push(Question { fields, ..all(Kind::Service, namespace, scope) });
    }
    for (namespace, services) in endpoints {
        let labels = is_one_of(SERVICE_NAME, services.iter().map(String::as_str));
        let selectors = services.iter().filter_map(|service| world.service(namespace, service));
        let selectors = selectors.map(|service| &service.selector).filter(|own| !own.is_empty());
        let pods = pod_selector(&selectors.collect::<Vec<_>>());
        let scope = Scope::SlicesOf(namespace.to_owned(), services);
        let slices = all(Kind::EndpointSlice, namespace, scope);
        questions.push(Question { labels: Some(labels), ..slices });
        if let Some(labels) = pods {
            let pods = all(Kind::Pod, namespace, Scope::Namespace(namespace.to_owned()));
            questions.push(Question { labels: Some(labels).filter(|own| !own.is_empty()), ..pods });
        }
    }
    if entries {
        questions.push(all(Kind::ServiceEntry, "", Scope::All));
    }
    if labels {
        questions.push(all(Kind::Namespace, "", Scope::All));
    }
    // Objects that people write are few: those of all namespaces in one request are less work than a second request.
    for (kind, namespaces) in written {
        let mut namespaces = namespaces.into_iter();
        match (namespaces.next(), namespaces.next()) {
            (Some(one), None) => {
                questions.push(all(kind, one, Scope::Namespace(one.to_owned())));
            }
            (Some(_), Some(_)) => questions.push(all(kind, "", Scope::All)),
            (None, _) => {}
        }
    }
    questions
}

/// Whether a namespace or a Service can have this name (RFC 1123 label).
fn is_label(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.len() <= 63 && text.chars().all(fits)
}

/// A label selector that finds at least the Pods of all these selectors; `None` where there is nothing to find.
fn pod_selector(selectors: &[&BTreeMap<String, String>]) -> Option<String> {
    let (first, rest) = selectors.split_first()?;
    let shared = first.keys().filter(|key| rest.iter().all(|own| own.contains_key(*key)));
    let term = |key: &String| {
        is_one_of(key, selectors.iter().filter_map(|own| own.get(key)).map(String::as_str))
    };
    Some(shared.map(term).collect::<Vec<_>>().join(","))
}

fn is_one_of<'a>(key: &str, values: impl Iterator<Item = &'a str>) -> String {
    let values = values.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>();
    match values.as_slice() {
        [value] => format!("{key}={value}"),
        values => format!("{key} in ({})", values.join(",")),
    }
}

impl std::fmt::Display for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(resource(self.kind).plural)?;
        if !self.namespace.is_empty() {
            write!(f, " of namespace {}", self.namespace)?;
        }
        for selector in self.labels.iter().chain(&self.fields) {
            write!(f, " with {selector}")?;
        }
        Ok(())
    }
}
