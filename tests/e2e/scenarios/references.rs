//! What a route names has to be there, but it may have come a moment ago.

use std::time::Duration;

use super::scenarios;
use crate::harness::{
    App, Gate, Proxy, Result, Stage, deployment, destination_rule, eventually, list, service,
    virtual_service,
};

scenarios![
    subsets_and_route_in_one_file_are_admitted,
    a_route_before_its_subsets_is_refused_where_traffic_flows,
    a_first_install_in_one_file_is_admitted,
    a_subset_is_seen_although_the_watch_is_held_back,
];

const SPLIT: &[(&str, u32)] = &[("v1", 95), ("v2", 5)];

fn subsets_and_route_in_one_file_are_admitted(stage: &Stage) -> Result {
    let app = App::deploy(stage.namespace("one-file")?, &["v1", "v2"])?;
    app.apply(&list(&[destination_rule(&["v1", "v2"]), virtual_service(SPLIT)]))?.succeeded()?;
    app.must_store("v1=95 v2=5")
}

fn a_route_before_its_subsets_is_refused_where_traffic_flows(stage: &Stage) -> Result {
    let app = App::deploy(stage.namespace("wrong-order")?, &["v1", "v2"])?;
    let objects = list(&[virtual_service(SPLIT), destination_rule(&["v1", "v2"])]);
    app.apply(&objects)?.refused(&["subset-defined"])?;
    if app.kubectl.exists("virtualservices.networking.istio.io", "reviews")? {
        return Err("refused, but stored".into());
    }
    // kubectl goes on after a refusal, so the DestinationRule is there now and the same file passes.
    app.apply(&objects)?.succeeded()?;
    app.must_store("v1=95 v2=5")
}

fn a_first_install_in_one_file_is_admitted(stage: &Stage) -> Result {
    let kubectl = stage.namespace("first-install")?;
    let route = virtual_service(SPLIT);
    let subsets = destination_rule(&["v1", "v2"]);
    // In the least convenient order, as the file names of a chart may put them.
    kubectl
        .apply(&list(&[route, subsets, service(), deployment("v1"), deployment("v2")]))?
        .succeeded()?;
    let stored = kubectl.weights("reviews")?;
    if stored == "v1=95 v2=5" { Ok(()) } else { Err(format!("stored is {stored:?}").into()) }
}

fn a_subset_is_seen_although_the_watch_is_held_back(stage: &Stage) -> Result {
    let plane = stage.plane()?;
    let proxy = Proxy::start(plane.api_port())?;
    let gate = Gate::start_through(plane, "held-back", proxy.port())?;
    gate.register(plane, "held-back")?;
    let [changed, unchanged] = ["held-back", "held-back-too"].map(|name| {
        let app = App::deploy(plane.namespace(name, Some("held-back"))?, &["v1", "v2"])?;
        app.apply(&list(&[destination_rule(&["v1"]), virtual_service(&[("v1", 100)])]))?
            .succeeded()?;
        app.settle();
        Ok::<_, libtest_mimic::Failed>(app)
    });
    let (changed, unchanged) = (changed?, unchanged?);

    proxy.hold_back();
    changed.apply(&destination_rule(&["v1", "v2"]))?.succeeded()?;
    // Without this the scenario would prove nothing: the news must have been on its way, and kept from the gate.
    eventually(
        "the proxy withholds the news",
        Duration::from_secs(5),
        || Ok(proxy.has_withheld()),
    )?;
    changed.apply(&virtual_service(SPLIT))?.succeeded()?;
    changed.must_store("v1=95 v2=5")?;

    unchanged.apply(&virtual_service(SPLIT))?.refused(&["subset-defined"])?;
    unchanged.must_store("v1=100")
}
