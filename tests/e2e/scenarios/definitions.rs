//! A DestinationRule is half of a route: who changes it, moves traffic.

use serde_json::{Value, json};

use super::scenarios;
use crate::harness::{App, Result, Stage, destination_rule, list, virtual_service};

scenarios![
    a_subset_under_a_live_share_stays,
    a_rule_under_a_live_share_is_not_deleted,
    a_rule_that_hides_the_subsets_from_its_clients_is_refused,
    labels_under_a_live_share_move_back_but_not_forth,
    a_deleted_route_is_warned_about,
];

fn a_subset_under_a_live_share_stays(stage: &Stage) -> Result {
    let app = App::serving(stage.namespace("stripped")?, &[("v1", 90), ("v2", 10)])?;
    let stripped = destination_rule(&["v1"]);
    app.apply(&stripped)?.refused(&["subset-in-use", "10 % to reviews/v2"])?;
    // Without a share it may go, at once: what the gate has not heard of yet is read before anybody is refused.
    app.apply(&virtual_service(&[("v1", 100), ("v2", 0)]))?.succeeded()?;
    app.apply(&stripped)?.succeeded()?;
    Ok(())
}

fn a_rule_under_a_live_share_is_not_deleted(stage: &Stage) -> Result {
    let app = App::serving(stage.namespace("rule-deleted")?, &[("v1", 90), ("v2", 10)])?;
    let rule = ["delete", "destinationrules.networking.istio.io", "reviews"];
    app.kubectl.run(&rule)?.refused(&["subset-in-use", "gives v1 and v2 no share"])?;
    app.kubectl.run(&["delete", "virtualservices.networking.istio.io", "reviews"])?.succeeded()?;
    app.kubectl.run(&rule)?.succeeded()?;
    Ok(())
}

fn a_rule_that_hides_the_subsets_from_its_clients_is_refused(stage: &Stage) -> Result {
    let app = App::serving(stage.namespace("shadowed")?, &[("v1", 90), ("v2", 10)])?;
    let tuning = |subsets: &[&str]| {
        let mut rule = destination_rule(subsets);
        rule["metadata"]["name"] = "tuning".into();
        rule["spec"]["host"] = "reviews.shadowed.svc.cluster.local".into();
        rule["spec"]["trafficPolicy"] =
            json!({ "connectionPool": { "tcp": { "maxConnections": 10 } } });
        rule
    };
    let empty = stage.namespace("shadow-without-clients")?;
    empty.apply(&tuning(&[]))?.warned(&["subset-in-use", "shadow-without-clients"])?;
    let clients = App::deploy(stage.namespace("shadow")?, &["v1"])?;
    let refused = clients.apply(&tuning(&[]))?;
    refused.refused(&["subset-in-use", "clients in namespace shadow", "shadow/tuning"])?;
    clients.apply(&tuning(&["v1", "v2"]))?.succeeded()?;
    app.must_store("v1=90 v2=10")
}

/// Subset `stable` and the version that it stands for.
fn stable(version: &str) -> Value {
    let mut rule = destination_rule(&["stable"]);
    rule["spec"]["subsets"][0]["labels"]["version"] = version.into();
    rule
}

fn labels_under_a_live_share_move_back_but_not_forth(stage: &Stage) -> Result {
    let app = App::deploy(stage.namespace("relabelled")?, &["v1", "v2"])?;
    app.apply(&list(&[stable("v2"), virtual_service(&[("stable", 100)])]))?.succeeded()?;
    app.settle();
    app.apply(&stable("v1"))?.warned(&["subset-in-use", "taken as a rollback"])?;
    app.settle();
    // Whoever takes the last write back is not held up either.
    app.apply(&stable("v2"))?.warned(&["subset-in-use", "because it went to them until"])?;

    let app = App::deploy(stage.namespace("relabelled-forth")?, &["v1", "v2"])?;
    app.apply(&list(&[stable("v1"), virtual_service(&[("stable", 100)])]))?.succeeded()?;
    app.settle();
    let refused = app.apply(&stable("v2"))?;
    refused.refused(&["subset-in-use", "version=v2 would go from 0 % to 100 %"])?;
    Ok(())
}

fn a_deleted_route_is_warned_about(stage: &Stage) -> Result {
    let app = App::serving(stage.namespace("warned")?, &[("v1", 100)])?;
    let answer = app.kubectl.run(&["delete", "virtualservices.networking.istio.io", "reviews"])?;
    answer.warned(&["vs-in-use", "its requests go to all ready pods"])?;
    Ok(())
}
