//! Worlds are brought before Istio in rounds: many copies side by side, one look at every Envoy.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluicegate::cluster;
use sluicegate::world::{Client, Mesh, World as Cluster};

use crate::harness::Result;
use crate::harness::process::free_ports;
use crate::judge::{Asked, Theirs, addresses, differences};
use crate::platform::{Envoy, Mode, NAMESPACES, Proxy, Running};
use crate::world::{ROUND, WAVES, World};

/// How long istiod may take to tell all Envoys of a change.
const PUSH: Duration = Duration::from_secs(30);

/// How long Istio may go on disagreeing: pushes of different kinds do not come at once.
const PATIENCE: Duration = Duration::from_secs(4);

/// What stands before the reason in the verdict about a world that the API server does not take.
pub(crate) const NOT_STORED: &str = "not stored";

/// The clients that are asked about every world.
pub(crate) struct Court<'a> {
    running: &'a Running,
    bench: &'a Bench,
}

/// The Envoys of a run, started by the first test that asks.
pub(crate) struct Bench {
    parties: Vec<Party>,
    gateway_port: u16,
    /// As it was stored.
    gateway: Value,
    /// Copies are numbered across rounds, so that nothing of an earlier one is taken for one of them.
    next: Mutex<usize>,
    /// Whoever brings Sidecars is alone.
    fences: RwLock<()>,
}

/// Worlds that stand in the cluster.
pub(crate) struct Session<'w> {
    worlds: &'w [World],
    /// The number of the first one's copy.
    first: usize,
    pub(crate) round: String,
    /// Their objects, as they were stored.
    stored: Vec<Value>,
    /// Which of them hold something that the API server does not take, and why.
    refused: Vec<(usize, String)>,
}

struct Party {
    proxy: Proxy,
    client: Client,
    envoy: Envoy,
}

fn proxies() -> Vec<Proxy> {
    let proxy = |name, mode, namespace, app: &str, address| Proxy {
        name,
        mode,
        namespace,
        labels: BTreeMap::from([("app".to_owned(), app.to_owned())]),
        address,
    };
    vec![
        proxy("web.alpha", Mode::Sidecar, "alpha", "web", "10.200.0.1"),
        proxy("batch.alpha", Mode::Sidecar, "alpha", "batch", "10.200.0.2"),
        proxy("web.beta", Mode::Sidecar, "beta", "web", "10.200.0.3"),
        proxy("other.gamma", Mode::Sidecar, "gamma", "other", "10.200.0.4"),
        proxy("root", Mode::Sidecar, "istio-system", "other", "10.200.0.5"),
        proxy("gateway", Mode::Gateway, "ingress", "edge", "10.200.0.6"),
    ]
}

impl Bench {
    fn start(running: &Running) -> Result<Self> {
        let [gateway_port] = free_ports()?;
        let gateway = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "Gateway",
            "metadata": { "name": "edge", "namespace": "ingress" },
            "spec": {
                "selector": { "app": "edge" },
                "servers": [{ "port": { "number": gateway_port, "name": "http", "protocol": "HTTP" }, "hosts": ["*"] }],
            },
        });
        let gateway = running.runtime.block_on(running.api.create(&gateway))?;
        let start = |proxy: Proxy| -> Result<Party> {
            let envoy = Envoy::start(running.plane.sandbox(), &running.istiod, &proxy)?;
            let served = (proxy.mode == Mode::Gateway).then(|| "ingress/edge".to_owned());
            let client = Client {
                namespace: proxy.namespace.to_owned(),
                labels: proxy.labels.clone(),
                gateway: served,
                waypoint: None,
            };
            Ok(Party { proxy, client, envoy })
        };
        let parties = proxies().into_iter().map(start).collect::<Result<_>>()?;
        Ok(Self { parties, gateway_port, gateway, next: Mutex::new(1), fences: RwLock::default() })
    }
}

impl<'a> Court<'a> {
    /// The court of this run; there is one, because its namespaces and its gateway are.
    pub(crate) fn of(running: &'a Running) -> Result<Self> {
        let bench = running.bench.get_or_init(|| {
            Bench::start(running).map_err(|error| error.message().unwrap_or("failed").to_owned())
        });
        Ok(Self { running, bench: bench.as_ref()? })
    }

    /// As [`Court::judge`], with the objects of one more world beside them.
    pub(crate) fn judge_behind(&self, fence: &World, worlds: &[World]) -> Result<Vec<Vec<String>>> {
        let all = std::iter::once(fence).chain(worlds).cloned().collect::<Vec<_>>();
        let mut found = self.judge(&all)?;
        let of_fence = found.remove(0);
        match of_fence.first() {
            Some(reason) => Err(format!("of the Sidecars: {reason}").into()),
            None => Ok(found),
        }
    }

    /// For each world, what Istio does otherwise than the gate believes.
    pub(crate) fn judge(&self, worlds: &[World]) -> Result<Vec<Vec<String>>> {
        let fences = &self.bench.fences;
        let is_fenced = worlds.iter().any(World::is_fenced);
        let _alone = is_fenced.then(|| fences.write().unwrap_or_else(PoisonError::into_inner));
        let _together = (!is_fenced).then(|| fences.read().unwrap_or_else(PoisonError::into_inner));
        let session = self.open(worlds)?;
        let found = self.hear(&session, &[]);
        // Also of a round that failed: its Sidecars would be there for the others.
        self.close(&session.round)?;
        found
    }

    /// Puts worlds into the cluster and waits until every Envoy has been told of them.
    pub(crate) fn open<'w>(&self, worlds: &'w [World]) -> Result<Session<'w>> {
        let first = {
            let mut next = self.bench.next.lock().unwrap_or_else(PoisonError::into_inner);
            let first = *next;
            *next += worlds.len();
            first
        };
        let round = format!("r{first}");
        let (stored, refused) = self.apply(worlds, first, &round);
        if let Err(error) = self.wait_for(&round) {
            self.close(&round)?;
            return Err(error);
        }
        Ok(Session { worlds, first, round, stored, refused })
    }

    /// For each world, what Istio does otherwise than the gate believes, once `changed` is there, too.
    pub(crate) fn hear(
        &self,
        session: &Session<'_>,
        changed: &[Value],
    ) -> Result<Vec<Vec<String>>> {
        let mesh = &self.running.istiod.mesh;
        let cluster = self.cluster(session, mesh, changed);
        if !changed.is_empty() {
            self.running.istiod.push_all()?;
        }
        let deadline = Instant::now() + PATIENCE;
        let mut found = loop {
            let found = self.compare(session, &cluster, &self.look()?);
            if found.iter().all(Vec::is_empty) || Instant::now() > deadline {
                break found;
            }
            thread::sleep(Duration::from_millis(300));
        };
        for (at, reason) in &session.refused {
            found[*at] = vec![format!("{NOT_STORED}: {reason}")];
        }
        Ok(found)
    }

    /// Which of these settings a gate could have without differing from Istio in any of the worlds.
    pub(crate) fn unnoticed(
        &self,
        session: &Session<'_>,
        settings: &[(&'static str, Mesh)],
    ) -> Result<Vec<&'static str>> {
        let theirs = self.look()?;
        let is_unnoticed = |mesh: &Mesh| {
            let cluster = self.cluster(session, mesh, &[]);
            let mut found = self.differing(session, &cluster, &theirs);
            found.all(|(_, found)| found.is_empty())
        };
        let unnoticed = settings.iter().filter(|(_, mesh)| is_unnoticed(mesh));
        Ok(unnoticed.map(|(name, _)| *name).collect())
    }

    /// Takes the worlds of a round out again.
    pub(crate) fn close(&self, round: &str) -> Result {
        let label = format!("{ROUND}={round}");
        self.running.runtime.block_on(self.running.api.delete_all(&NAMESPACES, &label))
    }

    /// What the gate knows.
    fn cluster(&self, session: &Session<'_>, mesh: &Mesh, changed: &[Value]) -> Cluster {
        let mut cluster = Cluster::empty(mesh.clone());
        let standing = self.running.standing.iter().chain([&self.bench.gateway]);
        for object in session.stored.iter().chain(standing).chain(changed) {
            // A kind that no verdict reads tells the gate nothing.
            if let Some(object) = cluster::object(object.clone()) {
                cluster.apply(object);
            }
        }
        cluster
    }

    /// The objects as they were stored, and which worlds hold one that the API server refuses.
    fn apply(
        &self,
        worlds: &[World],
        first: usize,
        round: &str,
    ) -> (Vec<Value>, Vec<(usize, String)>) {
        let (mut stored, mut refused) = (Vec::new(), Vec::new());
        for wave in 0..WAVES {
            let copies = worlds.iter().enumerate();
            let objects = copies.flat_map(|(at, world)| {
                world.copy(first + at, round, wave).into_iter().map(move |object| (at, object))
            });
            let mut objects = objects.collect::<Vec<_>>();
            // istiod does not look again for the Pod that has an address: Pods come first, and slices last.
            objects.sort_by_key(|(_, object)| match object["kind"].as_str() {
                Some("Pod") => 0,
                Some("EndpointSlice") => 2,
                _ => 1,
            });
            let (places, objects): (Vec<_>, Vec<_>) = objects.into_iter().unzip();
            if wave > 0 && !objects.is_empty() {
                // creationTimestamp counts whole seconds.
                thread::sleep(Duration::from_millis(1010));
            }
            let answers = self.running.runtime.block_on(self.running.api.create_all(&objects));
            for (at, answer) in places.into_iter().zip(answers) {
                match answer {
                    Ok(object) => stored.push(object),
                    Err(error) => {
                        refused.push((at, error.message().unwrap_or_default().to_owned()))
                    }
                }
            }
        }
        (stored, refused)
    }

    /// Waits until every Envoy has what was written last of each kind: watches of different kinds do not wait for each other.
    fn wait_for(&self, round: &str) -> Result {
        let objects = markers(round);
        for answer in self.running.runtime.block_on(self.running.api.create_all(&objects)) {
            answer?;
        }
        let wanted = [
            format!("outbound|9080||{round}.marker.example.com"),
            format!("outbound|9080|{round}|{round}.marker.example.com"),
            format!("outbound|9080||marker-{round}.gamma.svc.{}", self.running.istiod.mesh.domain),
        ];
        self.wait_until(round, |theirs, config| {
            let seen =
                wanted.iter().all(|name| theirs.cluster(name).is_some_and(|own| own.healthy > 0));
            let table = theirs.table(config, &format!("{round}.marker.example.com"));
            seen && table
                .is_some_and(|table| table.entries.iter().any(|entry| entry.route == round))
        })?;
        let mark = self.running.istiod.push_all()?;
        self.wait_until(round, |theirs, _| {
            theirs.cluster(&wanted[0]).is_some_and(|own| own.connect_timeout >= mark)
        })
    }

    /// Waits until all Envoys look like this; the name is that of their route configuration.
    fn wait_until(&self, round: &str, is_so: impl Fn(&Theirs, &str) -> bool) -> Result {
        let deadline = Instant::now() + PUSH;
        for party in &self.bench.parties {
            loop {
                let theirs = self.running.runtime.block_on(Theirs::ask(&party.envoy))?;
                let config = match party.proxy.mode {
                    Mode::Gateway => format!("http.{}", self.bench.gateway_port),
                    _ => "9080".to_owned(),
                };
                if is_so(&theirs, &config) {
                    break;
                }
                if Instant::now() > deadline {
                    let refused = theirs.refused.join("\n");
                    let name = party.proxy.name;
                    return Err(format!(
                        "{name} was not told of {round} within {PUSH:?}\n{refused}"
                    )
                    .into());
                }
                thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    }

    /// What every Envoy has been told.
    fn look(&self) -> Result<Vec<Theirs>> {
        let look = |party: &Party| {
            let theirs = self.running.runtime.block_on(Theirs::ask(&party.envoy))?;
            match theirs.refused.first() {
                Some(reason) => {
                    let name = party.proxy.name;
                    Err(format!("{name} refuses what istiod sends: {reason}").into())
                }
                None => Ok(theirs),
            }
        };
        self.bench.parties.iter().map(look).collect()
    }

    fn compare(
        &self,
        session: &Session<'_>,
        cluster: &Cluster,
        theirs: &[Theirs],
    ) -> Vec<Vec<String>> {
        let mut found = vec![Vec::new(); session.worlds.len()];
        for (at, more) in self.differing(session, cluster, theirs) {
            found[at].extend(more);
        }
        found
    }

    /// For each client and each world, by its place, what differs; only as far as somebody asks.
    fn differing<'s>(
        &'s self,
        session: &'s Session<'_>,
        cluster: &'s Cluster,
        theirs: &'s [Theirs],
    ) -> impl Iterator<Item = (usize, Vec<String>)> + 's {
        let domain = self.running.istiod.mesh.domain.as_str();
        let addresses = addresses(&session.stored, domain);
        let parties = self.bench.parties.iter().zip(theirs);
        let worlds = move |at: usize| {
            parties.clone().map(move |(party, theirs)| (at, party, theirs)).collect::<Vec<_>>()
        };
        let all = (0..session.worlds.len()).flat_map(worlds);
        all.map(move |(at, party, theirs)| {
            let gateway_port =
                (party.proxy.mode == Mode::Gateway).then_some(self.bench.gateway_port);
            let (name, client) = (party.proxy.name, &party.client);
            let asked = Asked { name, client, domain, gateway_port, addresses: &addresses };
            let number = session.first + at;
            (at, differences(&session.worlds[at], number, cluster, &asked, theirs))
        })
    }
}

/// The last object of each kind in a round, for everybody, whatever the mesh's defaults are.
fn markers(round: &str) -> Vec<Value> {
    let labels = json!({ ROUND: round });
    let host = format!("{round}.marker.example.com");
    let metadata = |namespace: &str, name: String| json!({ "name": name, "namespace": namespace, "labels": labels });
    let istio = |kind: &str, spec: Value| {
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": kind,
            "metadata": metadata("gamma", format!("marker-{round}")), "spec": spec,
        })
    };
    let name = format!("marker-{round}");
    let mut service = metadata("gamma", name.clone());
    service["annotations"] = json!({ "networking.istio.io/exportTo": "*" });
    let mut slice_labels = labels.clone();
    slice_labels["kubernetes.io/service-name"] = name.clone().into();
    vec![
        istio(
            "ServiceEntry",
            json!({
                "hosts": [host], "exportTo": ["*"],
                "ports": [{ "number": 9080, "name": "http", "protocol": "HTTP" }],
                "resolution": "STATIC", "endpoints": [{ "address": "10.250.0.1" }],
            }),
        ),
        istio(
            "DestinationRule",
            json!({ "host": host, "exportTo": ["*"], "subsets": [{ "name": round }] }),
        ),
        istio(
            "VirtualService",
            json!({
                "hosts": [host], "exportTo": ["*"], "gateways": ["mesh", "ingress/edge"],
                "http": [{ "name": round, "route": [{ "destination": { "host": host, "subset": round } }] }],
            }),
        ),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": service,
            "spec": { "ports": [{ "name": "http", "port": 9080 }] },
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": { "name": name, "namespace": "gamma", "labels": slice_labels },
            "ports": [{ "name": "http", "port": 8080 }], "endpoints": [{ "addresses": ["10.250.0.2"] }],
        }),
    ]
}
