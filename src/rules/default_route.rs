use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::istio::{Arrival, Condition, FieldPath, Protocol, Reading, RouteMatch};
use crate::policy::words::label_map;
use crate::policy::{Action, Case, Gravity, Report, Rule, Stage};
use crate::world::{Client, Kind};

/// What the rule looks up.
const READS: [Kind; 5] =
    [Kind::VirtualService, Kind::Service, Kind::Waypoint, Kind::Namespace, Kind::Pod];

/// A host that clients in the mesh use has a route for the rest.
///
/// Reads: the `match` of every http route, and `gateways`. Looks up waypoints, and the other VirtualServices that they try.
///
/// Why: as soon as a VirtualService has a route for a client, that client's other requests do not fall back to the Service: what no
/// route matches is answered with 404. The mistake shows only in requests that nobody tried.
///
/// Not warned about: paths on a gateway, which is how a gateway is used; routes that are only for clients with certain labels, in
/// a certain namespace or on a certain port, as far as the other clients have no route at all (they use the Service); hosts that
/// only waypoints are asked for, which find a route for the rest in another VirtualService; delegates; tcp and tls routes; and what
/// the stored object had already.
///
/// Warned about: on the host reviews, one route with `match: [{headers: {end-user: {exact: jason}}}]` and no other.
///
/// Passes: the same with a last route without `match` that sends everybody else to v1.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct DefaultRoute {}

impl Rule for DefaultRoute {
    const ID: &'static str = "default-route";
    const ACTION: Action = Action::Warn;
    const STAGE: Stage = Stage::Text;
    const READS: &'static [Kind] = &READS;

    fn check(&self, case: &Case<'_>, report: &mut Report<'_>) {
        let spec = &case.object.spec;
        if spec.is_delegate()
            || spec.http.is_empty()
            || spec.http.iter().any(|route| route.r#match.is_empty())
        {
            return;
        }
        let arrival = Arrival::anywhere(spec, &case.review.namespace);
        let path = FieldPath::spec().field("http");
        let routes = match spec.http.len() {
            1 => "the only route does not match".to_owned(),
            2 => "neither of the two routes matches".to_owned(),
            many => format!("none of the {many} routes matches"),
        };
        let last = "a last route without match, for everybody else.";
        if spec.is_for_mesh() {
            let Some(clients) = without_rest(spec.http.iter().flat_map(|route| &route.r#match))
            else {
                return;
            };
            if case.may_look(&READS) && waypoints_have_the_rest(case) {
                return;
            }
            let (who, key) = match &clients {
                Clients::All => (String::new(), "mesh".to_owned()),
                Clients::Some(who) => (format!(" from {who}"), format!("mesh {who}")),
            };
            let message = format!(
                "a request in the mesh{who} that {routes} gets 404; it does not fall back to the Service\n  Passes: {last}"
            );
            report.advice(Gravity::Full, path, message, key, 0.0);
        } else if spec.http.iter().all(|route| {
            let conditions = Condition::alternatives(route, &arrival, Reading::Usual);
            conditions.iter().all(Condition::is_targeted)
        }) {
            let message = format!(
                "every route needs a header, cookie or query parameter: any other request at the gateway gets 404\n  Passes: {last}"
            );
            report.advice(Gravity::Full, path, message, "gateway".to_owned(), 0.0);
        }
    }
}

/// Whether everybody comes through waypoints, and each of them has a route for the rest from another VirtualService: it tries all
/// of them, one after the other.
fn waypoints_have_the_rest(case: &Case<'_>) -> bool {
    let (object, namespace) = (case.object, case.review.namespace.as_str());
    let anywhere = Client::anywhere();
    if case.clients.iter().any(|users| users.gravity(&anywhere) == Gravity::Full) {
        return false;
    }
    let changed = case.world.with_virtual_service(Some(object), namespace, &case.review.name);
    object.spec.hosts.iter().all(|host| {
        let host = case.resolve(host);
        let client = case.world.waypoint_of(&host).map(Client::at);
        client.is_some_and(|client| {
            let tried = changed.routing().in_force(&host, &client, Protocol::Http, None);
            let routes = tried.iter().flat_map(|other| &other.spec.http);
            routes.into_iter().any(|route| route.r#match.is_empty())
        })
    })
}

/// Clients in the mesh.
enum Clients {
    All,
    Some(String),
}

/// For which clients the proxy has a route: fields of a match that istiod decides, not the proxy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Audience {
    port: Option<i64>,
    labels: BTreeMap<String, String>,
    namespace: String,
}

impl Audience {
    /// The audience in the mesh; `None` for a match that is only for gateways.
    fn of(alternative: &RouteMatch) -> Option<Self> {
        let port = alternative.port;
        if alternative.gateways.is_empty() {
            let (labels, namespace) =
                (alternative.source_labels.clone(), alternative.source_namespace.clone());
            return Some(Self { port, labels, namespace });
        }
        // With gateways the client's labels and namespace are not looked at (`route.go` `sourceMatchHTTP`).
        let is_mesh = alternative.gateways.iter().any(|gateway| gateway == "mesh");
        is_mesh.then(|| Self { port, ..Self::default() })
    }

    fn includes(&self, other: &Self) -> bool {
        self.port.is_none_or(|port| other.port == Some(port))
            && self.labels.iter().all(|(name, value)| other.labels.get(name) == Some(value))
            && (self.namespace.is_empty() || self.namespace == other.namespace)
    }

    fn say(&self) -> String {
        let mut parts = Vec::new();
        if !self.labels.is_empty() {
            parts.push(format!("pods with {}", label_map(&self.labels)));
        }
        if !self.namespace.is_empty() {
            parts.push(format!("namespace {}", self.namespace));
        }
        if let Some(port) = self.port {
            parts.push(format!("clients of port {port}"));
        }
        parts.join(", ")
    }
}

/// So many kinds of clients with a route for the rest are told apart; of more than that nothing is said.
const MOST_COMPARED: usize = 64;

/// The clients that have a route and none for the rest of their requests.
fn without_rest<'a>(alternatives: impl Iterator<Item = &'a RouteMatch>) -> Option<Clients> {
    let mut some = BTreeSet::new();
    let mut rest = BTreeSet::new();
    for alternative in alternatives {
        let Some(audience) = Audience::of(alternative) else { continue };
        if takes_everything(alternative) {
            rest.insert(audience);
        } else {
            some.insert(audience);
        }
    }
    some.retain(|audience| !rest.iter().take(MOST_COMPARED).any(|rest| rest.includes(audience)));
    if rest.len() > MOST_COMPARED {
        return None;
    }
    let first = some.first()?;
    if *first == Audience::default() {
        return Some(Clients::All);
    }
    Some(Clients::Some(first.say()))
}

/// Whether it takes every request of the clients it is for.
fn takes_everything(alternative: &RouteMatch) -> bool {
    let condition = Condition::of(alternative, &Arrival::at("mesh", ""), Reading::Usual);
    condition.is_some_and(|condition| condition.is_of_proxy())
}
