use std::fs;

use sluicegate::cluster::{self, FileError};
use sluicegate::istio::Host;
use sluicegate::world::{Client, HostKind, Kind, Mesh, World};

use super::{counts, host, ready_of};

fn world(text: &str) -> World {
    let documents = cluster::parse("test.yaml", text).expect("the text is YAML");
    cluster::world(Mesh::default(), &documents, "shop")
}

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: { name: reviews }
spec: { selector: { app: reviews }, ports: [{ port: 9080, name: http }] }
---
";

#[test]
fn pods_become_endpoints_as_their_status_says() {
    for (status, want) in [
        ("{}", (1, 0)),
        ("{ phase: Running }", (1, 0)),
        ("{ phase: Running, conditions: [{ type: Ready, status: 'True' }] }", (1, 0)),
        ("{ phase: Running, conditions: [{ type: Ready, status: 'False' }] }", (0, 1)),
        ("{ phase: Running, conditions: [{ type: Initialized, status: 'False' }] }", (1, 0)),
        ("{ phase: Pending }", (0, 1)),
        ("{ phase: Succeeded }", (0, 0)),
        ("{ phase: Failed }", (0, 0)),
    ] {
        let pod = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: a, labels: {{app: reviews}}}}, status: {status}}}"
        );
        assert_eq!(
            counts(&world(&format!("{SERVICE}{pod}")), "shop", "reviews"),
            Some(want),
            "{status}"
        );
    }
    let leaving = "{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {app: reviews}, deletionTimestamp: '2026-08-01T10:00:00Z'}}";
    assert_eq!(counts(&world(&format!("{SERVICE}{leaving}")), "shop", "reviews"), Some((0, 0)));
}

#[test]
fn a_template_stands_for_its_pods() {
    for (workload, want) in [
        ("spec: { template: { metadata: { labels: { app: reviews } } } }", (1, 0)),
        ("spec: { replicas: 3, template: { metadata: { labels: { app: reviews } } } }", (3, 0)),
        ("spec: { replicas: 0, template: { metadata: { labels: { app: reviews } } } }", (0, 0)),
        ("spec: { replicas: 3, template: { metadata: { labels: { app: other } } } }", (0, 0)),
        (
            "{ spec: { replicas: 3, template: { metadata: { labels: { app: reviews } } } }, status: { readyReplicas: 2 } }",
            (2, 1),
        ),
        (
            "{ spec: { replicas: 3, template: { metadata: { labels: { app: reviews } } } }, status: { replicas: 3 } }",
            (0, 3),
        ),
        (
            "{ spec: { template: { metadata: { labels: { app: reviews } } } }, status: { desiredNumberScheduled: 4, numberReady: 3 } }",
            (3, 1),
        ),
    ] {
        let fields = cluster::parse("fields.yaml", workload).expect("YAML");
        for (api_version, kind) in [
            ("apps/v1", "Deployment"),
            ("apps/v1", "StatefulSet"),
            ("apps/v1", "DaemonSet"),
            ("apps/v1", "ReplicaSet"),
            ("argoproj.io/v1alpha1", "Rollout"),
        ] {
            let mut object = fields[0].value.clone();
            object["apiVersion"] = api_version.into();
            object["kind"] = kind.into();
            object["metadata"] = serde_json::json!({"name": "reviews"});
            let world = world(&format!("{SERVICE}{object}"));
            assert_eq!(counts(&world, "shop", "reviews"), Some(want), "{kind} {workload}");
        }
    }
}

#[test]
fn given_pods_speak_for_themselves() {
    let deployment = |name: &str, version: &str| {
        format!(
            "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: {name}}}, spec: {{replicas: 5, \
             selector: {{matchLabels: {{version: {version}}}}}, \
             template: {{metadata: {{labels: {{app: reviews, version: {version}}}}}}}}}}}\n---\n"
        )
    };
    let pod =
        "{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {app: reviews, version: v1}}}";
    let world =
        world(&format!("{SERVICE}{}{}{pod}", deployment("one", "v1"), deployment("two", "v2")));
    assert_eq!(ready_of(&world, "shop", "reviews", "v1"), 1);
    assert_eq!(ready_of(&world, "shop", "reviews", "v2"), 5);
}

#[test]
fn a_replica_set_counts_once() {
    let replica_set = |name: &str, owner: &str, version: &str| {
        format!(
            "{{apiVersion: apps/v1, kind: ReplicaSet, metadata: {{name: {name}, ownerReferences: [{{kind: {owner}, \
             name: reviews, controller: true}}]}}, spec: {{replicas: 2, \
             template: {{metadata: {{labels: {{app: reviews, version: {version}}}}}}}}}}}\n---\n"
        )
    };
    let owner = |api_version: &str, kind: &str| {
        format!(
            "{{apiVersion: {api_version}, kind: {kind}, metadata: {{name: reviews}}, spec: {{replicas: 3, \
             template: {{metadata: {{labels: {{app: reviews, version: v2}}}}}}}}}}\n---\n"
        )
    };
    let owned = replica_set("reviews-1", "Deployment", "v2");
    let with = world(&format!("{SERVICE}{owned}{}", owner("apps/v1", "Deployment")));
    assert_eq!(counts(&with, "shop", "reviews"), Some((3, 0)));
    assert_eq!(counts(&world(&format!("{SERVICE}{owned}")), "shop", "reviews"), Some((2, 0)));

    let rollout = owner("argoproj.io/v1alpha1", "Rollout");
    let halves = [replica_set("a", "Rollout", "v1"), replica_set("b", "Rollout", "v2")].concat();
    let world = world(&format!("{SERVICE}{rollout}{halves}"));
    assert_eq!(ready_of(&world, "shop", "reviews", "v1"), 2);
    assert_eq!(ready_of(&world, "shop", "reviews", "v2"), 2);
}

#[test]
fn endpoints_are_derived_only_where_kubernetes_would() {
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {app: reviews}}, status: {phase: Pending}}\n---\n";
    let slice = |endpoints: &str| {
        format!(
            "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, metadata: {{name: s, \
             labels: {{kubernetes.io/service-name: reviews}}}}, ports: [{{name: http, port: 80}}], endpoints: {endpoints}}}"
        )
    };
    for (endpoints, want) in [
        ("[]", (0, 0)),
        ("[{targetRef: {kind: Pod, name: a}}]", (1, 0)),
        (
            "[{targetRef: {kind: Pod, name: a}, conditions: {ready: true, terminating: true}}]",
            (1, 0),
        ),
        // Without a word about it one that is not ready is terminating.
        ("[{targetRef: {kind: Pod, name: a}, conditions: {ready: false}}]", (0, 0)),
        (
            "[{targetRef: {kind: Pod, name: a}, conditions: {ready: false, terminating: false}}]",
            (0, 1),
        ),
        ("[{targetRef: {kind: Pod, name: a}, conditions: {ready: null}}]", (1, 0)),
        ("[{addresses: [10.0.0.1]}]", (1, 0)),
    ] {
        let world = world(&format!("{SERVICE}{pod}{}", slice(endpoints)));
        assert_eq!(counts(&world, "shop", "reviews"), Some(want), "{endpoints}");
    }
    for (spec, want) in [
        ("{selector: {app: reviews}}", Some((0, 1))),
        ("{selector: {app: reviews}, publishNotReadyAddresses: true}", Some((1, 0))),
        ("{}", Some((0, 0))),
        ("{type: ExternalName, externalName: example.com, selector: {app: reviews}}", None),
        ("{externalName: example.com, selector: {app: reviews}}", Some((0, 1))),
    ] {
        let service =
            format!("{{apiVersion: v1, kind: Service, metadata: {{name: reviews}}, spec: {spec}}}");
        let world = world(&format!("{pod}{service}"));
        assert_eq!(counts(&world, "shop", "reviews"), want, "{spec}");
    }
}

#[test]
fn everything_counts_as_listed_and_has_a_namespace() {
    let world = world(
        "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {istio-injection: enabled}}}\n---\n\
         {apiVersion: v1, kind: Service, metadata: {name: web, namespace: front}}\n---\n\
         {apiVersion: networking.example.com/v1, kind: VirtualService, metadata: {name: other}}\n---\n\
         {apiVersion: networking.istio.io/v1alpha3, kind: VirtualService, metadata: {name: reviews}, spec: {hosts: [reviews]}}",
    );
    assert!(Kind::ALL.into_iter().all(|kind| world.knows(kind)));
    assert!(
        world.namespace_labels("shop").is_some_and(|labels| labels["istio-injection"] == "enabled")
    );
    assert!(world.service("front", "web").is_some());
    assert_eq!(world.names(Kind::VirtualService), [("shop".to_owned(), "reviews".to_owned())]);
}

#[test]
fn labels_keep_the_spelling_of_their_author() {
    let world = world(
        "apiVersion: v1
kind: Service
metadata: { name: reviews }
spec:
  selector: { app: on }
---
apiVersion: v1
kind: Pod
metadata:
  name: a
  labels:
    app: on
    version: 1.10
    build: 0777
    stable: yes
    plain: v1
    quoted: \"2.0\"
    nothing:
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: { name: reviews }
spec:
  host: reviews
  subsets:
    - name: one
      labels: { version: 1.10 }
",
    );
    assert_eq!(ready_of(&world, "shop", "reviews", "1.10"), 1);
    let subset = world
        .subset(&host("shop", "reviews"), "one", &Client::in_namespace("shop"))
        .expect("is defined");
    assert_eq!(subset.labels["version"], "1.10");
    let group = world.endpoints(&host("shop", "reviews")).expect("is a Service").groups[0].id;
    let labels = world.labels(group);
    for pair in
        [("app", "on"), ("build", "0777"), ("stable", "yes"), ("plain", "v1"), ("quoted", "2.0")]
    {
        assert!(labels.contains(&pair), "{pair:?} in {labels:?}");
    }
}

#[test]
fn a_wrong_field_does_not_cost_the_object() {
    for (object, hosts) in [
        (
            r#"{"metadata":{"name":"a","labels":7},"spec":{"hosts":["reviews"],"http":"none"}}"#,
            true,
        ),
        (
            r#"{"metadata":{"name":"a","creationTimestamp":"yesterday"},"spec":{"hosts":["reviews"]}}"#,
            true,
        ),
        (r#"{"metadata":{"name":"a"},"spec":{"hosts":["reviews",{"no":"host"}]}}"#, true),
        (r#"{"metadata":{"name":"a"},"spec":"nothing"}"#, false),
        (r#"{"metadata":{"name":7},"spec":{"hosts":["reviews"]}}"#, true),
    ] {
        let mut value: serde_json::Value = serde_json::from_str(object).expect(object);
        value["apiVersion"] = "networking.istio.io/v1".into();
        value["kind"] = "VirtualService".into();
        let world = world(&value.to_string());
        assert_eq!(world.names(Kind::VirtualService).len(), 1, "{object}");
        let client = Client::in_namespace("shop");
        let found = world.routing().virtual_services(&host("shop", "reviews"), &client);
        assert_eq!(!found.is_empty(), hosts, "{object}");
    }
}

#[test]
fn documents_come_one_by_one_with_their_lines() {
    let yaml = "# nothing yet
---
---
apiVersion: v1
kind: List
items:
  - kind: Service
    metadata: { name: a }

  - kind: ServiceList
    items:
      - { kind: Service, metadata: { name: b } }
---
null
---
kind: Pod
metadata: { name: c }
";
    let documents = cluster::parse("all.yaml", yaml).expect("is YAML");
    let found = documents.iter().map(|own| (own.value["metadata"]["name"].as_str(), own.line));
    assert_eq!(
        found.collect::<Vec<_>>(),
        [(Some("a"), Some(7)), (Some("b"), Some(12)), (Some("c"), Some(16))]
    );
    let json = r#"{"kind":"List","items":[{"kind":"Pod","metadata":{"name":"a"}}]} {"kind":"Pod","metadata":{"name":"b"}}"#;
    assert_eq!(cluster::parse("all.json", json).expect("is JSON").len(), 2);
    assert_eq!(
        cluster::parse("flow.yaml", "{kind: Pod, metadata: {name: a}}").expect("is YAML").len(),
        1
    );
    assert_eq!(cluster::parse("tabs", "{\n\t\"kind\": \"Pod\"\n}").expect("is JSON").len(), 1);
    assert_eq!(cluster::parse("empty", "").expect("is nothing"), []);
}

#[test]
fn an_error_says_where() {
    let laughs = "a: &a [x, x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]\n\
         c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b]\nd: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c, *c]\n\
         e: &e [*d, *d, *d, *d, *d, *d, *d, *d, *d, *d]\nf: &f [*e, *e, *e, *e, *e, *e, *e, *e, *e, *e]\n\
         g: [*f, *f, *f, *f, *f, *f, *f, *f, *f, *f]\n";
    for (name, text, want) in [
        ("a.yaml", "kind: Pod\nmetadata: [\n", "a.yaml:2:11: unclosed bracket"),
        ("a.yaml", "kind: Pod\nkind: Service\n", "a.yaml:2:1: duplicate"),
        ("a.yaml", "kind: Pod\n---\n- 1\n", "a.yaml:3: not an object"),
        ("a.yaml", "kind: Pod\n---\njust words\n", "a.yaml:3: not an object"),
        ("a.json", "{\"kind\": \"Pod\",\n \"kind\": \"Pod\"}", "a.json:2:"),
        ("a.json", "{\"kind\": \"Pod\"", "a.json:1:14: EOF"),
        ("a.yaml", "kind: Pod\nmetadata:\n\tname: x\n", "a.yaml:3:"),
        ("a.yaml", laughs, "a.yaml:"),
    ] {
        let error = cluster::parse(name, text).expect_err(text).to_string();
        assert!(error.starts_with(want), "{error:?} does not begin with {want:?}");
        assert_eq!(error.contains("too large"), text == laughs, "{error:?}");
        assert!(!error.contains('\n') && !error.contains(" at line "), "{error:?}");
    }
}

#[test]
fn a_directory_is_read_in_order() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let at = directory.path();
    fs::create_dir_all(at.join("b/deep")).expect("writable");
    fs::create_dir_all(at.join(".hidden")).expect("writable");
    for (name, pod) in [
        ("c.json", "c"),
        ("a.yaml", "a"),
        ("b/deep/b.yml", "b"),
        (".hidden/no.yaml", "no"),
        ("notes.txt", "no"),
    ] {
        let text = format!("{{\"kind\": \"Pod\", \"metadata\": {{\"name\": \"{pod}\"}}}}");
        fs::write(at.join(name), text).expect("writable");
    }
    let documents = cluster::load(&[at.to_owned()]).expect("is readable");
    let names = documents.iter().filter_map(|own| own.value["metadata"]["name"].as_str());
    assert_eq!(names.collect::<Vec<_>>(), ["a", "b", "c"]);
    assert!(documents[0].source.ends_with("a.yaml"));

    let error = cluster::load(&[at.join("none.yaml")]).expect_err("is not there");
    assert!(matches!(error, FileError::Read { .. }), "{error}");
    let error = cluster::load(&[at.join(".hidden/../b/deep/../../.hidden")]).map(|all| all.len());
    assert_eq!(error.ok(), Some(1), "a hidden directory that is named is read");
    fs::create_dir(at.join("empty")).expect("writable");
    let error = cluster::load(&[at.join("empty")]).expect_err("holds nothing");
    assert!(matches!(error, FileError::NoFiles { .. }), "{error}");
}

#[test]
fn an_alias_has_its_host_and_a_listed_one_its_endpoints() {
    let world = world(
        "{apiVersion: v1, kind: Service, metadata: {name: out}, spec: {type: ExternalName, externalName: a.example.com}}\n---\n\
         {apiVersion: networking.istio.io/v1beta1, kind: ServiceEntry, metadata: {name: ext}, spec: {hosts: [b.example.com], \
         resolution: STATIC, endpoints: [{address: 10.0.0.1}, {address: 10.0.0.2}]}}",
    );
    assert!(matches!(world.host(&host("shop", "out")), Some(HostKind::Alias(_))));
    let listed = Host::resolve("b.example.com", "shop", "cluster.local");
    assert_eq!(world.endpoints(&listed).map(|found| found.ready()), Some(2));
}
