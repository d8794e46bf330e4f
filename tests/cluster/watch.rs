use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use sluicegate::cluster::{Index, Patience, follow_with};
use sluicegate::world::{Kind, Mesh};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::api::{Answer, Api, added, end_of_list, list, until};
use super::index::service;

struct Following {
    index: Arc<Index>,
    cancel: CancellationToken,
    task: JoinHandle<bool>,
}

impl Following {
    fn start(api: &Api, kind: Kind) -> Self {
        let index = Arc::new(Index::unconnected(Mesh::default()).wanting(&[kind]));
        let cancel = CancellationToken::new();
        let patience =
            Patience { absent: Duration::from_millis(50), silence: Duration::from_millis(400) };
        let (client, own, token) = (api.client.clone(), Arc::clone(&index), cancel.clone());
        let task = tokio::spawn(async move {
            follow_with(patience, client, own, vec![kind], token).await.is_ok()
        });
        Self { index, cancel, task }
    }

    fn names(&self, kind: Kind) -> Vec<String> {
        let names = self.index.read(|world| world.names(kind));
        let mut names = names.into_iter().map(|(_, name)| name).collect::<Vec<_>>();
        names.sort();
        names
    }

    async fn until_named(&self, kind: Kind, want: &[&str]) {
        until(&format!("{want:?}"), || self.names(kind) == want && self.index.missing().is_empty())
            .await;
    }

    async fn stop(self) {
        self.cancel.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(5), self.task).await;
        assert!(matches!(ended, Ok(Ok(true))), "cancelled, the watches end");
    }
}

#[tokio::test]
async fn a_streaming_list_and_what_follows() {
    let api = Api::start(|asked| {
        assert!(asked.is_streaming_list());
        Answer::Watch(vec![
            added(&service("a", 1)),
            added(&service("b", 2)),
            end_of_list(3),
            json!({"type": "MODIFIED", "object": service("b", 4)}),
            json!({"type": "DELETED", "object": service("a", 5)}),
            added(&service("c", 6)),
        ])
    })
    .await;
    let following = Following::start(&api, Kind::Service);
    following.until_named(Kind::Service, &["b", "c"]).await;
    assert_eq!(api.asked().len(), 1);
    assert_eq!(api.asked()[0].path, "/api/v1/services");
    assert_eq!(following.index.progress(Kind::Service).failures, 0);
    following.stop().await;
}

#[tokio::test]
async fn pages_where_streaming_lists_are_not_known() {
    for code in [400, 404, 422] {
        let api = Api::start(move |asked| {
            if asked.is_streaming_list() {
                return Answer::Status(code);
            }
            if asked.has("watch") {
                return Answer::Watch(vec![added(&service("c", 10))]);
            }
            assert_eq!(asked.query["limit"], "500");
            if asked.has("continue") {
                return Answer::Json(list(&[service("b", 2)], 9));
            }
            let mut page = list(&[service("a", 1)], 9);
            page["metadata"]["continue"] = "more".into();
            Answer::Json(page)
        })
        .await;
        let following = Following::start(&api, Kind::Service);
        following.until_named(Kind::Service, &["a", "b", "c"]).await;
        assert_eq!(api.asked().len(), 4, "{code}");
        following.stop().await;
    }
}

#[tokio::test]
async fn pages_where_a_streaming_list_never_ends() {
    for is_closed in [false, true] {
        let api = Api::start(move |asked| match asked {
            asked if asked.is_streaming_list() && is_closed => {
                Answer::Brief(vec![added(&service("x", 1))])
            }
            asked if asked.is_streaming_list() => Answer::Watch(vec![added(&service("x", 1))]),
            asked if asked.has("watch") => Answer::Watch(Vec::new()),
            _ => Answer::Json(list(&[service("a", 1)], 9)),
        })
        .await;
        let following = Following::start(&api, Kind::Service);
        following.until_named(Kind::Service, &["a"]).await;
        following.stop().await;
    }
}

#[tokio::test]
async fn a_history_that_is_gone_is_listed_again() {
    let api = Api::start(|asked| match asked.before {
        0 => Answer::Watch(vec![
            added(&service("a", 1)),
            end_of_list(2),
            json!({"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1", "status": "Failure",
                "code": 410, "reason": "Expired", "message": "too old resource version"}}),
        ]),
        _ => Answer::Watch(vec![added(&service("b", 7)), end_of_list(8)]),
    })
    .await;
    let following = Following::start(&api, Kind::Service);
    following.until_named(Kind::Service, &["a"]).await;
    following.until_named(Kind::Service, &["b"]).await;
    let progress = following.index.progress(Kind::Service);
    assert_eq!((progress.lists, progress.failures), (2, 1));
    following.stop().await;
}

#[tokio::test]
async fn a_crd_may_come_later_and_in_an_older_version() {
    let is_installed = Arc::new(AtomicBool::new(false));
    let served = Arc::clone(&is_installed);
    let rule = json!({"metadata": {"namespace": "shop", "name": "reviews", "resourceVersion": "1"}, "spec": {"host": "reviews"}});
    let api = Api::start(move |asked| {
        if served.load(Ordering::SeqCst) && asked.path.contains("/v1beta1/") {
            Answer::Watch(vec![added(&rule), end_of_list(2)])
        } else {
            Answer::Status(404)
        }
    })
    .await;
    let following = Following::start(&api, Kind::DestinationRule);
    following.until_named(Kind::DestinationRule, &[]).await;
    assert!(following.index.progress(Kind::DestinationRule).is_absent);
    let paths = api.asked().iter().take(3).map(|asked| asked.path.clone()).collect::<Vec<_>>();
    let path = |version| format!("/apis/networking.istio.io/{version}/destinationrules");
    assert_eq!(paths, [path("v1"), path("v1beta1"), path("v1alpha3")]);

    is_installed.store(true, Ordering::SeqCst);
    following.until_named(Kind::DestinationRule, &["reviews"]).await;
    assert!(!following.index.progress(Kind::DestinationRule).is_absent);
    following.stop().await;
}

#[tokio::test]
async fn one_strange_object_stops_nobody() {
    let strange = |name: &str, spec: Value| json!({"metadata": {"namespace": "shop", "name": name, "resourceVersion": "1", "labels": {"a": 1}}, "spec": spec});
    let objects = [
        strange("a", json!("nothing")),
        strange("b", json!({"ports": {"port": "many"}})),
        service("c", 1),
        json!({"metadata": {"name": 7, "resourceVersion": "1"}}),
    ];
    let api = Api::start(move |asked| match asked {
        asked if asked.is_streaming_list() => Answer::Status(422),
        asked if asked.has("watch") => {
            Answer::Watch(vec![added(&strange("d", json!([1]))), added(&service("e", 11))])
        }
        _ => Answer::Json(list(&objects, 10)),
    })
    .await;
    let following = Following::start(&api, Kind::Service);
    following.until_named(Kind::Service, &["7", "a", "b", "c", "d", "e"]).await;
    assert_eq!(following.index.progress(Kind::Service).lists, 1);
    following.stop().await;
}

#[tokio::test]
async fn a_refusal_is_no_empty_list() {
    let api = Api::start(|_| Answer::Status(403)).await;
    let following = Following::start(&api, Kind::Service);
    until("a failure is counted", || following.index.progress(Kind::Service).failures > 0).await;
    assert_eq!(following.index.missing(), [Kind::Service]);
    following.stop().await;
}

/// Panics with the index in hand, as a defect in a live read would.
async fn break_lock(index: &Arc<Index>) {
    let index = Arc::clone(index);
    let judge = |_: &_| panic!("told to, by a test");
    let broken = tokio::spawn(async move { index.confirm_and_judge(&[], &judge).await });
    assert!(broken.await.expect_err("panicked").is_panic());
}

#[tokio::test]
async fn a_panic_ends_the_watches_and_in_a_quiet_cluster_too() {
    for is_quiet in [false, true] {
        // All there is to hear: one complete list.
        let api = Api::start(|_| Answer::Watch(vec![end_of_list(3)])).await;
        let index = Arc::new(Index::new(Mesh::default(), api.client.clone()));
        if !is_quiet {
            break_lock(&index).await;
        }
        let (client, own) = (api.client.clone(), Arc::clone(&index));
        let token = CancellationToken::new();
        let following = follow_with(Patience::default(), client, own, vec![Kind::Service], token);
        let following = tokio::spawn(following);
        if is_quiet {
            until("listed", || !index.missing().contains(&Kind::Service)).await;
            break_lock(&index).await;
        }
        let ended = tokio::time::timeout(Duration::from_secs(10), following).await;
        let error = ended.expect("noticed").expect("no panic").expect_err("an end").to_string();
        assert!(error.starts_with("a watch has ended: ") && error.contains("panic"), "{error}");
        assert!(error.ends_with("; start the process anew"), "{error}");
    }
}
