use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::istio::{self, FieldPath, Protocol};
use crate::policy::words::{counted, number, percent};
use crate::policy::{
    Action, Base, Case, Change, Class, Destination, Factor, Flow, Gravity, Reference, Report, Rule,
    Side, Stage,
};
use crate::world::{HostKind, Kind};

/// No pod gets many times the load that a pod carries today.
///
/// Reads: the shares and mirrors of each route before and after the write. Looks up how many ready endpoints each destination
/// selects, and `outlierDetection` of the DestinationRules in force.
///
/// Why: half of the requests on one canary pod, where ten pods shared all of them, is five times a pod's load: the canary fails
/// because of its size and not of its code. The same holds for a rollback to a side that was scaled down. What a mirror copies
/// counts, too.
///
/// Why also `outlierDetection`: with `maxEjectionPercent: 100` a canary of one pod is left out as a whole after a few errors, and its
/// share is answered with 503; nothing goes to the stable side instead. (With the default of 10 % less than ten pods are never
/// left out: it is no safety net for a canary.)
///
/// Not warned about: routes that only clients with a certain header, cookie, query parameter or label take; new routes to other
/// services; an evacuation of a dead side; destinations without ready endpoints, which other rules judge; hosts whose endpoints
/// Kubernetes does not know.
///
/// Warned about: v1 with 9 ready pods and v2 with 1, and the weights 50 and 50: 4.5 times the load.
///
/// Passes: the same after `kubectl scale deployment reviews-v2 --replicas=3`, or the weights 80 and 20.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Capacity {
    /// How many times the load of the busiest ready endpoint of today an endpoint may get.
    max_factor: Factor,
}

impl Default for Capacity {
    fn default() -> Self {
        Self { max_factor: Factor::new(2.0) }
    }
}

impl Rule for Capacity {
    const ID: &'static str = "capacity";
    const ACTION: Action = Action::Warn;
    const STAGE: Stage = Stage::Load;
    const READS: &'static [Kind] = &Case::TARGET;

    fn check(&self, case: &Case<'_>, report: &mut Report<'_>) {
        let Some(change) = case.change else { return };
        let mut worst: BTreeMap<(Protocol, usize, String), Load> = BTreeMap::new();
        let mut fragile: BTreeMap<String, (FieldPath, String)> = BTreeMap::new();
        for flow in change.flows.iter().filter(|flow| !flow.is_targeted()) {
            let (Some(before), Some(after)) = (&flow.before, &flow.after) else { continue };
            let Some(today) = busiest(case, change, flow, before) else { continue };
            for load in loads(case, change, flow, after) {
                let factor = load.per_endpoint() / today;
                if factor > self.max_factor.get() + 1e-9 {
                    let load = Load { factor, today, ..load };
                    let key = (flow.protocol, after.route, load.label.clone());
                    match worst.get(&key) {
                        Some(known) if known.factor >= factor => {}
                        _ => drop(worst.insert(key, load)),
                    }
                }
            }
            for moved in flow.movements.iter().filter(|moved| moved.from <= 1e-9 && moved.rises()) {
                let destination = change.destinations.get(moved.destination);
                if moved.class != Class::Addition
                    && let Some(message) =
                        ejected_as_a_whole(case, destination, after.share(moved.destination))
                {
                    fragile
                        .insert(destination.label.clone(), (flow.path(moved.destination), message));
                }
            }
        }
        for load in worst.into_values() {
            let rests_on = rests_on(case, &load);
            report.shift(load.path.clone(), self.message(&load), rests_on);
        }
        for (path, message) in fragile.into_values() {
            report.lookup(Gravity::WarnOnly, path, message, Vec::new());
        }
    }
}

/// What the ready endpoints of one destination get of one route's requests.
struct Load {
    path: FieldPath,
    label: String,
    host: istio::Host,
    ready: u32,
    /// The part of the requests that it serves, and of those of which it gets copies.
    share: f64,
    mirrored: f64,
    factor: f64,
    today: f64,
}

impl Load {
    fn per_endpoint(&self) -> f64 {
        (self.share + self.mirrored) / f64::from(self.ready)
    }
}

/// The largest part of the requests that one ready endpoint gets before the write.
fn busiest(case: &Case<'_>, change: &Change, flow: &Flow, before: &Side) -> Option<f64> {
    let of = |share: f64, ready: Option<u32>| {
        ready.filter(|&ready| ready > 0).map(|ready| share / f64::from(ready))
    };
    let served = before.shares.iter().filter(|share| share.fraction > 0.0).filter_map(|share| {
        let endpoints = change.destinations.get(share.destination).endpoints.as_ref()?;
        of(before.share(share.destination), Some(endpoints.ready()))
    });
    let stored = case.review.old_object().filter(|_| before.is_own && flow.base == Base::Stored);
    let route = stored.and_then(|old| old.spec.routes(flow.protocol).get(before.route));
    let mirrored = route.into_iter().flat_map(istio::Route::mirrored).take(MOST_MIRRORS);
    let mirrored = mirrored.filter_map(|mirror| of(mirror.part, case.target(mirror.to).ready()));
    served.chain(mirrored).max_by(f64::total_cmp)
}

/// Nobody copies a request to more places.
const MOST_MIRRORS: usize = 16;

/// What the destinations that get more than before get, copies included.
fn loads(case: &Case<'_>, change: &Change, flow: &Flow, after: &Side) -> Vec<Load> {
    let mut found: Vec<Load> = Vec::new();
    // Other services have another cost per request, and where the other side is dead there is no choice.
    let is_other = |class| matches!(class, Class::Addition | Class::Evacuation);
    let rising = flow.movements.iter().filter(|moved| moved.rises() && !is_other(moved.class));
    for moved in rising {
        let destination = change.destinations.get(moved.destination);
        let Some(endpoints) = &destination.endpoints else { continue };
        found.push(Load {
            path: flow.path(moved.destination),
            label: destination.label.clone(),
            host: destination.host.clone(),
            ready: endpoints.ready(),
            share: moved.to,
            mirrored: 0.0,
            factor: 0.0,
            today: 0.0,
        });
    }
    let own = after.is_own.then_some(&case.object.spec);
    let route = own.and_then(|spec| spec.routes(flow.protocol).get(after.route));
    for mirror in route.into_iter().flat_map(istio::Route::mirrored).take(MOST_MIRRORS) {
        let host = case.resolve(&mirror.to.host);
        let was = mirrored_before(case, flow, mirror.to);
        let known = after.shares.iter().find(|share| {
            let destination = change.destinations.get(share.destination);
            destination.host == host && destination.subset == mirror.to.subset
        });
        let label = known.map(|share| change.destinations.get(share.destination).label.clone());
        if let Some(load) = found.iter_mut().find(|load| Some(&load.label) == label.as_ref()) {
            load.mirrored += mirror.part;
            continue;
        }
        let Some(ready) = case.target(mirror.to).ready().filter(|_| mirror.part > was + 1e-9)
        else {
            continue;
        };
        let path = flow.protocol.path(after.route);
        let short = host.short(&case.review.namespace, &case.world.mesh().domain).to_owned();
        let label = label.unwrap_or(match mirror.to.subset.as_str() {
            "" => short,
            subset => format!("{short}/{subset}"),
        });
        found.push(Load {
            path: match mirror.at {
                None => path.field("mirror"),
                Some(at) => path.field("mirrors").index(at),
            },
            label,
            host,
            ready,
            share: known.map_or(0.0, |share| after.share(share.destination)),
            mirrored: mirror.part,
            factor: 0.0,
            today: 0.0,
        });
    }
    found.retain(|load| load.ready > 0);
    found
}

/// The part of the requests that was copied to the same place before.
fn mirrored_before(case: &Case<'_>, flow: &Flow, to: &istio::Destination) -> f64 {
    let (Some(old), Some(before), Base::Stored) =
        (case.review.old_object(), &flow.before, &flow.base)
    else {
        return 0.0;
    };
    let route = old.spec.routes(flow.protocol).get(before.route).filter(|_| before.is_own);
    let mirrored = route.into_iter().flat_map(istio::Route::mirrored);
    mirrored.filter(|mirror| mirror.to == to).map(|mirror| mirror.part).sum()
}

impl Capacity {
    fn message(&self, load: &Load) -> String {
        let copies = match (load.share > 1e-9, load.mirrored > 1e-9) {
            (true, true) => format!(" and copies of {}", percent(load.mirrored)),
            _ => String::new(),
        };
        let what = if load.share > 1e-9 {
            percent(load.share).into_owned()
        } else {
            format!("copies of {}", percent(load.mirrored))
        };
        let enough = (load.share + load.mirrored) / (self.max_factor.get() * load.today);
        let enough = (enough - 1e-9).ceil().max(1.0) as u32;
        let most = self.max_factor.get() * load.today * f64::from(load.ready) * 100.0;
        format!(
            "{} would get {what}{copies} of these requests with {}: {} each, where the busiest pod has {} now, {} times as much\n  {} times is the most here. Passes: {} of {}, or up to {} % of the requests.",
            load.label,
            counted(load.ready, "ready pod"),
            percent(load.per_endpoint()),
            percent(load.today),
            number(load.factor),
            number(self.max_factor.get()),
            counted(enough, "ready pod"),
            load.label,
            number((most + 1e-6).floor())
        )
    }
}

/// Where the policy refuses, the numbers are read again first.
fn rests_on(case: &Case<'_>, load: &Load) -> Vec<Reference> {
    match case.world.host(&load.host) {
        Some(HostKind::Service(service)) => vec![Reference::Endpoints {
            namespace: service.namespace.clone(),
            service: service.name.clone(),
        }],
        _ => Vec::new(),
    }
}

/// A destination of one pod that `outlierDetection` may leave out altogether.
///
/// Source: Envoy's `max_ejection_percent`, which is honoured since envoy#27909; the panic threshold is `minHealthPercent`, which
/// Istio sets to 0 where it is absent (`cluster_traffic_policy.go` `applyOutlierDetection`).
fn ejected_as_a_whole(case: &Case<'_>, to: &Destination, share: f64) -> Option<String> {
    let ready = to.endpoints.as_ref()?.ready();
    let rule = case.destination_rule(&to.host)?;
    let outlier = rule.policy(&to.subset, None).outlier_detection?;
    let is_off = outlier.consecutive_5xx_errors == Some(0)
        && outlier.consecutive_gateway_errors.unwrap_or(0) == 0;
    let is_whole = outlier.max_ejection_percent.unwrap_or(0) >= 100;
    if ready != 1
        || is_off
        || !is_whole
        || outlier.min_health_percent.unwrap_or(0) > 0
        || share <= 0.0
    {
        return None;
    }
    let named =
        rule.rules().next().map(|own| format!("{}/{}", own.metadata.namespace, own.metadata.name));
    Some(format!(
        "{} is one pod, and outlierDetection of DestinationRule {} may leave out all of them (maxEjectionPercent: 100): after a few errors {} is answered with 503, and nothing goes elsewhere\n  Passes: two pods or more, or maxEjectionPercent: 50.",
        to.label,
        named.unwrap_or_default(),
        percent(share)
    ))
}
