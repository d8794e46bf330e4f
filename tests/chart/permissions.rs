//! What the chart grants is what the manual lists and the program uses, and not a word more.

use std::collections::BTreeSet;

use serde_json::Value;
use sluicegate::cluster;

use crate::harness::{Result, manual, manuals};
use crate::helm::{HELMS, name, one};
use crate::stage::Stage;
use crate::{Scenario, scenario};

pub(crate) fn all() -> Vec<Scenario> {
    vec![
        scenario("the_cluster_role_is_that_of_the_manual_and_of_the_program", what_verdicts_need),
        scenario("the_roles_are_those_of_the_manual", roles_are_those_of_the_manual),
        scenario("the_roles_of_the_hook_and_the_test_are_those_of_the_manual", roles_of_the_hooks),
        scenario("every_permission_of_the_chart", every_permission),
        scenario("only_reading_has_no_names", only_reading_has_no_names),
        scenario("every_role_is_bound_to_an_account_that_is_there", bindings_fit),
    ]
}

/// A permission in words: `verb resource.group name`, and of a Role its namespace.
fn permissions(role: &Value) -> BTreeSet<String> {
    let words = |value: &Value| {
        let all = value.as_array().into_iter().flatten();
        all.map(|word| word.as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let mut found = BTreeSet::new();
    for rule in role["rules"].as_array().into_iter().flatten() {
        let mut names = words(&rule["resourceNames"]);
        if names.is_empty() {
            names.push("*".to_owned());
        }
        for group in words(&rule["apiGroups"]) {
            for resource in words(&rule["resources"]) {
                for verb in words(&rule["verbs"]) {
                    let what = format!("{verb} {resource}.{group}");
                    found.extend(names.iter().map(|name| format!("{what} {name}")));
                }
            }
        }
    }
    found
}

fn same(what: &str, left: &BTreeSet<String>, right: &BTreeSet<String>) -> Result {
    let only =
        |a: &BTreeSet<String>, b: &BTreeSet<String>| a.difference(b).cloned().collect::<Vec<_>>();
    if left == right {
        return Ok(());
    }
    Err(format!("{what}: only here {:?}, only there {:?}", only(left, right), only(right, left))
        .into())
}

/// The permissions of all roles of a kind that belong to one of these components, as `namespace: permission`.
fn of_components(objects: &[Value], kind: &str, components: &[&str]) -> BTreeSet<String> {
    let is_ours = |own: &&Value| {
        let component = &own["metadata"]["labels"]["app.kubernetes.io/component"];
        own["kind"] == kind && components.iter().any(|own| component == own)
    };
    objects.iter().filter(is_ours).flat_map(placed).collect()
}

/// Permissions with the namespace in which they hold.
fn placed(role: &Value) -> Vec<String> {
    let namespace = role["metadata"]["namespace"].as_str().unwrap_or("everywhere").to_owned();
    permissions(role).into_iter().map(|own| format!("{namespace}: {own}")).collect()
}

/// The manual's ClusterRole is that of the verdicts together with what certificates of the gate's own need.
fn what_verdicts_need(_: &Stage) -> Result {
    let objects = HELMS[1].objects(&["--set", "mesh.configAccess=None"])?;
    let documented: Value = serde_saphyr::from_str(manual("ClusterRole")?)?;
    let granted = of_components(&objects, "ClusterRole", &["gate"]);
    same("the chart and docs/webhook.md", &granted, &placed(&documented).into_iter().collect())?;
    let granted = permissions(one(&objects, "ClusterRole", "sluicegate")?);
    let used = cluster::RESOURCES.iter().flat_map(|own| {
        ["get", "list", "watch"].map(|verb| format!("{verb} {}.{} *", own.plural, own.group))
    });
    same("the chart and cluster::RESOURCES", &granted, &used.collect())
}

/// The manual shows Roles of the gate's namespace and of istiod's; together the chart has the same.
fn roles_are_those_of_the_manual(_: &Stage) -> Result {
    let objects = HELMS[1].objects(&["--set", "mesh.configAccess=Namespace"])?;
    let mut documented = BTreeSet::new();
    for text in manuals("Role") {
        documented.extend(placed(&serde_saphyr::from_str(text)?));
    }
    same("the chart and docs/webhook.md", &of_components(&objects, "Role", &["gate"]), &documented)
}

/// The manual has one role for the hook and the test, the chart one for each.
fn roles_of_the_hooks(_: &Stage) -> Result {
    let objects = HELMS[1].objects(&[])?;
    let role = manuals("ClusterRole").find(|text| text.contains("sluicegate-hooks"));
    let documented = permissions(&serde_saphyr::from_str(role.ok_or("sluicegate-hooks")?)?);
    let hooks = ["self-test", "unregister"];
    let granted = of_components(&objects, "ClusterRole", &hooks).into_iter();
    let granted = granted.chain(of_components(&objects, "Role", &hooks));
    let granted = granted.filter_map(|own| Some(own.split_once(": ")?.1.to_owned()));
    same("the chart and docs/webhook.md", &granted.collect(), &documented)
}

/// The whole list for the defaults, so that a new permission is seen in a review.
fn every_permission(_: &Stage) -> Result {
    let objects = HELMS[1].objects(&[])?;
    let mut granted = BTreeSet::new();
    for object in &objects {
        let is_role = object["kind"] == "Role" || object["kind"] == "ClusterRole";
        // That one has a test of its own.
        if is_role && name(object) != "ClusterRole sluicegate" {
            granted.extend(
                permissions(object).into_iter().map(|own| format!("{}: {own}", name(object))),
            );
        }
    }
    let wanted = [
        "ClusterRole sluicegate-certs: get validatingwebhookconfigurations.admissionregistration.k8s.io sluicegate",
        "ClusterRole sluicegate-certs: list validatingwebhookconfigurations.admissionregistration.k8s.io sluicegate",
        "ClusterRole sluicegate-certs: patch validatingwebhookconfigurations.admissionregistration.k8s.io sluicegate",
        "ClusterRole sluicegate-certs: watch validatingwebhookconfigurations.admissionregistration.k8s.io sluicegate",
        "ClusterRole sluicegate-mesh-config: get configmaps. istio",
        "ClusterRole sluicegate-self-test: get validatingwebhookconfigurations.admissionregistration.k8s.io sluicegate",
        "ClusterRole sluicegate-unregister: delete validatingwebhookconfigurations.admissionregistration.k8s.io sluicegate",
        "Role sluicegate-certs: create leases.coordination.k8s.io *",
        "Role sluicegate-certs: create secrets. *",
        "Role sluicegate-certs: get leases.coordination.k8s.io sluicegate-certs",
        "Role sluicegate-certs: get secrets. sluicegate-certs",
        "Role sluicegate-certs: list secrets. sluicegate-certs",
        "Role sluicegate-certs: update leases.coordination.k8s.io sluicegate-certs",
        "Role sluicegate-certs: update secrets. sluicegate-certs",
        "Role sluicegate-certs: watch secrets. sluicegate-certs",
        "Role sluicegate-self-test: get services. sluicegate",
        "Role sluicegate: create configmaps. *",
        "Role sluicegate: create leases.coordination.k8s.io *",
        "Role sluicegate: get configmaps. sluicegate",
        "Role sluicegate: get leases.coordination.k8s.io sluicegate",
        "Role sluicegate: update configmaps. sluicegate",
        "Role sluicegate: update leases.coordination.k8s.io sluicegate",
    ];
    same("the chart and this test", &granted, &wanted.map(str::to_owned).into())
}

/// Whatever changes something is held to objects by name; `create` cannot be, and is held to one namespace.
fn only_reading_has_no_names(_: &Stage) -> Result {
    for (_, file) in crate::helm::ci_values()? {
        for object in HELMS[1].objects(&["--values", &file])? {
            for own in permissions(&object) {
                let verb = own.split(' ').next().unwrap_or_default();
                let may_lack_names = ["get", "list", "watch"].contains(&verb)
                    || (verb == "create" && object["kind"] == "Role");
                if own.contains('*') && !(may_lack_names && own.ends_with(" *")) {
                    return Err(format!("{file}: {}: {own}", name(&object)).into());
                }
            }
        }
    }
    Ok(())
}

fn bindings_fit(_: &Stage) -> Result {
    for (_, file) in crate::helm::ci_values()? {
        let objects = HELMS[1].objects(&["--values", &file])?;
        let has = |kind: &Value, name: &Value| {
            objects.iter().any(|own| &own["kind"] == kind && &own["metadata"]["name"] == name)
        };
        for object in &objects {
            let kind = object["kind"].as_str().unwrap_or_default();
            if !kind.ends_with("RoleBinding") {
                continue;
            }
            let role = &object["roleRef"];
            let subject = &object["subjects"][0];
            let is_foreign = subject["name"] == "somebody-elses";
            if !has(&role["kind"], &role["name"])
                || (!has(&"ServiceAccount".into(), &subject["name"]) && !is_foreign)
            {
                return Err(format!("{file}: {} leads nowhere: {object}", name(object)).into());
            }
        }
    }
    Ok(())
}
