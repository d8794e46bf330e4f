//! Which DestinationRule a client uses: the table of Istio's quirks, and a slow literal translation of Istio's own code as oracle.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use sluicegate::istio::{
    DestinationRule, DestinationRuleSpec, Host, Metadata, Subset, Timestamp, WorkloadSelector,
    host_covers,
};
use sluicegate::world::{Client, Mesh, Object, Rules, Service, World};

/// Service reviews stands in namespace prod.
const HOST: &str = "reviews.prod.svc.cluster.local";

fn host() -> Host {
    Host::resolve(HOST, "", "cluster.local")
}

fn client(namespace: &str, app: &str) -> Client {
    let labels = match app {
        "" => BTreeMap::new(),
        app => BTreeMap::from([("app".to_owned(), app.to_owned())]),
    };
    Client { namespace: namespace.to_owned(), labels, ..Client::default() }
}

/// `created` is the second; `export_to` is split at commas and `-` is none; an empty `app` is no selector.
fn rule(
    at: &str,
    created: i64,
    host: &str,
    export_to: &str,
    app: &str,
    subsets: &str,
) -> DestinationRule {
    let (namespace, name) = at.split_once('/').expect("namespace/name");
    let words = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
    let subset = |name: String| Subset { name, ..Subset::default() };
    let mut metadata = Metadata::default();
    (metadata.name, metadata.namespace) = (name.to_owned(), namespace.to_owned());
    metadata.creation_timestamp = Some(Timestamp(created));
    DestinationRule {
        metadata,
        spec: DestinationRuleSpec {
            host: host.to_owned(),
            subsets: words(subsets)
                .into_iter()
                .filter(|name| !name.is_empty())
                .map(subset)
                .collect(),
            export_to: if export_to == "-" { Vec::new() } else { words(export_to) },
            workload_selector: (!app.is_empty())
                .then(|| WorkloadSelector { match_labels: client("", app).labels }),
            ..DestinationRuleSpec::default()
        },
    }
}

fn world(mesh: Mesh, rules: &[DestinationRule]) -> World {
    let mut world = World::empty(mesh);
    world.apply(Object::Service(Service {
        namespace: "prod".to_owned(),
        name: "reviews".to_owned(),
        ..Service::default()
    }));
    for rule in rules {
        world.apply(Object::DestinationRule(Box::new(rule.clone())));
    }
    world
}

/// The subsets that a client finds, and the rules that they come from; `none` without a rule.
fn seen(rules: Rules<'_>, client: &Client) -> String {
    let Some(found) = rules.destination_rule(&host(), client) else { return "none".to_owned() };
    let subsets = found.subsets().map(|subset| subset.name.as_str()).collect::<Vec<_>>().join(",");
    let names = found.rules().map(|rule| rule.metadata.name.as_str()).collect::<Vec<_>>().join("+");
    format!("{names}: {subsets}")
}

/// Rules in prod for the service's host, each `exportTo` (`-` for none), selector and subsets, the oldest first; then what clients
/// see: `namespace` or `namespace:app`.
type Quirk = (
    &'static str,
    &'static [(&'static str, &'static str, &'static str)],
    &'static [(&'static str, &'static str)],
);

const QUIRKS: &[Quirk] = &[
    (
        "equal sets are merged",
        &[("-", "", "v1"), ("-", "", "v2")],
        &[("prod", "a+b: v1,v2"), ("other", "a+b: v1,v2")],
    ),
    (
        "the first definition of a subset wins",
        &[("-", "", "v1,v2"), ("-", "", "v2,v3")],
        &[("prod", "a+b: v1,v2,v3")],
    ),
    (
        "omitted and * are different sets: the youngest counts alone",
        &[("-", "", "v1"), ("*", "", "v2")],
        &[("prod", "b: v2"), ("other", "b: v2")],
    ),
    (
        "* and then omitted, too",
        &[("*", "", "v1"), ("-", "", "v2")],
        &[("prod", "b: v2"), ("other", "b: v2")],
    ),
    (
        "private and then omitted, too; others see only what is public",
        &[(".", "", "v1"), ("-", "", "v2")],
        &[("prod", "b: v2"), ("other", "b: v2")],
    ),
    (
        "a wider set is merged into the narrower one and lives only there",
        &[("ns1", "", "v1"), ("ns1,ns2", "", "v2")],
        &[("ns1", "a+b: v1,v2"), ("ns2", "none"), ("prod", "none")],
    ),
    (
        "a narrower set after a wider one stands alone",
        &[("ns1,ns2", "", "v1"), ("ns1", "", "v2")],
        &[("ns1", "b: v2"), ("ns2", "a: v1")],
    ),
    (
        "of three the last entry of the list decides",
        &[("-", "", "v1"), ("*", "", "v2"), ("-", "", "v3")],
        &[("prod", "c: v3"), ("other", "c: v3")],
    ),
    (
        "a selector beside a plain rule: its pods see only its own",
        &[("-", "", "v1"), ("-", "web", "v9")],
        &[("prod:web", "b: v9"), ("prod", "a: v1"), ("prod:db", "a: v1"), ("other:web", "a: v1")],
    ),
    (
        "beside a private plain rule nobody else sees that one",
        &[(".", "", "v1"), ("-", "web", "v9")],
        &[("prod:web", "b+a: v9,v1"), ("prod", "none"), ("other:web", "none")],
    ),
    (
        "a private rule by its namespace's name is another set",
        &[("prod", "", "v1"), ("-", "web", "v9")],
        &[("prod:web", "b: v9"), ("prod", "a: v1"), ("other", "none")],
    ),
    (
        "a set with . and more is merged and stands alone as well",
        &[(".,other", "", "v1"), ("-", "web", "v9")],
        &[("prod:web", "b+a: v9,v1"), ("prod", "a: v1"), ("other", "a: v1"), ("third", "none")],
    ),
    (
        "equal selectors are merged",
        &[("-", "web", "v1"), ("-", "web", "v2")],
        &[("prod:web", "a+b: v1,v2"), ("prod", "none")],
    ),
    (
        "different selectors are not",
        &[("-", "web", "v1"), ("-", "db", "v2"), (".", "", "v3")],
        &[("prod:web", "a+c: v1,v3"), ("prod:db", "b+c: v2,v3"), ("prod", "none")],
    ),
    (
        "what is exported only elsewhere is invisible at home",
        &[("other", "", "v1")],
        &[("prod", "none"), ("other", "a: v1"), ("third", "none")],
    ),
    ("private is private", &[(".", "", "v1")], &[("prod", "a: v1"), ("other", "none")]),
];

#[test]
fn rules_of_one_namespace_are_merged_as_istio_merges_them() {
    for (statement, rules, views) in QUIRKS {
        let rules = rules.iter().enumerate().map(|(at, (export_to, app, subsets))| {
            let name = format!("prod/{}", ["a", "b", "c"][at]);
            rule(&name, i64::try_from(at).expect("small"), HOST, export_to, app, subsets)
        });
        let world = world(Mesh::default(), &rules.collect::<Vec<_>>());
        for (who, want) in *views {
            let (namespace, app) = who.split_once(':').unwrap_or((who, ""));
            let found = seen(world.rules(), &client(namespace, app));
            assert_eq!(found, *want, "{statement}: clients {who}");
        }
    }
}

#[test]
fn settings_of_the_mesh_change_what_is_seen() {
    let two = [rule("prod/a", 0, HOST, "-", "", "v1"), rule("prod/b", 1, HOST, "*", "", "v2")];
    let plain = Mesh { has_enhanced_merge: false, ..Mesh::default() };
    assert_eq!(seen(world(plain, &two).rules(), &client("other", "")), "a+b: v1,v2");

    let private =
        Mesh { default_destination_rule_export_to: vec![".".to_owned()], ..Mesh::default() };
    let world_of = |mesh: &Mesh| world(mesh.clone(), &two[..1]);
    assert_eq!(seen(world_of(&private).rules(), &client("other", "")), "none");
    assert_eq!(seen(world_of(&private).rules(), &client("prod", "")), "a: v1");

    let mut canary = two[0].clone();
    canary.metadata.labels.insert("istio.io/rev".to_owned(), "canary".to_owned());
    for (revision, want) in [("default", "none"), ("canary", "a: v1"), ("", "a: v1")] {
        let mesh = Mesh { revision: revision.to_owned(), ..Mesh::default() };
        let world = world(mesh, std::slice::from_ref(&canary));
        assert_eq!(seen(world.rules(), &client("other", "")), want, "revision {revision:?}");
    }
}

/// Istio's code, line by line and slow: `push_context.go` `setDestinationRules`, `destinationRule`, `destination_rule.go`
/// `mergeDestinationRule`, `sidecar.go` `DestinationRule`.
mod oracle {
    use super::*;

    #[derive(Clone)]
    struct Consolidated {
        export_to: BTreeSet<String>,
        rule: DestinationRule,
        from: Vec<String>,
    }

    type Index = BTreeMap<String, Vec<Consolidated>>;

    fn merge(
        index: &mut Index,
        config: &DestinationRule,
        export_to: &BTreeSet<String>,
        enhanced: bool,
    ) {
        let single = Consolidated {
            export_to: export_to.clone(),
            rule: config.clone(),
            from: vec![config.metadata.name.clone()],
        };
        let Some(list) = index.get_mut(&config.spec.host) else {
            index.insert(config.spec.host.clone(), vec![single]);
            return;
        };
        let mut append_separately = true;
        for mdr in list.iter_mut() {
            if enhanced {
                if *export_to == mdr.export_to {
                    append_separately = false;
                } else if !mdr.export_to.is_empty() && export_to.is_superset(&mdr.export_to) {
                    append_separately = true;
                } else {
                    append_separately = true;
                    continue;
                }
            }
            let (existing, incoming) =
                (&mdr.rule.spec.workload_selector, &config.spec.workload_selector);
            let both_without = existing.is_none() && incoming.is_none();
            let both_with = existing.is_some() && incoming.is_some();
            let selectors_match =
                existing.clone().unwrap_or_default() == incoming.clone().unwrap_or_default();
            if both_with && !selectors_match {
                append_separately = true;
                continue;
            }
            if both_without || (both_with && selectors_match) {
                append_separately = false;
            }
            mdr.from.push(config.metadata.name.clone());
            for subset in &config.spec.subsets {
                if mdr.rule.spec.subsets.iter().all(|own| own.name != subset.name) {
                    mdr.rule.spec.subsets.push(subset.clone());
                }
            }
        }
        if append_separately {
            list.push(single);
        }
    }

    fn most_specific<'a>(index: Option<&'a Index>, needle: &str) -> Option<&'a Vec<Consolidated>> {
        let index = index?;
        if let Some(list) = index.get(needle) {
            return Some(list);
        }
        let mut hosts = index
            .keys()
            .filter(|host| host.starts_with('*') && host_covers(host, needle))
            .collect::<Vec<_>>();
        hosts.sort_by_key(|host| (usize::MAX - host.len(), host.as_str()));
        index.get(*hosts.first()?)
    }

    pub(super) fn seen(rules: &[DestinationRule], mesh: &Mesh, client: &Client) -> String {
        let mut configs = rules.to_vec();
        configs.sort_by_key(|rule| {
            let metadata = &rule.metadata;
            let (name, namespace) = (metadata.name.clone(), metadata.namespace.clone());
            (rule.spec.workload_selector.is_none(), metadata.creation_timestamp, name, namespace)
        });
        let mut namespace_local: BTreeMap<String, Index> = BTreeMap::new();
        let mut exported: BTreeMap<String, Index> = BTreeMap::new();
        let mut root_local = Index::new();
        for config in &configs {
            let namespace = &config.metadata.namespace;
            let export_to = if config.spec.workload_selector.is_none() {
                config.spec.export_to.iter().cloned().collect::<BTreeSet<_>>()
            } else {
                BTreeSet::from([".".to_owned()])
            };
            let enhanced = mesh.has_enhanced_merge;
            if export_to.is_empty()
                || [".", "*", namespace].iter().any(|to| export_to.contains(*to))
            {
                merge(
                    namespace_local.entry(namespace.clone()).or_default(),
                    config,
                    &export_to,
                    enhanced,
                );
            }
            let private_only = if export_to.is_empty() {
                mesh.default_destination_rule_export_to.contains(&".".to_owned())
            } else {
                export_to.len() == 1 && (export_to.contains(".") || export_to.contains(namespace))
            };
            if !private_only {
                merge(exported.entry(namespace.clone()).or_default(), config, &export_to, enhanced);
            } else if *namespace == mesh.root_namespace {
                merge(&mut root_local, config, &export_to, enhanced);
            }
        }
        let from_namespace = |namespace: &str| {
            let list = most_specific(exported.get(namespace), HOST)?;
            let kept = list.iter().filter(|mdr| {
                let to = &mdr.export_to;
                to.is_empty() || to.contains("*") || to.contains(&client.namespace)
            });
            let kept = kept.cloned().collect::<Vec<_>>();
            (!kept.is_empty()).then_some(kept)
        };
        let own = if client.namespace == mesh.root_namespace {
            most_specific(Some(&root_local), HOST)
        } else {
            most_specific(namespace_local.get(&client.namespace), HOST)
        };
        let list = own.cloned().or_else(|| from_namespace("prod"));
        let list = list.or_else(|| from_namespace(&mesh.root_namespace)).unwrap_or_default();
        let mut catch_all = None;
        for mdr in &list {
            match &mdr.rule.spec.workload_selector {
                None => catch_all = Some(mdr),
                Some(selector) => {
                    if mdr.rule.metadata.namespace == client.namespace
                        && selector
                            .match_labels
                            .iter()
                            .all(|(k, v)| client.labels.get(k) == Some(v))
                    {
                        catch_all = Some(mdr);
                        break;
                    }
                }
            }
        }
        let Some(found) = catch_all else { return "none".to_owned() };
        let subsets = found.rule.spec.subsets.iter().map(|subset| subset.name.as_str());
        format!("{}: {}", found.from.join("+"), subsets.collect::<Vec<_>>().join(","))
    }
}

fn any_rule() -> impl Strategy<Value = DestinationRule> {
    let namespace = prop::sample::select(vec!["prod", "prod", "shop", "istio-system"]);
    let name = prop::sample::select(vec!["a", "b", "c", "d"]);
    let host = prop::sample::select(vec![
        HOST,
        HOST,
        HOST,
        "*.prod.svc.cluster.local",
        "*.cluster.local",
        "*",
        "ratings.prod.svc.cluster.local",
    ]);
    let export_to = prop::sample::select(vec![
        "-",
        "-",
        "*",
        ".",
        "prod",
        "shop",
        "other",
        ".,other",
        "shop,other",
        "shop,prod",
        "*,.",
    ]);
    let app = prop::sample::select(vec!["", "", "", "web", "db"]);
    let subsets = prop::sample::select(vec!["", "v1", "v2", "v1,v2", "v2,v3"]);
    (namespace, name, 0..4i64, host, export_to, app, subsets).prop_map(
        |(namespace, name, created, host, export_to, app, subsets)| {
            rule(&format!("{namespace}/{name}"), created, host, export_to, app, subsets)
        },
    )
}

/// Each namespace and name once.
fn any_rules() -> impl Strategy<Value = Vec<DestinationRule>> {
    prop::collection::vec(any_rule(), 0..8).prop_map(|rules| {
        let key =
            |rule: &DestinationRule| (rule.metadata.namespace.clone(), rule.metadata.name.clone());
        rules
            .into_iter()
            .map(|rule| (key(&rule), rule))
            .collect::<BTreeMap<_, _>>()
            .into_values()
            .collect()
    })
}

fn any_mesh() -> impl Strategy<Value = Mesh> {
    (any::<bool>(), any::<bool>()).prop_map(|(has_enhanced_merge, is_private)| Mesh {
        has_enhanced_merge,
        default_destination_rule_export_to: if is_private {
            vec![".".to_owned()]
        } else {
            Vec::new()
        },
        ..Mesh::default()
    })
}

fn clients() -> Vec<Client> {
    let namespaces = ["prod", "shop", "other", "istio-system", ""];
    let all =
        namespaces.iter().flat_map(|namespace| ["", "web", "db"].map(|app| client(namespace, app)));
    all.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn every_client_sees_what_istio_computes(rules in any_rules(), mesh in any_mesh()) {
        let world = world(mesh.clone(), &rules);
        for client in clients() {
            let (found, want) = (seen(world.rules(), &client), oracle::seen(&rules, &mesh, &client));
            prop_assert_eq!(found, want, "{:?}", client);
        }
    }

    /// The world with one rule put in, replaced or taken out answers as if it had been so from the start.
    #[test]
    fn a_changed_world_is_the_world_after_the_change(
        rules in any_rules(),
        new in any_rule(),
        is_deleted in any::<bool>(),
        mesh in any_mesh(),
    ) {
        let before = world(mesh.clone(), &rules);
        let (namespace, name) = (new.metadata.namespace.clone(), new.metadata.name.clone());
        let mut after = world(mesh, &rules);
        if is_deleted {
            after.delete(sluicegate::world::Kind::DestinationRule, &namespace, &name);
        } else {
            after.apply(Object::DestinationRule(Box::new(new.clone())));
        }
        let changed = before.with_destination_rule((!is_deleted).then_some(&new), &namespace, &name);
        for client in clients() {
            prop_assert_eq!(seen(changed.rules(), &client), seen(after.rules(), &client));
        }
        let (host, rules) = (host(), changed.rules());
        prop_assert_eq!(rules.namespaces_with_own_rules(&host), after.rules().namespaces_with_own_rules(&host));
        for namespace in ["prod", "shop", "istio-system"] {
            prop_assert_eq!(rules.selectors(&host, namespace), after.rules().selectors(&host, namespace));
        }
    }

    /// Events leave nothing behind: the same rules in another order, with others in between, answer the same.
    #[test]
    fn the_order_of_events_does_not_count(rules in any_rules(), passing in any_rules()) {
        let plain = world(Mesh::default(), &rules);
        let mut churned = world(Mesh::default(), &passing);
        for rule in &passing {
            churned.delete(sluicegate::world::Kind::DestinationRule, &rule.metadata.namespace, &rule.metadata.name);
        }
        for rule in rules.iter().rev() {
            churned.apply(Object::DestinationRule(Box::new(rule.clone())));
        }
        for client in clients() {
            prop_assert_eq!(seen(plain.rules(), &client), seen(churned.rules(), &client));
        }
    }
}
