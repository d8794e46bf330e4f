use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::policy::{Policies, Verdict, evaluate};
use crate::server::admission;
use crate::world::{Mesh, World};

/// A host that nobody has: what is said about it moves no traffic, and no policy of somebody else's is for it.
const HOST: &str = "sluicegate-self-test";

/// A write of which everybody knows what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Example {
    /// The incident: two weights changed places.
    Typo,
    /// The way back.
    Rollback,
}

impl Example {
    pub(super) const ALL: [Self; 2] = [Self::Typo, Self::Rollback];

    /// As a person would say it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Typo => "the typo (v1 99, v2 1 becomes v1 1, v2 99)",
            Self::Rollback => "the way back (v1 1, v2 99 becomes v1 100)",
        }
    }

    pub(super) fn remedy(self) -> &'static str {
        match self {
            Self::Typo => {
                "does the gate judge by this policy already? sluicegate_policy_current says so, and its log what is wrong"
            }
            Self::Rollback => "a rollback is always admitted: look at the log of the gate",
        }
    }

    fn uid(self) -> String {
        format!("00000000-0000-4000-8000-{:012}", self as u8)
    }

    /// The AdmissionReview that an API server would send for it: a dry run, so that nothing that is merely absent is refused.
    pub(super) fn review(self, namespace: &str) -> Value {
        let (before, after) = match self {
            Self::Typo => ((99, 1), (1, 99)),
            Self::Rollback => ((1, 99), (100, 0)),
        };
        let kind =
            json!({"group": "networking.istio.io", "version": "v1", "kind": "VirtualService"});
        let resource =
            json!({"group": "networking.istio.io", "version": "v1", "resource": "virtualservices"});
        json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": self.uid(),
                "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
                "namespace": namespace,
                "name": HOST,
                "operation": "UPDATE",
                "userInfo": {"username": HOST, "groups": ["system:authenticated"]},
                "object": object(namespace, after),
                "oldObject": object(namespace, before),
                "dryRun": true,
                "options": {"apiVersion": "meta.k8s.io/v1", "kind": "UpdateOptions", "dryRun": ["All"]},
            },
        })
    }

    /// What the policy says, where the cluster holds nothing that the example names.
    pub(super) fn wanted(self, namespace: &str, policies: &Policies) -> Wanted {
        let body = self.review(namespace).to_string();
        let asked = admission::parse(body.as_bytes()).ok().and_then(|asked| asked.review);
        let review = asked.expect("what is sent here is an AdmissionReview with an object");
        let world = World::empty(Mesh::default());
        let policy = policies.in_force(&review, &world);
        let verdict = evaluate(policy, &review, &world);
        Wanted { policy: policy.name().to_owned(), verdict }
    }

    /// Compares what was answered with what the policy says; in words what was answered.
    ///
    /// # Errors
    /// Where it is another verdict, or no answer to this review.
    pub(super) fn judge(self, answer: &Value, wanted: Option<&Wanted>) -> anyhow::Result<String> {
        let response = &answer["response"];
        let is_review =
            answer["kind"] == "AdmissionReview" && answer["apiVersion"] == "admission.k8s.io/v1";
        ensure!(is_review, "answered with something that is no AdmissionReview: {answer}");
        ensure!(
            response["uid"] == self.uid(),
            "answered for uid {}, asked was {}",
            response["uid"],
            self.uid()
        );
        let allowed = response["allowed"].as_bool().context("answered without a verdict")?;
        let message = response["status"]["message"].as_str().unwrap_or_default();
        let first = message.lines().next().unwrap_or_default();
        let said = match allowed {
            true => "is admitted".to_owned(),
            false => format!("is refused: {first}"),
        };
        // A rollback passes whatever the policy, also where nobody can say what the policy is.
        let may_pass = match (self, wanted) {
            (_, Some(wanted)) => wanted.verdict.allowed(),
            (Self::Rollback, None) => true,
            (Self::Typo, None) => return Ok(format!("{} {said}", self.name())),
        };
        if allowed != may_pass {
            let whose = wanted.map_or("", |wanted| wanted.policy.as_str());
            let wants = if may_pass { "admits" } else { "refuses" };
            anyhow::bail!("{said}, and policy {whose} {wants} it");
        }
        Ok(format!("{} {said}", self.name()))
    }
}

/// What a policy says about an example.
#[derive(Debug)]
pub(super) struct Wanted {
    policy: String,
    verdict: Verdict,
}

fn object(namespace: &str, (v1, v2): (u32, u32)) -> Value {
    let to = |subset: &str, weight: u32| json!({"destination": {"host": HOST, "subset": subset}, "weight": weight});
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": HOST, "namespace": namespace},
        "spec": {"hosts": [HOST], "http": [{"route": [to("v1", v1), to("v2", v2)]}]},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;
    use crate::rules;

    fn policies(spec: Value) -> Policies {
        let policy = Policy::parse(rules::ALL, "tried", spec).expect("a policy");
        Policies::new(vec![policy], rules::ALL)
    }

    fn answer(example: Example, allowed: bool) -> Value {
        json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "response": {"uid": example.uid(), "allowed": allowed},
        })
    }

    #[test]
    fn the_policy_says_what_must_be_answered() {
        for (spec, refused) in [
            (json!({}), true),
            (json!({"mode": "Warn"}), false),
            (json!({"mode": "Audit"}), false),
            (json!({"step": {"max": 100}}), false),
            (json!({"rules": {"canary-step": {"action": "Off"}}}), false),
            (json!({"match": {"hosts": ["reviews"]}, "mode": "Audit"}), true),
        ] {
            let policies = policies(spec.clone());
            for (example, allowed) in [(Example::Typo, !refused), (Example::Rollback, true)] {
                let wanted = example.wanted("shop", &policies);
                assert_eq!(wanted.verdict.allowed(), allowed, "{spec}: {wanted:?}");
                assert!(wanted.verdict.is_decided());
                let judged = |allowed| example.judge(&answer(example, allowed), Some(&wanted));
                judged(allowed).expect("as the policy says");
                judged(!allowed).expect_err("not as the policy says");
            }
        }
    }

    #[test]
    fn an_answer_to_another_question_is_none() {
        let wanted = Example::Typo.wanted("shop", &policies(json!({})));
        let mut other = answer(Example::Rollback, false);
        Example::Typo.judge(&other, Some(&wanted)).expect_err("another uid");
        other["response"]["uid"] = Example::Typo.uid().into();
        Example::Typo.judge(&other, Some(&wanted)).expect("the right one");
        other["kind"] = "Status".into();
        Example::Typo.judge(&other, Some(&wanted)).expect_err("no AdmissionReview");
        let silent = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {"uid": Example::Typo.uid()}});
        Example::Typo.judge(&silent, Some(&wanted)).expect_err("no verdict");
    }

    #[test]
    fn without_a_policy_the_way_back_must_pass_all_the_same() {
        Example::Rollback.judge(&answer(Example::Rollback, false), None).expect_err("refused");
        for allowed in [true, false] {
            Example::Typo.judge(&answer(Example::Typo, allowed), None).expect("any verdict");
        }
    }
}
