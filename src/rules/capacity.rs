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
/// Compared is with the other pods: with the busiest one of today, or with what each would have if they served everything,
/// whichever is more; so a ramp is measured by the same number at each of its steps. It is said when a pod gets more than
/// `maxFactor` times that for the first time, and again only when its load grows by that factor in one write: what is so already is no news.
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
    /// How many times the load of the other ready endpoints an endpoint may get.
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
        let mut worst: BTreeMap<(Protocol, usize, String), (Load, Known)> = BTreeMap::new();
        let mut fragile: BTreeMap<String, (FieldPath, String)> = BTreeMap::new();
        for flow in change.flows.iter().filter(|flow| !flow.is_targeted()) {
            let (Some(before), Some(after)) = (&flow.before, &flow.after) else { continue };
            let today = Today::of(case, change, flow, before);
            for (place, load) in loads(case, change, flow, after, Moment::After) {
                if load.ready == 0 || !gets_more(flow, &place, &load, &today) {
                    continue;
                }
                let Some(known) = today.known_to(flow, &place, &load, self.max_factor.get()) else {
                    continue;
                };
                if load.per_endpoint() > self.max_factor.get() * known.load() + 1e-9 {
                    let load = load.named(change, flow, &place);
                    let key = (flow.protocol, after.route, load.label.clone());
                    let is_worse = |(told, of): &(Load, Known)| {
                        load.per_endpoint() / known.load() > told.per_endpoint() / of.load()
                    };
                    if worst.get(&key).is_none_or(is_worse) {
                        worst.insert(key, (load, known));
                    }
                }
            }
            for moved in flow.movements.iter().filter(|moved| moved.from <= 1e-9 && moved.rises()) {
                let destination = change.destinations.get(moved.destination);
                if moved.class != Class::Addition
                    && let Some(message) =
                        ejected_as_a_whole(case, destination, after.share(moved.destination))
                {
                    fragile.insert(
                        destination.label().into_owned(),
                        (flow.path(moved.destination), message),
                    );
                }
            }
        }
        for (load, known) in worst.into_values() {
            let rests_on = rests_on(case, &load);
            let path = load.path.clone().unwrap_or_else(FieldPath::spec);
            report.shift(path, self.message(&load, known), rests_on);
        }
        for (path, message) in fragile.into_values() {
            report.lookup(Gravity::WarnOnly, path, message, Vec::new());
        }
    }
}

/// What the ready endpoints of one destination get of one route's requests.
struct Load {
    /// Made where there is something to say, as the label is; of a mirror always.
    path: Option<FieldPath>,
    label: String,
    host: istio::Host,
    ready: u32,
    /// The part of the requests that it serves, and of those of which it gets copies.
    share: f64,
    mirrored: f64,
}

impl Load {
    /// With path and label.
    fn named(self, change: &Change, flow: &Flow, place: &Place) -> Self {
        match *place {
            Ok(at) if self.path.is_none() => Self {
                path: Some(flow.path(at)),
                label: change.destinations.get(at).label().into_owned(),
                ..self
            },
            _ => self,
        }
    }

    fn per_endpoint(&self) -> f64 {
        (self.share + self.mirrored) / f64::from(self.ready.max(1))
    }
}

/// A destination by its number; one that only gets copies by its label.
type Place = Result<usize, String>;

#[derive(Clone, Copy, PartialEq)]
enum Moment {
    Before,
    After,
}

/// Nobody copies a request to more places.
const MOST_MIRRORS: usize = 16;

/// What the destinations of one side get, copies included.
fn loads(
    case: &Case<'_>,
    change: &Change,
    flow: &Flow,
    side: &Side,
    moment: Moment,
) -> BTreeMap<Place, Load> {
    let mut found = BTreeMap::new();
    let served = side.shares.carrying().map(|share| (share.destination, share.fraction));
    let mut served = served.collect::<Vec<_>>();
    // What reaches it by overlapping with another destination counts, too.
    let mut reached = Vec::new();
    for moved in &flow.movements {
        let share = if moment == Moment::After { moved.to } else { moved.from };
        match served.binary_search_by_key(&moved.destination, |(at, _)| *at) {
            Ok(at) => served[at].1 = share,
            Err(_) if moment == Moment::After => reached.push((moved.destination, share)),
            Err(_) => {}
        }
    }
    served.append(&mut reached);
    for (at, share) in served {
        let to = change.destinations.get(at);
        let Some(endpoints) = &to.endpoints else { continue };
        let load = Load {
            path: None,
            label: String::new(),
            host: to.host.clone(),
            ready: endpoints.ready(),
            share,
            mirrored: 0.0,
        };
        found.insert(Ok(at), load);
    }
    let object = match moment {
        Moment::Before => case.review.old_object().filter(|_| flow.base == Base::Stored),
        Moment::After => Some(case.object),
    };
    let route = object.filter(|_| side.is_own);
    let route = route.and_then(|own| own.spec.routes(flow.protocol).get(side.route));
    for mirror in route.into_iter().flat_map(istio::Route::mirrored).take(MOST_MIRRORS) {
        let host = case.resolve(&mirror.to.host);
        let sides = [&flow.before, &flow.after].into_iter().flatten();
        let known = sides.flat_map(|side| side.shares.carrying()).find(|share| {
            let destination = change.destinations.get(share.destination);
            destination.host == host && *destination.subset == *mirror.to.subset
        });
        let short = host.short(&case.review.namespace, &case.world.mesh().domain);
        let label = match mirror.to.subset.as_str() {
            "" => short.to_owned(),
            subset => format!("{short}/{subset}"),
        };
        let place = known.map_or_else(|| Err(label.clone()), |share| Ok(share.destination));
        if let Some(load) = found.get_mut(&place) {
            load.mirrored += mirror.part;
            continue;
        }
        let Some(ready) = case.target(mirror.to).ready() else { continue };
        let path = flow.protocol.path(side.route);
        let path = match mirror.at {
            None => path.field("mirror"),
            Some(at) => path.field("mirrors").index(at),
        };
        let path = Some(path);
        found.insert(place, Load { path, label, host, ready, share: 0.0, mirrored: mirror.part });
    }
    found
}

/// Whether the write gives a destination more of the requests, or more copies.
fn gets_more(flow: &Flow, place: &Place, load: &Load, today: &Today) -> bool {
    // Other services have another cost per request, and where the other side is dead there is no choice.
    let is_other = |class| matches!(class, Class::Addition | Class::Evacuation);
    let moved = place.as_ref().ok().and_then(|&at| flow.movement(at));
    let copied = today.loads.get(place).map_or(0.0, |own| own.mirrored);
    moved.is_some_and(|own| own.rises() && !is_other(own.class)) || load.mirrored > copied + 1e-9
}

/// What ready endpoints have before the write.
struct Today {
    loads: BTreeMap<Place, Load>,
    /// How many of them serve requests.
    serving: u32,
    /// The two destinations whose endpoints have most.
    busiest: [Option<(Place, f64)>; 2],
}

/// What an endpoint is known to carry.
#[derive(Clone, Copy)]
enum Known {
    /// So much the busiest one has now.
    Busiest(f64),
    /// So much the busiest one of the others has now.
    BusiestOther(f64),
    /// So much each of so many others would have if they served everything.
    Others(u32, f64),
    /// So much it has itself, which is more than the others could tell: they say the second number.
    Itself(f64, f64),
}

impl Known {
    fn load(self) -> f64 {
        let (Self::Busiest(load)
        | Self::BusiestOther(load)
        | Self::Others(_, load)
        | Self::Itself(load, _)) = self;
        load
    }
}

impl Today {
    fn of(case: &Case<'_>, change: &Change, flow: &Flow, before: &Side) -> Self {
        let mut loads = loads(case, change, flow, before, Moment::Before);
        loads.retain(|_, own| own.ready > 0);
        let serving = loads.values().filter(|own| own.share > 1e-9).map(|own| own.ready).sum();
        let mut busiest = [None, None];
        for (place, own) in &loads {
            let own = Some((place.clone(), own.per_endpoint()));
            let load = |of: &Option<(Place, f64)>| of.as_ref().map_or(-1.0, |(_, load)| *load);
            if load(&own) > load(&busiest[0]) {
                busiest = [own, busiest[0].take()];
            } else if load(&own) > load(&busiest[1]) {
                busiest[1] = own;
            }
        }
        Self { loads, serving, busiest }
    }

    /// What is known of the pods that `load` is held against; `None` where nothing is.
    fn known_to(&self, flow: &Flow, place: &Place, load: &Load, factor: f64) -> Option<Known> {
        let own = self.loads.get(place);
        let moved = place.as_ref().ok().and_then(|&at| flow.movement(at));
        let reached = moved.map_or(0.0, |moved| moved.from) / f64::from(load.ready);
        let had = own.map_or(reached, Load::per_endpoint);
        let serves = own.filter(|own| own.share > 1e-9).map_or(0, |own| own.ready);
        let others = self.serving - serves;
        let shared = if others > 0 { 1.0 / f64::from(others) } else { 0.0 };
        let busiest = self.busiest.iter().flatten().find(|(at, _)| at != place);
        let busiest = busiest.map_or(0.0, |(_, load)| *load);
        let known = match busiest >= shared - 1e-9 {
            true if had <= busiest => Known::Busiest(busiest),
            true => Known::BusiestOther(busiest),
            false => Known::Others(others, shared),
        };
        let known = if had > factor * known.load() + 1e-9 {
            Known::Itself(had, known.load())
        } else {
            known
        };
        (known.load() > 0.0).then_some(known)
    }
}

impl Capacity {
    fn message(&self, load: &Load, known: Known) -> String {
        let copies = match (load.share > 1e-9, load.mirrored > 1e-9) {
            (true, true) => format!(" and copies of {}", percent(load.mirrored)),
            _ => String::new(),
        };
        let what = if load.share > 1e-9 {
            percent(load.share).into_owned()
        } else {
            format!("copies of {}", percent(load.mirrored))
        };
        let most = self.max_factor.get() * known.load();
        // Spread over more pods its own load tells less.
        let others = if let Known::Itself(_, others) = known { others } else { known.load() };
        let enough = (load.share + load.mirrored) / (self.max_factor.get() * others);
        let enough = (enough - 1e-9).ceil().max(1.0) as u32;
        let pods = match others > 0.0 {
            true => format!("{} of {}, or ", counted(enough, "ready pod"), load.label),
            false => String::new(),
        };
        let most = (most * f64::from(load.ready) * 100.0).min(100.0);
        let carries = percent(known.load());
        let than = match known {
            Known::Busiest(_) => format!("the busiest pod has {carries} now"),
            Known::BusiestOther(_) => format!("the busiest of the other pods has {carries} now"),
            Known::Others(1, _) => format!("the other pod would have {carries} if it served all"),
            Known::Others(others, _) => {
                format!("each of the other {others} pods would have {carries} if they served all")
            }
            Known::Itself(..) => format!("each has {carries} now"),
        };
        format!(
            "{} would get {what}{copies} of these requests with {}: {} each, where {than}, {} times as much\n  {} times is the most here. Passes: {pods}up to {} % of the requests.",
            load.label,
            counted(load.ready, "ready pod"),
            percent(load.per_endpoint()),
            number(load.per_endpoint() / known.load()),
            number(self.max_factor.get()),
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
        to.label(),
        named.unwrap_or_default(),
        percent(share)
    ))
}
