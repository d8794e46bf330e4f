//! Pods that run and do not serve.

use std::time::Duration;

use super::scenarios;
use crate::Stage;
use crate::cluster::App;
use crate::harness::{Result, destination_rule, eventually, virtual_service};

scenarios![a_version_gets_no_traffic_before_its_pods_are_ready];

fn a_version_gets_no_traffic_before_its_pods_are_ready(stage: &Stage) -> Result {
    let app = App::deploy(stage.running()?.node.namespace("readiness")?, &["v1"])?;
    app.apply(&destination_rule(&["v1", "v2"]))?.succeeded()?;
    app.apply(&virtual_service(&[("v1", 100)]))?.succeeded()?;
    app.start("v2", false)?;
    eventually("v2 runs", Duration::from_secs(60), || Ok(!app.pods("v2")?.is_empty()))?;

    let step = virtual_service(&[("v1", 95), ("v2", 5)]);
    app.apply(&step)?.refused(&["denied the request: subset-ready: "])?;
    app.must_store("v1=100")?;
    app.set_ready("v2", true)?;
    eventually("the step passes", Duration::from_secs(30), || Ok(app.apply(&step)?.is_success()))?;

    // Whoever is not ready any more gets no more, but may lose what it has.
    app.set_ready("v2", false)?;
    let more = virtual_service(&[("v1", 90), ("v2", 10)]);
    eventually("a further step is refused", Duration::from_secs(30), || {
        let answer = app.kubectl.apply_with(&["--dry-run=server"], &more)?;
        Ok(answer.stderr().contains("denied the request: subset-ready: "))
    })?;
    app.apply(&virtual_service(&[("v1", 100)]))?.succeeded()?;
    app.must_store("v1=100")
}
