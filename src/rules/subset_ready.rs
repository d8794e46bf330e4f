use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::policy::words::{counted, label_map, labels, list, near_miss, percent};
use crate::policy::{Action, Carried, Case, Destination, Gravity, Reference, Report, Rule, Stage};
use crate::world::{EndpointGroup, HostKind, Kind, Service};

/// A destination that gets more traffic selects ready endpoints.
///
/// Refuses a rising share for a destination that selects fewer ready endpoints than `minReady`: members of the Service's
/// EndpointSlices that are ready and whose Pod carries all of the subset's labels. Envoy picks a destination by weight without
/// looking whether anybody answers there, so the share of a subset that selects nobody is answered with 503.
///
/// Admitted with a warning: where nothing that serves these requests now is ready either, and for a lowering. Not judged:
/// hosts whose endpoints Kubernetes does not know (ExternalName, DNS, virtual machines) and subsets by node topology. Before
/// anybody is refused the EndpointSlices and Pods are read again from the API server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct SubsetReady {
    /// The fewest ready endpoints that a destination with a rising share selects.
    min_ready: u32,
}

impl Default for SubsetReady {
    fn default() -> Self {
        Self { min_ready: 1 }
    }
}

impl Rule for SubsetReady {
    const ID: &'static str = "subset-ready";
    const ACTION: Action = Action::Deny;
    const STAGE: Stage = Stage::Traffic;
    const READS: &'static [Kind] = &[Kind::Service, Kind::EndpointSlice, Kind::Pod];

    fn check(&self, case: &Case<'_>, report: &mut Report<'_>) {
        let Some(change) = case.change else { return };
        for carried in case.carried().into_iter().filter(|carried| carried.rises) {
            let destination = change.destinations.get(carried.destination);
            let (Some(wanted), Some(endpoints)) = (&destination.labels, &destination.endpoints)
            else {
                continue;
            };
            let known = endpoints.groups.iter().map(|group| group.ready).sum::<u32>();
            // What nobody has seen yet may be what the subset selects.
            if known + endpoints.unknown_ready >= self.min_ready {
                continue;
            }
            let ready = known + endpoints.unknown_ready;
            let Some(HostKind::Service(service)) = case.world.host(&destination.host) else {
                continue;
            };
            let port = carried.written.destination.port.number;
            if port.is_some_and(|port| service.ports.iter().all(|own| own.number != port)) {
                // A port that nobody has is another rule's finding.
                continue;
            }
            let found = Found::of(case, destination, service, wanted);
            // Pods that were never made are absent, as in a dry run of everything; Pods with the wrong label are not.
            let is_absent =
                endpoints.unready() == 0 && found.meant.is_none() && found.unselected == 0;
            let gravity = if is_absent { case.if_absent(carried.gravity) } else { carried.gravity };
            let message = message(
                &carried,
                destination,
                service,
                wanted,
                &found,
                (ready, endpoints.unready(), self.min_ready),
            );
            report.lookup(gravity, carried.path(), message, rests_on(service, gravity));
        }
    }
}

fn rests_on(service: &Service, gravity: Gravity) -> Vec<Reference> {
    match gravity {
        Gravity::WarnOnly => Vec::new(),
        Gravity::Full => {
            vec![Reference::Endpoints {
                namespace: service.namespace.clone(),
                service: service.name.clone(),
            }]
        }
    }
}

/// What there is instead.
struct Found {
    /// The Service's Pods, by the labels that matter here.
    pods: Vec<String>,
    /// A label that is nearly what the subset wants: key, wanted, carried.
    meant: Option<(String, String)>,
    /// Pods that carry the subset's labels but that the Service does not select.
    unselected: u32,
}

impl Found {
    fn of(
        case: &Case<'_>,
        destination: &Destination,
        service: &Service,
        wanted: &BTreeMap<String, String>,
    ) -> Self {
        let all = case.world.endpoints(&destination.host).unwrap_or_default();
        let shown = |key: &str| service.selector.contains_key(key) || wanted.contains_key(key);
        let mut by_labels: BTreeMap<String, (u32, u32)> = BTreeMap::new();
        let mut meant = None;
        for EndpointGroup { id, ready, unready } in &all.groups {
            let carried = case.world.labels(*id);
            for (key, value) in wanted {
                let values = carried.iter().filter(|(own, _)| own == key).map(|(_, value)| *value);
                if let Some(close) = near_miss(value, values) {
                    meant.get_or_insert_with(|| (key.clone(), close.to_owned()));
                }
            }
            let said = labels(carried.into_iter().filter(|(key, _)| shown(key)));
            let counts = by_labels.entry(said).or_default();
            *counts = (counts.0 + ready, counts.1 + unready);
        }
        let say = |(labels, (ready, unready)): (String, (u32, u32))| match (ready, unready) {
            (0, unready) => format!(
                "{} that {} not ready carry {labels}",
                counted(unready, "pod"),
                are(unready)
            ),
            (ready, _) => format!(
                "{} of {} {} {labels}",
                counted(ready, "ready pod"),
                service.name,
                carry(ready)
            ),
        };
        let unselected =
            if wanted.is_empty() { 0 } else { case.world.stray_pods(&service.namespace, wanted) };
        Self { pods: by_labels.into_iter().map(say).collect(), meant, unselected }
    }
}

fn are(count: u32) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

fn carry(count: u32) -> &'static str {
    if count == 1 { "carries" } else { "carry" }
}

fn message(
    carried: &Carried<'_>,
    destination: &Destination,
    service: &Service,
    wanted: &BTreeMap<String, String>,
    found: &Found,
    (ready, unready, least): (u32, u32, u32),
) -> String {
    let share = percent(carried.share);
    let label = &destination.label;
    let mut message = match ready {
        0 => {
            format!("{share} would go to {label}, which selects no ready pod (503 for that share)")
        }
        ready => format!(
            "{share} would go to {label}, which selects {}; {least} is the least here",
            counted(ready, "ready pod")
        ),
    };
    if wanted.is_empty() {
        let why = if unready > 0 {
            format!(
                "Service {} selects {} that {} not ready.",
                service.name,
                counted(unready, "pod"),
                are(unready)
            )
        } else {
            format!(
                "Service {} selects {}, which no ready pod carries.",
                service.name,
                label_map(&service.selector)
            )
        };
        return format!(
            "{message}\n  {why}\n  Passes: the same write as soon as its pods are ready."
        );
    }
    let pods = if found.pods.is_empty() {
        format!("Service {} has no pods", service.name)
    } else {
        found.pods.join("; ")
    };
    let none = if ready + unready == 0 && !found.pods.is_empty() {
        format!("; none carries {}", label_map(wanted))
    } else {
        String::new()
    };
    message.push_str(&format!("\n  The subset wants {}. {pods}{none}.", label_map(wanted)));
    if found.unselected > 0 {
        message.push_str(&format!(
            "\n  {} {} {}, but Service {} does not select {}: it wants {}.",
            counted(found.unselected, "pod"),
            carry(found.unselected),
            label_map(wanted),
            service.name,
            if found.unselected == 1 { "it" } else { "them" },
            label_map(&service.selector)
        ));
    }
    message.push_str(&match &found.meant {
        Some((key, value)) => format!(
            "\n  Did you mean {key}: {value:?}? Passes: label the pods {}, or correct the subset, then apply again.",
            list(&wanted.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>())
        ),
        None if unready > 0 => "\n  Passes: the same write as soon as these pods are ready.".to_owned(),
        None => format!(
            "\n  Passes: {} of {} that {} {} first, then this.",
            counted(least, "ready pod"),
            service.name,
            carry(least),
            label_map(wanted)
        ),
    });
    message
}
