//! Who wrote what, as the API server's audit log tells it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::Result;
use crate::harness::sandbox::Sandbox;

/// What the API server is told to log: of the kinds that traffic depends on everything, of other writes that they happened.
pub(super) fn policy() -> Value {
    let group = |name: &str| json!({ "group": name });
    json!({
        "apiVersion": "audit.k8s.io/v1", "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            { "level": "None", "verbs": ["get", "list", "watch"] },
            { "level": "RequestResponse", "resources": [
                group("networking.istio.io"), group("flagger.app"), group("argoproj.io"),
                { "group": "", "resources": ["namespaces", "services", "services/status", "pods", "pods/status"] },
                { "group": "discovery.k8s.io", "resources": ["endpointslices"] },
                { "group": "apps", "resources": [
                    "deployments", "deployments/status", "replicasets", "statefulsets", "daemonsets",
                ]},
            ]},
            { "level": "None", "resources": [
                group("coordination.k8s.io"), group("events.k8s.io"), { "group": "", "resources": ["events"] },
            ]},
            { "level": "Metadata" },
        ],
    })
}

/// For the gate's answer to a controller, in seconds: a little less than what the manual registers.
const TIMEOUT: f64 = 1.8;

/// The audit log of one API server.
pub(crate) struct Audit {
    file: PathBuf,
}

/// A write that the API server has answered.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    /// Who wrote, as admission sees it: `system:serviceaccount:istio-system:flagger`.
    pub(crate) user: String,
    /// `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub(crate) verb: String,
    /// The group and the plural of the kind, `virtualservices.networking.istio.io`; with `/status` and the like where that was written.
    pub(crate) resource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Whether nothing was to be stored.
    pub(crate) is_dry_run: bool,
    /// The HTTP status.
    pub(crate) code: u64,
    /// What the API server said, where it did not do as it was asked.
    pub(crate) message: String,
    /// What was sent: an object, or a patch. Null for kinds of which only the fact is logged.
    pub(crate) request: Value,
    /// What was stored, or what is there instead.
    pub(crate) response: Value,
    /// Among others what the gate says of its verdicts, `validate.sluicegate.dev/verdict`.
    pub(crate) annotations: Value,
    /// When it was answered, RFC 3339 with microseconds.
    pub(crate) time: String,
}

impl Audit {
    pub(super) fn new(sandbox: &Sandbox) -> Self {
        Self { file: Self::file(sandbox.path()) }
    }

    pub(super) fn file(folder: &Path) -> PathBuf {
        folder.join("audit.jsonl")
    }

    /// Every write until now, in the order of their answers. The last may still be missing for a moment after its answer.
    pub(crate) fn writes(&self) -> Result<Vec<Write>> {
        let text = fs::read_to_string(&self.file)?;
        // The last line may be half written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(Write::parse).collect()
    }

    /// Those of one account.
    pub(crate) fn writes_of(&self, user: &str) -> Result<Vec<Write>> {
        Ok(self.writes()?.into_iter().filter(|write| write.user == user).collect())
    }

    /// Those in one namespace.
    pub(crate) fn writes_in(&self, namespace: &str) -> Result<Vec<Write>> {
        let text = fs::read_to_string(&self.file)?;
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        // The log is long, and reading all of it takes its time.
        let lines = whole.lines().filter(|line| line.contains(namespace));
        let writes = lines.map(Write::parse).collect::<Result<Vec<_>>>()?;
        Ok(writes.into_iter().filter(|write| write.namespace == namespace).collect())
    }

    /// What the gate refused.
    pub(crate) fn denials(&self) -> Result<Vec<Write>> {
        Ok(self.writes()?.into_iter().filter(Write::is_denial).collect())
    }
}

impl Write {
    fn parse(line: &str) -> Result<Self> {
        let event: Value = serde_json::from_str(line)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (target, status) = (&event["objectRef"], &event["responseStatus"]);
        let users = [&event["impersonatedUser"]["username"], &event["user"]["username"]];
        let user = users.into_iter().find(|user| user.is_string()).unwrap_or(&Value::Null);
        let mut resource = text(&target["resource"]);
        for (mark, part) in [(".", "apiGroup"), ("/", "subresource")] {
            if let Some(part) = target[part].as_str() {
                resource = [&resource, mark, part].concat();
            }
        }
        // Of an object that is created, only what was sent may say how it is called.
        let named = [&target["name"], &event["responseObject"]["metadata"]["name"]];
        Ok(Self {
            user: text(user),
            verb: text(&event["verb"]),
            resource,
            namespace: text(&target["namespace"]),
            name: named.into_iter().find_map(Value::as_str).unwrap_or_default().to_owned(),
            is_dry_run: text(&event["requestURI"]).contains("dryRun=All"),
            code: status["code"].as_u64().unwrap_or_default(),
            message: text(&status["message"]),
            request: event["requestObject"].clone(),
            response: event["responseObject"].clone(),
            annotations: event["annotations"].clone(),
            time: text(&event["stageTimestamp"]),
        })
    }

    /// Refused by the gate, which is not the same as forbidden or as not answered by it.
    pub(crate) fn is_denial(&self) -> bool {
        self.message.contains("denied the request")
    }

    /// Let through because the gate said that it cannot say, or was not there. That it got no processor for as long as the API
    /// server waits is the fault of a machine that has too much to do.
    pub(crate) fn is_left_alone(&self) -> bool {
        let Some(notes) = self.annotations.as_object() else { return false };
        let waited = &self.annotations["apiserver.latency.k8s.io/validating-webhook"];
        let waited = waited.as_str().and_then(|text| text.strip_suffix('s')?.parse::<f64>().ok());
        notes.keys().any(|key| key.starts_with("failed-open."))
            && waited.is_none_or(|seconds| seconds < TIMEOUT)
    }

    /// What the gate said, `warn driver canary-step`; empty where it was not asked, or gave no answer.
    pub(crate) fn verdict(&self) -> String {
        let said = |part: &str| {
            let own = self.annotations.as_object()?.iter().find(|(key, _)| {
                key.strip_suffix(part).is_some_and(|webhook| webhook.ends_with(".sluicegate.dev/"))
            });
            own.and_then(|(_, value)| value.as_str())
        };
        ["verdict", "basis", "rules"].into_iter().filter_map(said).collect::<Vec<_>>().join(" ")
    }
}
