//! The real kubectl, as a person would use it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::{Result, process};

/// kubectl as one user in one namespace.
#[derive(Clone)]
pub(crate) struct Kubectl {
    pub(crate) program: PathBuf,
    pub(crate) kubeconfig: PathBuf,
    /// Keeps the caches out of the home of whoever runs the tests.
    pub(crate) home: PathBuf,
    pub(crate) namespace: String,
    /// The network namespace (a file) from which the API server is reached, where it is not that of the tests.
    pub(crate) network: Option<PathBuf>,
}

/// What kubectl said.
#[derive(Debug)]
pub(crate) struct Answer {
    command: String,
    success: bool,
    stdout: String,
    stderr: String,
}

impl Kubectl {
    pub(crate) fn run(&self, args: &[&str]) -> Result<Answer> {
        self.run_with(args, "")
    }

    /// With `-f -` among the arguments.
    pub(crate) fn run_with(&self, args: &[&str], stdin: &str) -> Result<Answer> {
        let mut child = self
            .command()
            .args(["--namespace", &self.namespace, "--request-timeout", "30s"])
            .args(args)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", &self.home)
            .env_remove("KUBECACHEDIR")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("starting kubectl: {error}"))?;
        if let Some(mut input) = child.stdin.take() {
            // kubectl may refuse its arguments and end before it has read everything.
            let _ = input.write_all(stdin.as_bytes());
        }
        let output = child.wait_with_output()?;
        Ok(Answer::of(format!("kubectl -n {} {}", self.namespace, args.join(" ")), &output))
    }

    fn command(&self) -> Command {
        match &self.network {
            None => Command::new(&self.program),
            Some(network) => process::in_network(network, &self.program),
        }
    }

    pub(crate) fn apply(&self, object: &Value) -> Result<Answer> {
        self.apply_with(&[], object)
    }

    pub(crate) fn apply_with(&self, flags: &[&str], object: &Value) -> Result<Answer> {
        self.run_with(&[&["apply", "-f", "-"], flags].concat(), &object.to_string())
    }

    /// The weights that are stored, as `v1=99 v2=1`, whatever the last command claimed.
    pub(crate) fn weights(&self, name: &str) -> Result<String> {
        let path = "jsonpath={range .spec.http[*].route[*]}{.destination.subset}={.weight} {end}";
        let answer = self
            .run(&["get", "virtualservices.v1.networking.istio.io", name, "-o", path])?
            .succeeded()?;
        Ok(answer.stdout.trim().to_owned())
    }

    /// Those of the last http route, by subset, or by host where there is none: managed routes stand in front of it.
    pub(crate) fn last_weights(&self, name: &str) -> Result<String> {
        let kind = "virtualservices.v1.networking.istio.io";
        let answer = self.run(&["get", kind, name, "--ignore-not-found", "-o", "json"])?;
        let stored = answer.succeeded()?;
        if stored.stdout.is_empty() {
            return Ok("no VirtualService".to_owned());
        }
        let stored: Value = serde_json::from_str(&stored.stdout)?;
        let last = stored["spec"]["http"].as_array().and_then(|routes| routes.last());
        let said =
            last.and_then(|route| route["route"].as_array()).into_iter().flatten().map(|to| {
                let own = &to["destination"];
                let name = own["subset"].as_str().or(own["host"].as_str()).unwrap_or_default();
                format!("{name}={}", to["weight"].as_u64().unwrap_or(0))
            });
        Ok(said.collect::<Vec<_>>().join(" "))
    }

    /// The names of its http routes.
    pub(crate) fn route_names(&self, name: &str) -> Result<String> {
        let kind = "virtualservices.v1.networking.istio.io";
        let path = "jsonpath={.spec.http[*].name}";
        Ok(self.run(&["get", kind, name, "-o", path])?.succeeded()?.stdout.trim().to_owned())
    }

    pub(crate) fn exists(&self, kind: &str, name: &str) -> Result<bool> {
        Ok(!self
            .run(&["get", kind, name, "--ignore-not-found", "-o", "name"])?
            .succeeded()?
            .stdout
            .is_empty())
    }
}

impl Answer {
    /// What a command-line tool said.
    pub(crate) fn of(command: String, output: &Output) -> Self {
        Self {
            command,
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub(crate) fn succeeded(self) -> Result<Self> {
        if self.success { Ok(self) } else { Err(format!("expected success: {self}").into()) }
    }

    /// Admitted, with a warning in these words.
    pub(crate) fn warned(self, words: &[&str]) -> Result<Self> {
        let answer = self.succeeded()?;
        let warnings: String =
            answer.stderr.lines().filter(|line| line.starts_with("Warning: ")).collect();
        match words.iter().find(|word| !warnings.contains(**word)) {
            Some(word) => Err(format!("no warning with {word:?}: {answer}").into()),
            None => Ok(answer),
        }
    }

    /// Without a word of warning.
    pub(crate) fn without_warnings(self) -> Result<Self> {
        match self.stderr.contains("Warning: ") {
            true => Err(format!("expected no warning: {self}").into()),
            false => Ok(self),
        }
    }

    /// Refused, in these words.
    pub(crate) fn refused(self, words: &[&str]) -> Result<Self> {
        if self.success {
            return Err(format!("expected a refusal: {self}").into());
        }
        match words.iter().find(|word| !self.stderr.contains(**word)) {
            Some(word) => Err(format!("refused, but without {word:?}: {self}").into()),
            None => Ok(self),
        }
    }

    pub(crate) fn is_success(&self) -> bool {
        self.success
    }

    pub(crate) fn stdout(&self) -> &str {
        &self.stdout
    }

    pub(crate) fn stderr(&self) -> &str {
        &self.stderr
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verdict = if self.success { "succeeded" } else { "failed" };
        write!(
            f,
            "`{}` {verdict}\nstdout: {}\nstderr: {}",
            self.command,
            self.stdout().trim(),
            self.stderr().trim()
        )
    }
}
