//! What a write of a DestinationRule does to those who send requests to its subsets, although no VirtualService changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::change::{Change, Clients, Relabelled, fractions, relabelled, users};
use super::review::Review;
use super::rule::Gravity;
use super::settings::{Policy, Roles};
use crate::istio::{
    Condition, Destination, DestinationRule, FieldPath, Host, Protocol, Route, VirtualService,
};
use crate::world::{ANY_NAMESPACE, Client, Endpoints, Rules, World};

/// A share of a route that some clients send somewhere else, or nowhere, after the write.
#[derive(Debug)]
pub struct Use<'a> {
    /// Whose route it is.
    pub object: &'a VirtualService,
    /// The route.
    pub route: (Protocol, usize),
    /// The destination's host.
    pub host: Host,
    /// The destination's subset.
    pub subset: &'a str,
    /// The part of the route's requests, from 0 to 1; of a mirror, the part that is copied.
    pub share: f64,
    /// Whether only copies of requests go there.
    pub is_mirror: bool,
    /// One of the clients, the one for whom it matters most.
    pub client: Client,
    /// What they found before; `None` where the subset was not defined for them.
    pub before: Option<Selection<'a>>,
    /// What they find from now on.
    pub after: Option<Selection<'a>>,
    /// How many VirtualServices it is so for.
    pub objects: usize,
    /// Whether requests that are answered now are answered no more.
    pub is_live: bool,
    /// What it may cost the writer.
    pub gravity: Gravity,
}

/// What a subset stands for.
#[derive(Debug, Clone)]
pub struct Selection<'a> {
    /// The labels that it selects by.
    pub labels: &'a BTreeMap<String, String>,
    /// What it selects; `None` where that is not known.
    pub endpoints: Option<Endpoints>,
}

impl Selection<'_> {
    /// Whether it is known that nobody answers there.
    pub fn is_dead(&self) -> bool {
        self.endpoints.as_ref().is_some_and(|endpoints| endpoints.ready() == 0)
    }

    /// Whether it is known that somebody answers there.
    pub fn is_alive(&self) -> bool {
        self.endpoints.as_ref().is_some_and(|endpoints| endpoints.ready() > 0)
    }
}

/// How a write of a DestinationRule changes what subsets stand for.
#[derive(Debug)]
pub struct Redefinition<'a> {
    /// The rule as it is stored, where it is.
    pub old: Option<&'a DestinationRule>,
    /// The rule as it will be, where it will.
    pub new: Option<&'a DestinationRule>,
    /// The rules before the write.
    pub before: Rules<'a>,
    /// The rules after the write.
    pub after: Rules<'a>,
    /// The shares whose subset some clients find no more, or find to be something else; one for each subset and change.
    pub uses: Vec<Use<'a>>,
    /// How the traffic of VirtualServices moves because a subset selects other pods, where both sides answer.
    pub shifts: Vec<Shift<'a>>,
}

/// Traffic that moves although no VirtualService changes.
#[derive(Debug)]
pub struct Shift<'a> {
    /// Whose routes they are.
    pub object: &'a VirtualService,
    /// One of the clients.
    pub client: Client,
    /// What it may cost the writer.
    pub gravity: Gravity,
    /// How it moves; the destinations are named by their labels.
    pub change: Change,
    /// The subsets that select by other labels now.
    pub subsets: Vec<Relabelled<'a>>,
}

/// What some clients make of one subset of one host.
type Pair<'a> = (Option<Selection<'a>>, Option<Selection<'a>>);

/// Clients who lose only together, because it is not known which of them there is, and what it may cost if they do.
#[derive(Clone, PartialEq)]
struct Group {
    clients: Vec<Client>,
    gravity: Gravity,
}

impl<'a> Redefinition<'a> {
    /// Compares `before` and `after`, the rules without and with the write.
    pub(super) fn of(
        review: &'a Review,
        (old, new): (Option<&'a DestinationRule>, Option<&'a DestinationRule>),
        (before, after): (Rules<'a>, Rules<'a>),
        policy: &'a Policy,
        world: &'a World,
    ) -> Self {
        let mut comparison = Comparison {
            world,
            before,
            after,
            known: HashMap::new(),
            found: BTreeMap::new(),
            shifts: Vec::new(),
            roles: &policy.spec().roles,
            is_lenient: review.dry_run && !policy.spec().dry_run.enforce_references,
        };
        let domain = &world.mesh().domain;
        let hosts = [old, new].into_iter().flatten();
        let hosts = hosts.map(|rule| Host::resolve(&rule.spec.host, &review.namespace, domain));
        let mut seen = BTreeSet::new();
        for host in hosts.collect::<BTreeSet<_>>() {
            for object in world.users_of(&host) {
                let metadata = &object.metadata;
                if seen.insert((&metadata.namespace, &metadata.name)) {
                    comparison.compare(object, &named_clients(review, [old, new], world));
                }
            }
        }
        let Comparison { found, shifts, .. } = comparison;
        Self { old, new, before, after, uses: found.into_values().collect(), shifts }
    }
}

/// A host's subset, whether only copies go there, and whether it was defined and will be.
type Key<'a> = (Host, &'a str, bool, bool, bool);

/// For each of them the share that weighs most.
type Found<'a> = BTreeMap<Key<'a>, Use<'a>>;

/// What of a VirtualService some client finds to be somewhere else.
struct View<'a> {
    client: Client,
    gravity: Gravity,
    subsets: BTreeSet<Relabelled<'a>>,
    routes: BTreeSet<(Protocol, usize)>,
}

impl<'a> View<'a> {
    fn add(&mut self, subset: Relabelled<'a>, route: (Protocol, usize)) {
        self.subsets.insert(subset);
        self.routes.insert(route);
    }
}

/// The view of this client.
fn view<'v, 'a>(
    views: &'v mut Vec<View<'a>>,
    client: &Client,
    gravity: Gravity,
) -> &'v mut View<'a> {
    let at = views.iter().position(|view| view.client == *client).unwrap_or_else(|| {
        let (subsets, routes) = (BTreeSet::new(), BTreeSet::new());
        views.push(View { client: client.clone(), gravity, subsets, routes });
        views.len() - 1
    });
    &mut views[at]
}

struct Comparison<'a> {
    world: &'a World,
    before: Rules<'a>,
    after: Rules<'a>,
    known: HashMap<(Client, Host, &'a str), Pair<'a>>,
    found: Found<'a>,
    shifts: Vec<Shift<'a>>,
    roles: &'a Roles,
    is_lenient: bool,
}

impl<'a> Comparison<'a> {
    /// Compares what the users of `object` find, and those of `named` who see it.
    fn compare(&mut self, object: &'a VirtualService, named: &[Group]) {
        let world = self.world;
        let namespace = object.metadata.namespace.as_str();
        let users = users(object, namespace, world);
        let mut in_force: HashMap<(Client, Protocol), bool> = HashMap::new();
        let mut routes_for = |client: &Client, protocol| {
            let known = in_force.get(&(client.clone(), protocol)).copied();
            known.unwrap_or_else(|| {
                let is_in_force = may_route(object, client, protocol, world);
                in_force.insert((client.clone(), protocol), is_in_force);
                is_in_force
            })
        };
        let mut counted = BTreeSet::new();
        let mut views = Vec::new();
        for (protocol, index) in live_routes(object, world) {
            let route = &object.spec.routes(protocol)[index];
            let groups = groups(&users, route, named);
            for (share, destination, is_mirror) in sent(route) {
                let subset = destination.subset.as_str();
                if share <= 0.0 || subset.is_empty() {
                    continue;
                }
                let host = Host::resolve(&destination.host, namespace, &world.mesh().domain);
                for Group { clients, gravity } in &groups {
                    let is_touched = |(before, after): &Pair<'_>| match (before, after) {
                        (Some(before), Some(after)) => before.labels != after.labels,
                        (_, after) => after.is_none(),
                    };
                    let mut pairs = clients.iter().map(|own| self.pair(own, &host, subset));
                    let Some((before, after)) = pairs.next().filter(is_touched) else { continue };
                    if !pairs.all(|pair| is_touched(&pair))
                        || !clients.iter().any(|own| routes_for(own, protocol))
                    {
                        continue;
                    }
                    let (client, gravity) = (clients[0].clone(), *gravity);
                    if let (Some(before), Some(after)) = (&before, &after)
                        && !is_mirror
                        && before.is_alive()
                        && after.is_alive()
                    {
                        let (before, after) = (before.labels, after.labels);
                        let relabelled = Relabelled { host: host.clone(), subset, before, after };
                        view(&mut views, &client, gravity).add(relabelled, (protocol, index));
                    }
                    let target = world.alias_target(&host);
                    let is_live = world.host(target.as_ref().unwrap_or(&host)).is_some()
                        && before.as_ref().is_some_and(|before| !before.is_dead());
                    let is_mild = self.is_lenient || is_mirror;
                    let gravity = if is_mild { Gravity::WarnOnly } else { gravity };
                    let key = (host.clone(), subset, is_mirror, before.is_some(), after.is_some());
                    let own = Use {
                        object,
                        route: (protocol, index),
                        host: host.clone(),
                        subset,
                        share,
                        is_mirror,
                        client,
                        before,
                        after,
                        objects: 1,
                        is_live,
                        gravity,
                    };
                    let is_first = counted.insert(key.clone());
                    keep(&mut self.found, key, own, is_first);
                }
            }
        }
        self.shift(object, views);
    }

    /// How the object's traffic moves for the clients of these views, each kind of view once.
    fn shift(&mut self, object: &'a VirtualService, mut views: Vec<View<'a>>) {
        let mut seen = BTreeSet::new();
        // Of clients who see the same, those speak who matter most.
        views.sort_by_key(|view| view.gravity != Gravity::Full);
        for View { client, gravity, subsets, routes } in views {
            let subsets = subsets.into_iter().collect::<Vec<_>>();
            let routes = routes.into_iter().collect::<Vec<_>>();
            if !seen.insert((subsets.clone(), routes.clone())) {
                continue;
            }
            let about = (self.roles, self.world);
            let change = relabelled(object, &routes, &subsets, &client, self.before, about);
            self.shifts.push(Shift { object, client, gravity, change, subsets });
        }
    }

    /// What a client makes of a subset before and after; asked once.
    fn pair(&mut self, client: &Client, host: &Host, subset: &'a str) -> Pair<'a> {
        let key = (client.clone(), host.clone(), subset);
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let select = |rules: Rules<'a>| {
            let labels = &rules.subset(host, subset, client)?.labels;
            Some(Selection { labels, endpoints: self.world.selected(host, labels, None) })
        };
        let pair = (select(self.before), select(self.after));
        self.known.insert(key, pair.clone());
        pair
    }
}

/// Keeps the one that weighs most, and how many objects it speaks for.
fn keep<'a>(found: &mut Found<'a>, key: Key<'a>, mut own: Use<'a>, is_first: bool) {
    let weight = |of: &Use<'_>| (of.is_live, of.gravity == Gravity::Full);
    let Some(known) = found.get_mut(&key) else {
        found.insert(key, own);
        return;
    };
    let objects = known.objects + usize::from(is_first);
    if weight(&own) > weight(known) || (weight(&own) == weight(known) && own.share > known.share) {
        std::mem::swap(known, &mut own);
    }
    known.objects = objects;
}

/// Where a route sends requests or copies of them: the part, the destination, and whether it is copies.
fn sent(route: &Route) -> impl Iterator<Item = (f64, &Destination, bool)> {
    let shares = fractions(route).into_iter().zip(&route.route);
    let shares = shares.map(|(share, written)| (share, &written.destination, false));
    shares.chain(route.mirrored().map(|mirror| (mirror.part, mirror.to, true)))
}

/// The routes that requests can reach: what stands behind a route for everything is dead, and what is for no port of its kind.
fn live_routes(object: &VirtualService, world: &World) -> Vec<(Protocol, usize)> {
    let mut found = Vec::new();
    for protocol in Protocol::ALL {
        let ports = world.ports_of_list(object, &object.metadata.namespace, protocol);
        for (index, route) in object.spec.routes(protocol).iter().enumerate() {
            if ports.as_ref().is_some_and(|ports| !route.is_for_any_of(ports)) {
                continue;
            }
            found.push((protocol, index));
            let conditions = Condition::of_route(route, &object.spec.gateways);
            if conditions.iter().any(Condition::is_catch_all) {
                break;
            }
        }
    }
    found
}

/// Whether a list of the VirtualService, or of one that it is a delegate of, is in force for this client: what another one hides
/// carries nothing.
fn may_route(object: &VirtualService, client: &Client, protocol: Protocol, world: &World) -> bool {
    let metadata = &object.metadata;
    if object.spec.is_delegate() {
        let mut roots = world.roots_of(&metadata.namespace, &metadata.name);
        return roots.any(|root| may_route(root, client, protocol, world));
    }
    let mut hosts = object.spec.hosts.iter();
    hosts.any(|host| {
        let host = Host::resolve(host, &metadata.namespace, &world.mesh().domain);
        let mut tried = world.routing().in_force(&host, client, protocol, None).into_iter();
        tried.any(|own| std::ptr::eq(own, object))
    })
}

/// Those who can take `route`, and those of `named` who see the VirtualService.
fn groups(users: &[Clients<'_>], route: &Route, named: &[Group]) -> Vec<Group> {
    let mut found = Vec::new();
    for users in users {
        for asked in users.of_route(route).iter() {
            let is_named = named.iter().find(|group| group.clients == asked.clients);
            let gravity = match asked.why.counts() {
                true => asked.gravity,
                false => is_named.map_or(Gravity::WarnOnly, |group| group.gravity),
            };
            let group = Group { clients: asked.clients.clone(), gravity };
            if !found.contains(&group) {
                found.push(group);
            }
        }
        for group in named {
            let is_asked = |own: &Client| found.iter().any(|known| known.clients.contains(own));
            if group.clients.iter().all(|own| users.includes(own, route) && !is_asked(own)) {
                let mut group = group.clone();
                if group.clients.iter().all(|own| users.gravity(own) == Gravity::WarnOnly) {
                    group.gravity = Gravity::WarnOnly;
                }
                found.push(group);
            }
        }
    }
    found
}

/// The clients that the rule singles out: by its namespace (pods with a Sidecar of their own apart), by its `exportTo`, by its
/// selector. Somebody must be there to lose something.
fn named_clients(
    review: &Review,
    rules: [Option<&DestinationRule>; 2],
    world: &World,
) -> Vec<Group> {
    let own = Client::in_namespace(&review.namespace);
    let selected = world.sidecar_selectors(&review.namespace).into_iter();
    let selected = selected.map(|labels| Client { labels: labels.clone(), ..own.clone() });
    let mut clients = std::iter::once(own.clone()).chain(selected).collect::<Vec<_>>();
    for rule in rules.into_iter().flatten() {
        let names = rule.spec.export_to.iter();
        let names = names.filter(|to| !matches!(to.as_str(), "*" | "." | "~" | ANY_NAMESPACE));
        clients.extend(names.map(|name| Client::in_namespace(name)));
        let selector = rule.spec.workload_selector.as_ref();
        clients.extend(
            selector.map(|own_labels| Client {
                labels: own_labels.match_labels.clone(),
                ..own.clone()
            }),
        );
    }
    let group = |client: Client| {
        let is_inhabited = world.has_pods(&client.namespace, &client.labels);
        let gravity = if is_inhabited { Gravity::Full } else { Gravity::WarnOnly };
        Group { clients: vec![client], gravity }
    };
    clients.into_iter().map(group).collect()
}

impl Use<'_> {
    /// Where the route stands in its VirtualService.
    pub fn place(&self) -> FieldPath {
        self.route.0.path(self.route.1)
    }
}
