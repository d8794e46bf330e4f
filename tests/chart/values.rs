//! Values that are wrong are refused, by both Helms, in words that name them.

use crate::harness::Result;
use crate::helm::HELMS;
use crate::stage::{NAMESPACE, Stage};
use crate::{Scenario, scenario};

/// What is set, and what the complaint names.
const WRONG: [(&str, &str); 34] = [
    (r#"replica=3"#, "replica"),
    (r#"replicas="three""#, "replicas"),
    (r#"replicas=0"#, "replicas"),
    (r#"image.digest="sha256:abc""#, "digest"),
    (r#"image.digest="latest""#, "digest"),
    (r#"image.tag="a b""#, "tag"),
    (r#"image.pullPolicy="Sometimes""#, "pullPolicy"),
    (r#"image.pullSecrets=["registry"]"#, "pullSecrets"),
    (r#"webhook.validate.failurePolicy="fail""#, "failurePolicy"),
    (r#"webhook.validate.timeoutSeconds=0"#, "timeoutSeconds"),
    (r#"webhook.deletions.timeoutSeconds=31"#, "timeoutSeconds"),
    (r#"webhook.failurePolicy="Fail""#, "failurePolicy"),
    (r#"webhook.namespaceSelector={"matchLabel":{"a":"b"}}"#, "matchLabel"),
    (r#"webhook.matchConditions=[{"name":"nameless"}]"#, "expression"),
    (r#"certificates.mode="selfSigned""#, "mode"),
    (r#"certificates.selfManaged.leafFor="a month""#, "leafFor"),
    (r#"gate.webhookPort=443"#, "webhookPort"),
    (r#"gate.webhookPort=70000"#, "webhookPort"),
    (r#"gate.maxInFlight=0"#, "maxInFlight"),
    (r#"gate.listenAddress="localhost""#, "listenAddress"),
    (r#"service.ipFamilyPolicy="DualStack""#, "ipFamilyPolicy"),
    (r#"podDisruptionBudget.maxUnavailable="half""#, "maxUnavailable"),
    (r#"networkPolicy.apiServerCIDRs=["10.0.0.1"]"#, "apiServerCIDRs"),
    (r#"networkPolicy.apiServerPorts=[]"#, "apiServerPorts"),
    (r#"serviceMonitor.interval="often""#, "interval"),
    (r#"mesh.configAccess="Always""#, "configAccess"),
    (r#"mesh.multiCluster="yes""#, "multiCluster"),
    (r#"runAsUser=0"#, "runAsUser"),
    (r#"policy.mode="Dry""#, "mode"),
    (r#"policy.step.max=150"#, "max"),
    (r#"policy.step.maximum=10"#, "maximum"),
    (r#"policy.rules={"canary-steps":{"action":"Warn"}}"#, "canary-steps"),
    (r#"policy.rules={"structure":{"action":"Off"}}"#, "action"),
    (r#"policy.rules={"subset-ready":{"minimum":2}}"#, "minimum"),
];

/// What may be set and looks odd.
const RIGHT: [&str; 10] = [
    r#"enabled=true"#,
    r#"global={"anything":["an umbrella","says"]}"#,
    r#"policy.precedence=10000000"#,
    r#"policy.step={"max":null,"ladder":[1,5,25,100]}"#,
    r#"policy.rules={"capacity":{"maxFactor":2.5},"weight-sum":{"total":"relative"}}"#,
    r#"podDisruptionBudget.maxUnavailable="50%""#,
    r#"updateStrategy={"maxSurge":"100%","maxUnavailable":0}"#,
    r#"priorityClassName="""#,
    r#"resources={"requests":{"cpu":1}}"#,
    r#"certificates.selfManaged={"leafFor":"1h30m","caFor":"30d"}"#,
];

pub(crate) fn all() -> Vec<Scenario> {
    let mut all = Vec::new();
    for helm in HELMS {
        let title = format!("{}_refuses_values_that_are_wrong", helm.0);
        all.push(scenario(title, move |_: &Stage| {
            let mut complaints = Vec::new();
            for (set, named) in WRONG {
                match helm.try_template(NAMESPACE, &["--set-json", set])? {
                    Ok(_) => complaints.push(format!("{set} passes")),
                    Err(said) if said.contains("schema") && said.contains(named) => {}
                    Err(said) => complaints.push(format!("{set}: {said}")),
                }
            }
            if complaints.is_empty() { Ok(()) } else { Err(complaints.join("\n").into()) }
        }));
        let title = format!("{}_takes_values_that_look_odd", helm.0);
        all.push(scenario(title, move |_: &Stage| {
            RIGHT.iter().try_for_each(|set| helm.template(&["--set-json", set]).map(drop))
        }));
    }
    all.push(scenario("the_policy_of_the_values_is_what_the_gate_reads", gate_reads_the_policy));
    all
}

/// Whatever Helm makes of numbers on the way.
fn gate_reads_the_policy(_: &Stage) -> Result {
    let set = r#"policy={"precedence":10000000,"mode":"Warn","step":{"max":12.5,"initial":0.5,"ladder":[0.5,1,100]},"rules":{"capacity":{"maxFactor":3},"subset-ready":{"minReady":2}}}"#;
    for helm in HELMS {
        for arguments in [vec![], vec!["--set-json", set]] {
            let objects = helm.objects(&arguments)?;
            let file = crate::helm::one(&objects, "ConfigMap", "sluicegate-policy")?;
            let text = file["data"]["policy.yaml"].as_str().ok_or("policy.yaml")?;
            let folder = tempfile::tempdir()?;
            let (policy, object) =
                (folder.path().join("policy.yaml"), folder.path().join("new.yaml"));
            std::fs::write(&policy, text)?;
            std::fs::write(&object, TYPO)?;
            let output = std::process::Command::new(env!("CARGO_BIN_EXE_sluicegate"))
                .args(["check", "--policy"])
                .args([&policy, &object])
                .output()?;
            // The text is broken for everyone: a policy that is read says so in its own mode.
            let wanted = if arguments.is_empty() { 1 } else { 0 };
            if output.status.code() != Some(wanted) {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                return Err(format!("{}: {said}\n{text}", output.status).into());
            }
        }
    }
    Ok(())
}

const TYPO: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec: {hosts: [reviews], http: [{}]}
";
