//! Both Helms, and what they make of the chart.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use sluicegate::cluster;

use crate::harness::{Result, programs};
use crate::stage::NAMESPACE;

/// Both, because platform teams have both, and they differ: in what they delete first, and in how they read schemas.
pub(crate) const HELMS: [Helm; 2] = [Helm("helm3"), Helm("helm4")];

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Helm(pub(crate) &'static str);

impl Helm {
    /// With folders of its own: the settings of whoever runs the tests are not theirs.
    pub(crate) fn run(self, arguments: &[&str]) -> Result<Output> {
        let home = tempfile::tempdir()?;
        let mut command = Command::new(programs::find(self.0).map_err(|_| missing(self.0))?);
        command.args(arguments).env_remove("KUBECONFIG").env_remove("HELM_NAMESPACE");
        for folder in ["HOME", "HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(folder, home.path());
        }
        Ok(command.output()?)
    }

    /// What `helm template` writes with these arguments, or what it complains about.
    pub(crate) fn try_template(
        self,
        namespace: &str,
        arguments: &[&str],
    ) -> Result<std::result::Result<String, String>> {
        let chart = chart().display().to_string();
        let fixed = ["template", "sluicegate", &chart, "--namespace", namespace];
        let output = self.run(&[&fixed, arguments].concat())?;
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(match output.status.success() {
            true => Ok(said(&output.stdout)),
            false => Err(said(&output.stderr)),
        })
    }

    /// The text that `helm template` writes.
    pub(crate) fn template(self, arguments: &[&str]) -> Result<String> {
        let rendered = self.try_template(NAMESPACE, arguments)?;
        rendered.map_err(|said| format!("{} template {arguments:?}: {said}", self.0).into())
    }

    /// The objects that `helm template` writes.
    pub(crate) fn objects(self, arguments: &[&str]) -> Result<Vec<Value>> {
        documents(&self.template(arguments)?)
    }
}

/// A program or file of `make platform-chart`.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    programs::find(name).map_err(|_| missing(name))
}

fn missing(name: &str) -> libtest_mimic::Failed {
    format!("{name} is missing; run `make platform platform-chart` once, or `make test-chart`")
        .into()
}

/// The objects of a rendering.
pub(crate) fn documents(text: &str) -> Result<Vec<Value>> {
    let documents = cluster::parse("the rendering", text).map_err(|error| error.to_string())?;
    Ok(documents.into_iter().map(|own| own.value).filter(|value| !value.is_null()).collect())
}

/// The only object of this kind and name.
pub(crate) fn one<'a>(objects: &'a [Value], kind: &str, name: &str) -> Result<&'a Value> {
    let is_it = |own: &&Value| own["kind"] == kind && own["metadata"]["name"] == name;
    let found = objects.iter().filter(is_it).collect::<Vec<_>>();
    match found.as_slice() {
        [only] => Ok(only),
        _ => Err(format!("{} objects are {kind} {name}", found.len()).into()),
    }
}

/// What an object calls itself.
pub(crate) fn name(object: &Value) -> String {
    let word = |at: &Value| at.as_str().unwrap_or_default().to_owned();
    format!("{} {}", word(&object["kind"]), word(&object["metadata"]["name"]))
}

pub(crate) fn chart() -> PathBuf {
    root().join("charts/sluicegate")
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of `charts/sluicegate/ci`: together they turn every switch both ways.
pub(crate) fn ci_values() -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(chart().join("ci"))? {
        let path = entry?.path();
        let stem = path.file_name().unwrap_or_default().to_string_lossy();
        let stem = stem.strip_suffix("-values.yaml").ok_or("ci/ holds only *-values.yaml")?;
        found.push((stem.to_owned(), path.display().to_string()));
    }
    found.sort();
    Ok(found)
}
