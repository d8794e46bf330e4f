//! What the chart registers is what the manual shows.

use serde_json::{Value, json};

use crate::harness::{Result, manual};
use crate::helm::{HELMS, one};
use crate::stage::Stage;
use crate::{Scenario, scenario};

pub(crate) fn all() -> Vec<Scenario> {
    vec![
        scenario("the_webhook_configuration_is_that_of_the_manual", is_that_of_the_manual),
        scenario("own_namespaces_stay_out_whatever_the_selector_says", own_namespaces_stay_out),
        scenario("the_accounts_of_the_policy_are_those_of_the_webhook", accounts_are_those),
        scenario("the_api_server_compiles_conditions_of_every_form", conditions_compile),
    ]
}

fn rendered(arguments: &[&str]) -> Result<Value> {
    let objects = HELMS[1].objects(arguments)?;
    one(&objects, "ValidatingWebhookConfiguration", "sluicegate").cloned()
}

/// Apart from labels: and nobody but the gate writes caBundle.
fn is_that_of_the_manual(_: &Stage) -> Result {
    let mut manual: Value = serde_saphyr::from_str(manual("ValidatingWebhookConfiguration")?)?;
    for webhook in manual["webhooks"].as_array_mut().into_iter().flatten() {
        webhook["clientConfig"].as_object_mut().ok_or("clientConfig")?.remove("caBundle");
    }
    let mut own = rendered(&[])?;
    own["metadata"] = json!({ "name": own["metadata"]["name"] });
    if own == manual {
        return Ok(());
    }
    let pretty = |value: &Value| serde_json::to_string_pretty(value);
    Err(format!("rendered:\n{}\nin docs/webhook.md:\n{}", pretty(&own)?, pretty(&manual)?).into())
}

fn own_namespaces_stay_out(_: &Stage) -> Result {
    let selector = r#"webhook.namespaceSelector={"matchExpressions":[{"key":"kubernetes.io/metadata.name","operator":"Exists"}]}"#;
    let own = rendered(&["--set-json", selector])?;
    for webhook in own["webhooks"].as_array().ok_or("webhooks")? {
        let expressions = webhook["namespaceSelector"]["matchExpressions"].as_array();
        let forced = json!({
            "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["sluicegate-system", "kube-system"],
        });
        if expressions.is_none_or(|all| all.len() != 2 || !all.contains(&forced)) {
            return Err(format!("{}", webhook["namespaceSelector"]).into());
        }
    }
    Ok(())
}

/// An account that the policy takes for a controller's is let in by the entry for controllers, and by no other.
fn accounts_are_those(_: &Stage) -> Result {
    let accounts = r#"policy.controllers={"flagger":["system:serviceaccount:mesh:flagger","*:flagger-*"],"argoRollouts":["system:serviceaccount:argo-*","*:rollouts","*any*"]}"#;
    let own = rendered(&["--set-json", accounts])?;
    let expression = |at: usize| {
        let conditions = own["webhooks"][at]["matchConditions"].as_array();
        let named = conditions.into_iter().flatten().map(|own| &own["expression"]);
        named.filter_map(Value::as_str).find(|text| text.contains("username")).map(str::to_owned)
    };
    let user = "request.userInfo.username";
    let controllers = format!(
        r#"{user} in ["system:serviceaccount:mesh:flagger"] || {user}.contains(":flagger-") || {user}.startsWith("system:serviceaccount:argo-") || {user}.endsWith(":rollouts") || {user}.contains("any")"#
    );
    let people = format!("!({controllers})");
    if expression(1).as_ref() != Some(&controllers) || expression(0).as_ref() != Some(&people) {
        return Err(format!("{:?}\n{:?}", expression(0), expression(1)).into());
    }
    Ok(())
}

/// What is no expression is refused here already: the API server compiles what it is given.
fn conditions_compile(stage: &Stage) -> Result {
    let forms = [
        r#"policy.controllers={"flagger":[],"argoRollouts":[]}"#,
        r#"policy.controllers={"flagger":["*"],"argoRollouts":["*:a\"b\\c","d'*"]}"#,
        r#"webhook.matchConditions=[{"name":"not-me","expression":"request.userInfo.username != 'me'"}]"#,
    ];
    for form in forms {
        let own = rendered(&["--set-json", form])?;
        let admin = stage.plane()?.admin();
        admin.apply_with(&["--dry-run=server"], &own)?.succeeded()?;
    }
    let broken = rendered(&[
        "--set-json",
        r#"webhook.matchConditions=[{"name":"broken","expression":"request.nobody =="}]"#,
    ])?;
    let answer = stage.plane()?.admin().apply_with(&["--dry-run=server"], &broken)?;
    if answer.is_success() { Err("it takes everything".into()) } else { Ok(()) }
}
