//! Which VirtualService is in force while a delegate is written.

use serde_json::{Value, json};
use sluicegate::world::Mesh;

use super::virtual_services::{client, in_force, object, world};

/// The root is in force where its delegate leaves it a route, and the younger one where it does not.
#[test]
fn a_delegate_under_review_is_the_one_that_counts() {
    let root =
        object("prod/root", 1, "reviews", "-", json!({"http": [{"delegate": {"name": "d"}}]}));
    let next = object("prod/next", 2, "reviews", "-", json!({}));
    let stored = object("prod/d", 3, "", "-", json!({"hosts": []}));
    let world = world(Mesh::default(), &[root, next, stored]);
    let client = client("app", "");
    let with = |at: &str, export_to: &str, rest: Value| {
        let (namespace, name) = at.split_once('/').expect("namespace/name");
        let written = object(at, 3, "", export_to, rest);
        let changed = world.with_virtual_service(Some(&written), namespace, name);
        in_force(changed.routing(), &client)
    };
    let port = |port: i64| {
        let route = json!({"match": [{"port": port}], "route": [{"destination": {"host": "a"}}]});
        json!({"hosts": [], "http": [route]})
    };
    assert_eq!(in_force(world.routing(), &client), "root", "as it is stored");
    assert_eq!(with("prod/d", "-", json!({"hosts": []})), "root");
    assert_eq!(with("prod/d", "-", json!({"hosts": [], "http": []})), "next", "without a route");
    assert_eq!(with("prod/d", "-", json!({"hosts": ["x.example.com"]})), "next", "with a host");
    assert_eq!(with("prod/d", "other", json!({"hosts": []})), "next", "not for the root");
    for (own, want) in [(81, "next"), (80, "root"), (0, "root")] {
        assert_eq!(with("prod/d", "-", port(own)), want, "for port {own}");
    }
    assert_eq!(with("prod/e", "-", json!({"hosts": [], "http": []})), "root", "of another name");
    assert_eq!(
        with("other/d", "-", json!({"hosts": [], "http": []})),
        "root",
        "of another namespace"
    );
    assert_eq!(in_force(world.with_virtual_service(None, "prod", "d").routing(), &client), "next");
}
