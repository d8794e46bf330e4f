use super::Base;
use super::destinations::{Context, Destinations};
use super::table::RouteTable;
use crate::istio::{Host, Protocol, VirtualService, full_gateway};
use crate::policy::review::Review;
use crate::world::{HostKind, World};

/// Requests that one thing decided about before the write.
#[derive(Debug)]
pub(super) struct Audience<'a> {
    pub(super) base: Base,
    /// On a gateway the routes of all VirtualServices of a host are tried, catch-alls last: what was there stays in front.
    ///
    /// Source: `pilot/pkg/networking/core/gateway.go` (merge), `route.go` `SortVHostRoutes`.
    pub(super) is_appended: bool,
    /// The object that decided, where one did.
    object: Option<(&'a VirtualService, &'a str)>,
}

/// Who decided before: for what the stored object is already bound to, that object; for hosts, gateways and clients that the
/// write adds, the VirtualService in force for them, else the Service's own routing, else nobody.
pub(super) fn audiences<'a>(
    review: &'a Review,
    new: &'a VirtualService,
    world: &'a World,
    is_blind: bool,
) -> Vec<Audience<'a>> {
    let mut found: Vec<Audience<'a>> = Vec::new();
    let namespace = review.namespace.as_str();
    let bound = Bound::of(new, namespace, world);
    let old = review.old_object();
    let was = old.map(|old| Bound::of(old, namespace, world));
    if let (Some(old), Some(was)) = (old, &was)
        && (was.hosts.iter().any(|host| bound.hosts.contains(host))
            || (new.spec.is_delegate() && old.spec.is_delegate()))
    {
        found.push(Audience {
            base: Base::Stored,
            is_appended: false,
            object: Some((old, namespace)),
        });
    }
    for host in &bound.hosts {
        for gateway in &bound.gateways {
            let stays = was.as_ref().is_some_and(|was| {
                was.hosts.contains(host)
                    && was.gateways.contains(gateway)
                    && (was.is_public || !bound.is_public)
            });
            if stays {
                continue;
            }
            let added = added(host, gateway, (namespace, &review.name), world, is_blind);
            if !found.iter().any(|known| known.base == added.base) {
                found.push(added);
            }
        }
    }
    if new.spec.is_delegate() && found.is_empty() {
        found.push(Audience { base: Base::Nothing, is_appended: false, object: None });
    }
    found
}

fn added<'a>(
    host: &Host,
    gateway: &str,
    own: (&str, &str),
    world: &'a World,
    is_blind: bool,
) -> Audience<'a> {
    if is_blind {
        return Audience { base: Base::Nothing, is_appended: false, object: None };
    }
    if let Some(object) = world.in_force(host, gateway, own) {
        let base = Base::InForce(format!("{}/{}", object.metadata.namespace, object.metadata.name));
        let object = Some((object, object.metadata.namespace.as_str()));
        return Audience { base, is_appended: gateway != "mesh", object };
    }
    // Outside the mesh nobody serves a Service's host without a VirtualService.
    let plain = world.plain_host(host).filter(|plain| {
        gateway == "mesh"
            && matches!(world.host(plain), Some(HostKind::Service(_) | HostKind::ServiceEntry(_)))
    });
    Audience { base: plain.map_or(Base::Nothing, Base::Plain), is_appended: false, object: None }
}

impl Audience<'_> {
    /// The routes that decided; `None` where they have nothing to do with this protocol of the new object.
    pub(super) fn table(
        &self,
        review: &Review,
        protocol: Protocol,
        is_written: bool,
        destinations: &mut Destinations,
        context: &Context<'_>,
    ) -> Option<RouteTable> {
        match (&self.base, self.object) {
            (Base::Stored, Some((old, _))) => {
                Some(RouteTable::of(&old.spec, protocol, &review.namespace, destinations, context))
            }
            (Base::InForce(_), Some((object, namespace))) if is_written => {
                Some(RouteTable::of(&object.spec, protocol, namespace, destinations, context))
            }
            (Base::Plain(host), _) if is_written => {
                Some(RouteTable::plain(destinations.add_resolved(host.clone(), "", context)))
            }
            (Base::Nothing, _) if is_written => Some(RouteTable::default()),
            _ => None,
        }
    }
}

/// What an object is bound to, with full names.
struct Bound {
    hosts: Vec<Host>,
    gateways: Vec<String>,
    is_public: bool,
}

impl Bound {
    fn of(object: &VirtualService, namespace: &str, world: &World) -> Self {
        let hosts = object
            .spec
            .hosts
            .iter()
            .map(|host| Host::resolve(host, namespace, &world.mesh().domain));
        let gateways = object.spec.gateways.iter().map(|gateway| full_gateway(gateway, namespace));
        let gateways = if object.spec.gateways.is_empty() {
            vec!["mesh".to_owned()]
        } else {
            gateways.collect()
        };
        let is_public =
            object.spec.export_to.is_empty() || object.spec.export_to.iter().any(|to| to == "*");
        Self { hosts: hosts.collect(), gateways, is_public }
    }
}
