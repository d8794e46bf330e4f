use anyhow::Context as _;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cluster;

/// The namespace of the demo's world.
pub(super) const NAMESPACE: &str = "shop";

/// The demo's world.
pub(super) const WORLD: &str = include_str!("../../../examples/world/shop.yaml");

/// The scenes, in the order in which they are played.
const SCENES: [&str; 10] = [
    include_str!("../../../examples/scenes/01-the-typo.yaml"),
    include_str!("../../../examples/scenes/02-everything-in-one-step.yaml"),
    include_str!("../../../examples/scenes/03-a-sum-of-ninety.yaml"),
    include_str!("../../../examples/scenes/04-before-the-destination-rule.yaml"),
    include_str!("../../../examples/scenes/05-pods-without-the-label.yaml"),
    include_str!("../../../examples/scenes/06-a-split-as-two-routes.yaml"),
    include_str!("../../../examples/scenes/07-a-canary-of-five.yaml"),
    include_str!("../../../examples/scenes/08-a-dark-launch.yaml"),
    include_str!("../../../examples/scenes/09-the-instant-rollback.yaml"),
    include_str!("../../../examples/scenes/10-a-first-install.yaml"),
];

/// One write and the verdict that is right for it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scene {
    /// What happens, in a few words.
    pub(super) title: String,
    /// Why it matters.
    pub(super) story: String,
    /// The object as stored; absent for a new one.
    pub(super) old: Option<Value>,
    /// The object that somebody applies.
    pub(super) new: Value,
    /// The verdict that is right.
    pub(super) expect: Expect,
    /// The rule that must speak first.
    pub(super) rule: Option<String>,
}

/// The verdict that is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Expect {
    /// The write passes.
    Admitted,
    /// The write is refused.
    Denied,
}

impl Expect {
    pub(super) fn admits(self) -> bool {
        self == Self::Admitted
    }
}

/// The scenes of `examples/`.
pub(super) fn all() -> anyhow::Result<Vec<Scene>> {
    let one = |text: &&str| {
        let document = cluster::parse("examples/scenes", text)?.pop().context("an empty scene")?;
        serde_json::from_value(document.value).context("a scene of examples/scenes")
    };
    SCENES.iter().map(one).collect()
}

impl Scene {
    /// The AdmissionReview that an API server sends for this write.
    pub(super) fn admission_review(&self, index: usize) -> Value {
        let name = self.new.pointer("/metadata/name").cloned().unwrap_or_default();
        json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": format!("00000000-0000-0000-0000-{index:012}"),
                "kind": {"group": "networking.istio.io", "version": "v1", "kind": "VirtualService"},
                "resource": {"group": "networking.istio.io", "version": "v1", "resource": "virtualservices"},
                "namespace": NAMESPACE,
                "name": name,
                "operation": if self.old.is_some() { "UPDATE" } else { "CREATE" },
                "userInfo": {"username": "jane@example.com", "groups": ["system:authenticated"]},
                "object": self.new,
                "oldObject": self.old,
                "dryRun": false,
            },
        })
    }
}
