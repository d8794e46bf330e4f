use hyper::StatusCode;
use kube::core::DynamicObject;
use kube::core::admission::AdmissionReview;
use serde_json::{Value, json};

use crate::harness::{config, harmless, is_virtual_service, split, start, typo, update};

#[tokio::test]
async fn the_typo_is_denied_in_words_that_kubes_types_understand() {
    let server = start(config()).await;
    assert!(is_virtual_service(&split(99, 1)));
    let sent = serde_json::from_slice::<AdmissionReview<DynamicObject>>(&typo()).expect("a review");
    let asked = sent.request.expect("a request");

    let answer = server.client.review(typo()).await;
    assert_eq!(answer.code, StatusCode::OK, "{}", answer.text());
    assert_eq!(answer.headers["content-type"], "application/json");
    let review = serde_json::from_slice::<AdmissionReview<DynamicObject>>(&answer.body)
        .unwrap_or_else(|error| panic!("{error}: {}", answer.text()));
    assert_eq!(review.types.api_version, "admission.k8s.io/v1");
    assert_eq!(review.types.kind, "AdmissionReview");
    assert!(review.request.is_none(), "only the response goes back");
    let response = review.response.expect("a response");
    assert_eq!(response.uid, asked.uid);
    assert!(!response.allowed);
    assert_eq!(response.result.code, 403);
    assert_eq!(response.result.reason, "Forbidden");
    let message = &response.result.message;
    assert!(message.starts_with("canary-step: spec.http[0]"), "{message}");
    assert!(message.contains("99 %"), "{message}");
    assert!(message.lines().all(|line| !line.trim().is_empty()), "{message}");
    assert_eq!(response.audit_annotations["verdict"], "deny");
    assert_eq!(response.audit_annotations["basis"], "rules");
    assert!(response.audit_annotations["rules"].contains("canary-step"));
}

#[tokio::test]
async fn a_lowering_passes() {
    let server = start(config()).await;
    let answer = server.client.review(harmless()).await;
    let review = serde_json::from_slice::<AdmissionReview<DynamicObject>>(&answer.body)
        .unwrap_or_else(|error| panic!("{error}: {}", answer.text()));
    let response = review.response.expect("a response");
    assert!(response.allowed);
    assert_eq!(response.audit_annotations["verdict"], "allow");
    assert_eq!(response.audit_annotations["basis"], "lowering");
}

#[tokio::test]
async fn warnings_are_single_short_lines() {
    // The sum was wrong before and stays wrong: told, not refused. The host is long, so the text has to be cut.
    let long = |timeout: &str, mut object: Value| {
        let host = format!("{}.example.com", ["reviews"; 25].join("."));
        object["spec"]["hosts"] = json!([host]);
        object["spec"]["http"][0]["timeout"] = json!(timeout);
        for destination in object["spec"]["http"][0]["route"].as_array_mut().expect("a route") {
            destination["destination"]["host"] = json!(host);
        }
        object
    };
    let body = update(&long("1s", split(50, 40)), &long("2s", split(50, 40)));
    let server = start(config()).await;
    let answer = server.client.review(body.to_string()).await.json();
    assert_eq!(answer["response"]["allowed"], true, "{answer}");
    let warnings = answer["response"]["warnings"].as_array().expect("warnings");
    assert!(!warnings.is_empty());
    for warning in warnings {
        let warning = warning.as_str().expect("text");
        assert!(warning.chars().count() < 256, "{warning}");
        assert!(!warning.contains('\n'), "{warning}");
        assert!(warning.starts_with("weight-sum: "), "{warning}");
    }
    assert_eq!(answer["response"]["auditAnnotations"]["verdict"], "warn");
}

#[tokio::test]
async fn what_is_no_review_is_told_so() {
    let server = start(config()).await;
    let with = |change: fn(&mut Value)| {
        let mut review = update(&split(99, 1), &split(98, 2));
        change(&mut review);
        review.to_string()
    };
    for (body, want) in [
        (String::new(), "no admission.k8s.io/v1 AdmissionReview in JSON"),
        ("{".to_owned(), "no admission.k8s.io/v1 AdmissionReview in JSON"),
        ("[]".to_owned(), "without apiVersion and kind"),
        ("\"text\"".to_owned(), "no admission.k8s.io/v1 AdmissionReview in JSON"),
        ("[".repeat(100_000), "no admission.k8s.io/v1 AdmissionReview in JSON"),
        ("{}".to_owned(), "without apiVersion and kind"),
        (split(99, 1).to_string(), "kind \"VirtualService\""),
        (with(|review| review["apiVersion"] = json!("admission.k8s.io/v1beta1")), "v1beta1"),
        (with(|review| review["kind"] = json!("ConversionReview")), "ConversionReview"),
        (with(|review| review["kind"] = json!(["AdmissionReview"])), "AdmissionReview only"),
        (with(|review| review["request"] = Value::Null), "no request"),
        (with(|review| review["request"] = json!("x")), "invalid type"),
        (with(|review| review["request"]["uid"] = json!("")), "request.uid is missing"),
        (with(|review| review["request"]["uid"] = json!(7)), "invalid type"),
        (with(|review| review["request"]["resource"] = json!({})), "request.resource is missing"),
        (with(|review| review["request"]["operation"] = json!("CONNECT")), "\"CONNECT\""),
        (with(|review| review["request"]["operation"] = json!("create")), "\"create\""),
        (with(|review| drop(review["request"]["operation"].take())), "invalid type"),
        (with(|review| review["request"]["userInfo"]["username"] = json!([])), "invalid type"),
        (with(|review| review["request"]["dryRun"] = json!("yes")), "invalid type"),
    ] {
        let shown = body.chars().take(200).collect::<String>();
        let answer = server.client.review(body).await;
        assert_eq!(answer.code, StatusCode::BAD_REQUEST, "{shown}: {}", answer.text());
        let status = answer.json();
        assert_eq!((&status["kind"], &status["apiVersion"]), (&json!("Status"), &json!("v1")));
        assert_eq!(status["code"], 400);
        let message = status["message"].as_str().expect("a message");
        assert!(message.contains(want), "{shown}: {message}");
    }
}

#[tokio::test]
async fn broken_objects_are_verdicts_and_never_errors() {
    let server = start(config()).await;
    for new in [
        json!({}),
        json!([]),
        json!("text"),
        json!({"spec": 7}),
        json!({"spec": {"hosts": {}}}),
        json!({"metadata": [], "spec": {}}),
        json!({"spec": {"hosts": ["a"], "http": [{"route": [{"weight": "ten"}]}]}}),
        json!({"spec": {"hosts": ["a"], "http": [{"route": [{"destination": {"host": "a"}, "weight": -5}]}]}}),
        json!({"spec": {"hosts": ["a"], "http": [{"route": [{"destination": {"host": "a"}, "weight": 99999999999u64}]}]}}),
    ] {
        for old in [split(99, 1), json!(["old"]), Value::Null] {
            let body = update(&old, &new);
            let answer = server.client.review(body.to_string()).await;
            assert_eq!(answer.code, StatusCode::OK, "{body}: {}", answer.text());
            let response = &answer.json()["response"];
            assert_eq!(response["allowed"], false, "{body}: {response}");
            assert_eq!(response["status"]["code"], 403, "{body}: {response}");
        }
    }
}

#[tokio::test]
async fn a_write_without_an_object_is_refused() {
    let server = start(config()).await;
    for operation in ["CREATE", "UPDATE"] {
        let mut body = update(&split(99, 1), &Value::Null);
        body["request"]["operation"] = json!(operation);
        let answer = server.client.review(body.to_string()).await;
        assert_eq!(answer.code, StatusCode::OK);
        let response = &answer.json()["response"];
        assert_eq!(response["uid"], body["request"]["uid"]);
        assert_eq!(response["allowed"], false);
        assert_eq!(response["status"]["code"], 400);
        let message = response["status"]["message"].as_str().expect("a message");
        assert!(message.contains("request.object is missing"), "{message}");
    }
}

#[tokio::test]
async fn what_is_not_ours_passes_and_a_foreign_kind_with_a_word() {
    let server = start(config()).await;
    let of = |group: &str, resource: &str| json!({"group": group, "version": "v1", "resource": resource});
    for (field, value, is_noted) in [
        ("operation", json!("DELETE"), false),
        ("subResource", json!("status"), false),
        ("resource", of("networking.istio.io", "serviceentries"), false),
        ("resource", of("", "pods"), true),
        ("resource", of("apps", "deployments"), true),
    ] {
        let mut body = update(&split(99, 1), &split(1, 99));
        body["request"][field] = value.clone();
        let response = server.client.review(body.to_string()).await.json()["response"].take();
        assert_eq!(response["allowed"], true, "{field}: {value}: {response}");
        assert_eq!(response["auditAnnotations"]["basis"], "not-judged");
        assert_eq!(response["warnings"].is_array(), is_noted, "{field}: {value}: {response}");
    }
}

/// A write of a Canary, as an API server asks about it.
fn of_canary(old: &Value, new: &Value) -> Value {
    let mut body = update(old, new);
    let resource = json!({"group": "flagger.app", "version": "v1beta1", "resource": "canaries"});
    let kind = json!({"group": "flagger.app", "version": "v1beta1", "kind": "Canary"});
    let request = body["request"].as_object_mut().expect("a request");
    request.extend([
        ("resource".to_owned(), resource.clone()),
        ("requestResource".to_owned(), resource),
        ("kind".to_owned(), kind.clone()),
        ("requestKind".to_owned(), kind),
        ("operation".to_owned(), json!(if old.is_null() { "CREATE" } else { "UPDATE" })),
    ]);
    body
}

#[tokio::test]
async fn a_canary_that_nothing_judges_is_told_so_and_passes() {
    let server = start(config()).await;
    let analysis = json!({"interval": "1m", "threshold": 5, "stepWeight": 10, "maxWeight": 120});
    let canary = json!({"metadata": {"name": "podinfo"}, "spec": {"targetRef": {"name": "podinfo"}, "analysis": analysis}});
    let answer = server.client.review(of_canary(&Value::Null, &canary).to_string()).await.json();
    assert_eq!(answer["response"]["allowed"], true, "{answer}");
    assert_eq!(answer["response"]["auditAnnotations"]["rules"], "delivery-config");
    let warnings = answer["response"]["warnings"].as_array().expect("warnings");
    assert_eq!(warnings.len(), 2, "{answer}");
    for (warning, at) in warnings.iter().zip(["maxWeight", "metrics"]) {
        let warning = warning.as_str().expect("text");
        assert!(
            warning.starts_with(&format!("delivery-config: spec.analysis.{at}: ")),
            "{warning}"
        );
        assert!(warning.chars().count() < 256 && warning.contains("Passes without"), "{warning}");
    }
    let mut labelled = canary.clone();
    labelled["metadata"]["labels"] = json!({"team": "shop"});
    let answer = server.client.review(of_canary(&canary, &labelled).to_string()).await.json();
    assert_eq!(answer["response"]["auditAnnotations"]["basis"], "unchanged", "{answer}");
    assert!(answer["response"]["warnings"].is_null(), "{answer}");
}

#[tokio::test]
async fn a_canary_of_any_shape_passes() {
    let server = start(config()).await;
    let shapes = [
        Value::Null,
        json!({}),
        json!([]),
        json!("text"),
        json!({"spec": 7}),
        json!({"metadata": [], "spec": {}}),
        json!({"spec": {"analysis": []}}),
        json!({"spec": {"analysis": {"stepWeight": "ten", "metrics": {}}}}),
        json!({"spec": {"analysis": {"stepWeight": 1e300, "maxWeight": -1e300, "stepWeights": [99999999999u64]}}}),
    ];
    for new in &shapes {
        for old in &shapes {
            let body = of_canary(old, new);
            let answer = server.client.review(body.to_string()).await;
            assert_eq!(answer.code, StatusCode::OK, "{body}: {}", answer.text());
            assert_eq!(answer.json()["response"]["allowed"], true, "{body}");
        }
    }
}

#[tokio::test]
async fn other_paths_and_methods_are_told_so() {
    let server = start(config()).await;
    for (method, path, want) in [
        ("GET", "/validate", 405),
        ("PUT", "/validate", 405),
        ("POST", "/", 404),
        ("GET", "/metrics", 404),
        ("POST", "/validate/", 404),
    ] {
        let answer = server.client.send(method, path).await;
        assert_eq!(answer.code.as_u16(), want, "{method} {path}");
        assert!(answer.text().contains("POST /validate"), "{method} {path}: {}", answer.text());
    }
}
