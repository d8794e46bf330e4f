//! Real requests go where the gate says they go.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluicegate::cluster;
use sluicegate::istio::Host;
use sluicegate::world::{Client, Mesh, World};

use crate::harness::Result;
use crate::judge::{Answer, Ours, Request, Taken};
use crate::platform::Running;
use crate::road::{Road, Tally};

/// Requests per split.
const REQUESTS: usize = 10_000;

/// How far from its share a count may be, in standard deviations: a run in a million is further away by chance.
const SIGMAS: f64 = 5.0;

/// How long istiod and Envoy may take to have a new service in force.
const PUSH: Duration = Duration::from_secs(20);

/// A path that only the VirtualService answers.
const PROBE: &str = "/in-force";

/// A name, the destinations of the default route, and whether testers have a route in front.
type Split = (&'static str, &'static [(&'static str, Option<u32>)], bool);

const SPLITS: &[Split] = &[
    ("ninety-nine-to-one", &[("v1", Some(99)), ("v2", Some(1))], false),
    ("one-to-ninety-nine", &[("v1", Some(1)), ("v2", Some(99))], false),
    ("sum-of-a-thousand", &[("v1", Some(950)), ("v2", Some(50))], false),
    ("one-weight-omitted", &[("v1", Some(100)), ("v2", None)], false),
    ("a-single-weight-of-ten", &[("v2", Some(10))], false),
    ("the-same-destination-twice", &[("v1", Some(50)), ("v2", Some(25)), ("v2", Some(25))], false),
    ("testers-before-a-split", &[("v1", Some(90)), ("v2", Some(10))], true),
];

pub(crate) fn goes_where_we_say(running: &Running) -> Result {
    let road = Road::open(running, "traffic", "traffic", "10.200.1.1")?;
    let mut world = World::empty(Mesh::default());
    for (name, destinations, has_testers) in SPLITS {
        let host = host(name);
        let mut objects = road.service(name, &host);
        objects.push(virtual_service(&road, name, &host, destinations, *has_testers));
        for stored in running.runtime.block_on(running.api.create_all(&objects)) {
            world.apply(cluster::object(stored?).ok_or("not read")?);
        }
    }
    for (name, ..) in SPLITS {
        wait_for(running, &road, &host(name))?;
    }
    let mut wrong = Vec::new();
    for (name, _, has_testers) in SPLITS {
        let headers: &[Option<(&str, &str)>] =
            if *has_testers { &[None, Some(("x-beta", "1"))] } else { &[None] };
        for header in headers {
            let request = Request { method: "GET", path: "/", query: None, header: *header };
            let expected = expected(&world, &road, &host(name), &request)?;
            let headers = header.iter().copied().collect::<Vec<_>>();
            let tally = running.runtime.block_on(road.send(&host(name), &headers, REQUESTS))?;
            if let Some(text) = disagreement(expected, &tally) {
                wrong.push(format!("{name} {header:?}: {text}"));
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

fn host(name: &str) -> String {
    format!("{name}.traffic.example.com")
}

fn virtual_service(
    road: &Road,
    name: &str,
    host: &str,
    destinations: &[(&str, Option<u32>)],
    has_testers: bool,
) -> Value {
    let destination = |(subset, weight): &(&str, Option<u32>)| {
        let mut entry = json!({ "destination": { "host": host, "subset": subset } });
        if let Some(weight) = weight {
            entry["weight"] = (*weight).into();
        }
        entry
    };
    let split = json!({ "route": destinations.iter().map(destination).collect::<Vec<_>>() });
    let testers = json!({
        "match": [{ "headers": { "x-beta": { "exact": "1" } } }], "route": [destination(&("v2", None))],
    });
    let probe =
        json!({ "match": [{ "uri": { "exact": PROBE } }], "directResponse": { "status": 204 } });
    let http = if has_testers { json!([probe, testers, split]) } else { json!([probe, split]) };
    road.object("VirtualService", name, json!({ "hosts": [host], "http": http }))
}

/// The share of v2 for such requests, as the gate computes it.
fn expected(world: &World, road: &Road, host: &str, request: &Request) -> Result<f64> {
    let client = Client::in_namespace("traffic");
    let host = Host::resolve(host, "traffic", "cluster.local");
    let ours = Ours { world, client: &client, port: i64::from(road.port) };
    let table = ours.table(&host).ok_or("no routes")?;
    let Taken::By(place) = ours.takes(&host, request) else {
        return Err(format!("nobody takes {request:?}").into());
    };
    match &table.entries[place].answer {
        Answer::Clusters(shares) => {
            let of_v2 = shares.0.iter().filter(|(name, _)| name.contains("|v2|"));
            Ok(of_v2.map(|(_, share)| share).sum())
        }
        Answer::Itself => Err("no destinations".into()),
    }
}

/// Until the VirtualService is in force and its destinations answer.
fn wait_for(running: &Running, road: &Road, host: &str) -> Result {
    let deadline = Instant::now() + PUSH;
    loop {
        let routed = running.runtime.block_on(road.try_one(host, PROBE)) == "204";
        let answer = running.runtime.block_on(road.try_one(host, "/"));
        if routed && (answer == "v1" || answer == "v2") {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("{host} does not answer within {PUSH:?}: {answer}").into());
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn disagreement(share: f64, tally: &Tally) -> Option<String> {
    let [v1, v2, failed] = tally.counts();
    let all = (v1 + v2 + failed) as f64;
    let bound = SIGMAS * (all * share * (1.0 - share)).sqrt();
    let is_off = failed > 0 || (v2 as f64 - all * share).abs() > bound;
    is_off.then(|| {
        format!(
            "{v2} of {all} requests to v2, {failed} failed; we say {:.2} %, so {:.0} +- {bound:.0}",
            share * 100.0,
            all * share
        )
    })
}
