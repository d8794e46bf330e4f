//! Sidecars: which Services and VirtualServices a client is told about.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::table::Table;
use super::virtual_services::Bound;
use super::{Client, HostKind, World};
use crate::istio::{EgressHosts, EgressListener, Host, Sidecar, VirtualService};

/// Sidecars, also by the namespace whose proxies they are for.
#[derive(Debug, Default)]
pub(super) struct Sidecars {
    objects: Table<Arc<Kept>>,
    /// Those with a `workloadSelector` first, then by age.
    by_namespace: HashMap<String, Vec<Arc<Kept>>>,
    /// By the namespaces of which they show something, `*` for all: namespace and name.
    showing: HashMap<String, BTreeSet<(String, String)>>,
}

#[derive(Debug)]
struct Kept {
    object: Sidecar,
    listeners: Vec<Listener>,
}

/// An element of `egress`, ready to be asked.
#[derive(Debug)]
struct Listener {
    /// The port that it listens on; `None` for the one for all other ports.
    port: Option<i64>,
    /// The port that a service must have to be known here.
    port_of_services: Option<i64>,
    hosts: EgressHosts,
}

impl Listener {
    fn of(egress: &EgressListener) -> Self {
        Self {
            port: egress.port.as_ref().map(|port| port.number.unwrap_or_default()),
            port_of_services: egress.port_of_services(),
            hosts: EgressHosts::of(&egress.hosts),
        }
    }

    fn tells(&self, hosts: &[Host], namespace: &str, client: &Client) -> bool {
        let hosts = hosts.iter().map(Host::as_str);
        self.hosts.has_virtual_service(hosts, namespace, &client.namespace)
    }
}

impl Kept {
    fn of(object: Sidecar) -> Self {
        let mut listeners = object.spec.egress.iter().map(Listener::of).collect::<Vec<_>>();
        if listeners.is_empty() {
            let hosts = EgressHosts::everything();
            listeners.push(Listener { port: None, port_of_services: None, hosts });
        }
        Self { object, listeners }
    }

    fn selector(&self) -> Option<&BTreeMap<String, String>> {
        self.object.spec.workload_selector.as_ref().map(|own| &own.labels)
    }

    fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        let carries = |(key, value): (&String, &String)| labels.get(key) == Some(value);
        self.selector().is_none_or(|selector| selector.iter().all(carries))
    }

    /// The namespaces of which it shows something.
    fn shown(&self) -> BTreeSet<&str> {
        let hosts = self.listeners.iter().map(|listener| &listener.hosts);
        let every = |hosts: &EgressHosts| hosts.is_everywhere().then_some("*");
        hosts.flat_map(|hosts| hosts.namespaces().chain(every(hosts))).collect()
    }
}

impl Sidecars {
    pub(super) fn apply(&mut self, object: Sidecar) {
        let (namespace, name) = (object.metadata.namespace.clone(), object.metadata.name.clone());
        self.delete(&namespace, &name);
        let kept = Arc::new(Kept::of(object));
        self.objects.insert(&namespace, &name, Arc::clone(&kept));
        for shown in kept.shown() {
            let showing = self.showing.entry(shown.to_owned()).or_default();
            showing.insert((namespace.clone(), name.clone()));
        }
        let own = self.by_namespace.entry(namespace).or_default();
        own.push(kept);
        own.sort_by(|a, b| {
            let key = |kept: &Kept| kept.selector().is_none();
            let age = a.object.metadata.by_age().cmp(&b.object.metadata.by_age());
            key(a).cmp(&key(b)).then(age)
        });
    }

    pub(super) fn delete(&mut self, namespace: &str, name: &str) {
        let Some(old) = self.objects.remove(namespace, name) else { return };
        for shown in old.shown() {
            let Some(showing) = self.showing.get_mut(shown) else { continue };
            showing.remove(&(namespace.to_owned(), name.to_owned()));
            if showing.is_empty() {
                self.showing.remove(shown);
            }
        }
        let Some(own) = self.by_namespace.get_mut(namespace) else { return };
        own.retain(|kept| kept.object.metadata.name != name);
        if own.is_empty() {
            self.by_namespace.remove(namespace);
        }
    }

    pub(super) fn names(&self) -> Vec<(String, String)> {
        self.objects.names()
    }

    /// Those of a namespace, in no order.
    pub(super) fn of_namespace(&self, namespace: &str) -> impl Iterator<Item = &Sidecar> {
        self.objects.of_namespace(namespace).map(|(_, kept)| &kept.object)
    }
}

/// What a client's Sidecar shows it of the VirtualServices for one host.
#[derive(Debug)]
pub(super) struct Shown<'a> {
    /// Those of its listeners that requests for the host arrive at.
    listeners: Vec<&'a Listener>,
    client: &'a str,
}

impl Shown<'_> {
    pub(super) fn has(&self, kept: &Bound<'_>) -> bool {
        let has = |own: &&Listener| {
            let hosts = kept.binding.hosts().map(Host::as_str);
            own.hosts.has_virtual_service(hosts, kept.namespace, self.client)
        };
        self.listeners.iter().any(has)
    }
}

impl World {
    /// Whether there is any Sidecar.
    pub fn has_sidecars(&self) -> bool {
        !self.sidecars.by_namespace.is_empty()
    }

    /// The Sidecar that says what `client` is told about: in its namespace the first that selects it, those with a
    /// `workloadSelector` before those without, the older ones first; else the root namespace's without one. A gateway is told
    /// about everything, and so is a waypoint.
    ///
    /// Source: `pilot/pkg/model/push_context.go` `initSidecarScopes`, `doGetSidecarScope`.
    pub fn sidecar(&self, client: &Client) -> Option<&Sidecar> {
        self.kept_sidecar(client).map(|kept| &kept.object)
    }

    fn kept_sidecar(&self, client: &Client) -> Option<&Kept> {
        if self.sidecars.by_namespace.is_empty() || !client.is_sidecar() {
            return None;
        }
        let own = self.sidecars_in(&client.namespace).find(|kept| kept.selects(&client.labels));
        let root = self.mesh.root_namespace.as_str();
        own.or_else(|| self.sidecars_in(root).find(|kept| kept.selector().is_none()))
    }

    fn sidecars_in(&self, namespace: &str) -> impl Iterator<Item = &Kept> {
        let own = self.sidecars.by_namespace.get(namespace).into_iter().flatten().map(Arc::as_ref);
        own.filter(|kept| kept.object.metadata.is_in_revision(&self.mesh.revision))
    }

    /// The labels by which Sidecars in `namespace` select some of its pods, each once: pods with them may see something else than
    /// the others.
    pub fn sidecar_selectors(&self, namespace: &str) -> BTreeSet<&BTreeMap<String, String>> {
        self.sidecars_in(namespace).filter_map(Kept::selector).collect()
    }

    /// The namespaces with a Sidecar of their own that shows something of `namespace`; in no order that means anything.
    pub fn namespaces_shown(&self, namespace: &str) -> impl Iterator<Item = &str> {
        let showing = &self.sidecars.showing;
        let named = showing.get(namespace).into_iter().chain(showing.get("*")).flatten();
        let own = self.sidecars.by_namespace.get_key_value(namespace).map(|(own, _)| own);
        own.into_iter().chain(named.map(|(at, _)| at)).map(String::as_str)
    }

    /// What the client's Sidecar shows it of the VirtualServices for `host`; `None` where it has none, and sees what is exported
    /// to it. Without a port, listeners for different ports count together.
    ///
    /// Source: `pilot/pkg/model/sidecar.go` `GetEgressListenerForRDS`, `pilot/pkg/networking/core/httproute.go`
    /// `BuildSidecarOutboundVirtualHosts`, `pilot/pkg/networking/core/tls.go`.
    pub(super) fn shown<'a>(
        &'a self,
        host: &str,
        client: &'a Client,
        (is_http, port): (bool, Option<i64>),
    ) -> Option<Shown<'a>> {
        let kept = self.kept_sidecar(client)?;
        let host = &Host::literal(host);
        let known = self.known_as(host);
        let carries = |own: &&Listener| {
            // A host that is no service of the client's is routed on port 80 only.
            let has_80 = || known.is_empty() || known.iter().any(|host| ports(*host).contains(&80));
            let is_80 = kept.listener_of(80).is_some_and(|of_80| std::ptr::eq(of_80, *own));
            self.imports(kept, own, host, (&known, client))
                || (is_http && port.is_none_or(|port| port == 80) && is_80 && has_80())
                // What nobody here knows may be known to istiod, of another cluster.
                || known.is_empty()
        };
        let listeners = kept.listeners_of(port).into_iter().filter(carries).collect();
        Some(Shown { listeners, client: &client.namespace })
    }

    /// Whether requests of `client` to `port` of `host`, or to any of its ports, find the host itself: it is visible, and the
    /// client's Sidecar, where it has one, shows it. A destination of a VirtualService need not be shown: whoever sees that is
    /// told about its destinations.
    ///
    /// Source: `pilot/pkg/model/sidecar.go` `selectServices`, `collectImportedServices`.
    pub fn is_imported(&self, host: &Host, client: &Client, port: Option<i64>) -> bool {
        let Some(kept) = self.kept_sidecar(client) else { return self.is_visible(host, client) };
        let known = self.known_as(host);
        let mut listeners = kept.listeners_of(port).into_iter();
        known.is_empty() || listeners.any(|own| self.imports(kept, own, host, (&known, client)))
    }

    /// Whether the client's Sidecar, where it has one, shows it `object` of `namespace` and with it its destinations, whether or
    /// not it knows the hosts. Says nothing about `exportTo`.
    pub fn is_told(&self, object: &VirtualService, namespace: &str, client: &Client) -> bool {
        let Some(kept) = self.kept_sidecar(client) else { return true };
        let hosts = self.hosts_of(object, namespace);
        kept.listeners.iter().any(|own| own.tells(&hosts, namespace, client))
    }

    /// Whether a VirtualService routes requests of `client` as far as its Sidecar goes: that shows it `object` of `namespace`,
    /// and requests for one of the hosts arrive where it does. Says nothing about `exportTo`.
    pub fn shows(&self, object: &VirtualService, namespace: &str, client: &Client) -> bool {
        let Some(kept) = self.kept_sidecar(client) else { return true };
        let hosts = self.hosts_of(object, namespace);
        let telling = kept.listeners.iter().filter(|own| own.tells(&hosts, namespace, client));
        let telling = telling.collect::<Vec<_>>();
        let arrives = |host: &Host| {
            // A host may differ by case from the service that it routes.
            let shown = self.shown(&host.as_str().to_lowercase(), client, (true, None));
            let listeners = shown.into_iter().flat_map(|shown| shown.listeners);
            listeners.into_iter().any(|own| telling.iter().any(|any| std::ptr::eq(own, *any)))
        };
        !telling.is_empty() && hosts.iter().any(arrives)
    }

    fn hosts_of(&self, object: &VirtualService, namespace: &str) -> Vec<Host> {
        let hosts = object.spec.hosts.iter();
        hosts.map(|host| Host::resolve(host, namespace, &self.mesh.domain)).collect()
    }

    /// Whether the host is a service of a listener of this Sidecar, and requests to one of its ports arrive there.
    fn imports(
        &self,
        kept: &Kept,
        listener: &Listener,
        host: &Host,
        (known, client): (&[HostKind<'_>], &Client),
    ) -> bool {
        // A proxy and a socket take requests to any port.
        let takes_all = listener.port.is_some() && listener.port_of_services.is_none();
        let arrives =
            |port: &i64| kept.listener_of(*port).is_some_and(|own| std::ptr::eq(own, listener));
        known.iter().any(|&own| {
            let ports = ports(own);
            (takes_all || ports.is_empty() || ports.iter().any(arrives))
                && self.is_seen(own, client)
                && listener.hosts.has_service(host.as_str(), own.namespace(), &client.namespace)
        })
    }
}

impl Kept {
    /// The listeners that requests to this port, or to any, arrive at.
    fn listeners_of(&self, port: Option<i64>) -> Vec<&Listener> {
        match port {
            Some(port) => self.listener_of(port).into_iter().collect(),
            None => self.listeners.iter().collect(),
        }
    }

    /// The listener that requests to this port arrive at.
    fn listener_of(&self, port: i64) -> Option<&Listener> {
        self.listeners.iter().find(|own| own.port.is_none_or(|own| own == port))
    }
}

fn ports(host: HostKind<'_>) -> Vec<i64> {
    match host {
        HostKind::Service(service) | HostKind::Alias(service) => {
            service.ports.iter().map(|port| port.number).collect()
        }
        HostKind::ServiceEntry(entry) => {
            entry.spec.ports.iter().map(|port| i64::from(port.number)).collect()
        }
    }
}
