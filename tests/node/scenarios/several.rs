//! Nodes beside each other, and what is left of them: nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use super::scenarios;
use crate::Stage;
use crate::cluster::{App, Node};
use crate::harness::Result;

scenarios![nodes_live_side_by_side_and_leave_nothing];

fn nodes_live_side_by_side_and_leave_nothing(stage: &Stage) -> Result {
    let _turn = stage.turn();
    let live = |version: &str| -> Result<Traces> {
        let node = Node::start()?;
        // The same names and addresses on both.
        let app = App::deploy(node.namespace("twin")?, &[version])?;
        let answer = app.ask()?;
        if answer != version {
            return Err(format!("{answer} answers in the place of {version}").into());
        }
        Traces::of(&node)
    };
    let all = thread::scope(|scope| -> Result<Vec<Traces>> {
        let nodes = ["v1", "v2"].map(|version| scope.spawn(move || live(version)));
        nodes.into_iter().map(|node| node.join().map_err(|_| "a node panicked")?).collect()
    })?;
    all.iter().try_for_each(Traces::are_gone)
}

/// What a node has on the machine while it lives.
struct Traces {
    folder: PathBuf,
    /// The network namespace, as `/proc` names it.
    network: PathBuf,
    /// The containers, by which their cgroups are called.
    containers: Vec<String>,
}

impl Traces {
    fn of(node: &Node) -> Result<Self> {
        let folder = node.sandbox().path().to_owned();
        let tasks = folder.join("containerd/io.containerd.runtime.v2.task/k8s.io");
        let containers = fs::read_dir(&tasks)?.flatten();
        let traces = Self {
            folder,
            network: fs::read_link(node.namespaces().network())?,
            containers: containers
                .map(|own| own.file_name().to_string_lossy().into_owned())
                .collect(),
        };
        // What cannot be seen now would not be missed later.
        if traces.processes()?.len() < 6 || traces.cgroups()?.is_empty() {
            return Err(format!("{:?}, {:?}", traces.processes()?, traces.cgroups()?).into());
        }
        Ok(traces)
    }

    fn are_gone(&self) -> Result {
        let (processes, cgroups) = (self.processes()?, self.cgroups()?);
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let folder = self.folder.display().to_string();
        if self.folder.exists() || mounts.contains(&folder) {
            return Err(format!("{folder} is left").into());
        }
        if processes.is_empty() && cgroups.is_empty() {
            return Ok(());
        }
        Err(format!("left are processes {processes:?} and cgroups {cgroups:?}").into())
    }

    /// Those in its network, and those that were told of its folder.
    fn processes(&self) -> Result<Vec<String>> {
        let folder = self.folder.display().to_string();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let process = entry.path();
            let network = fs::read_link(process.join("ns/net")).unwrap_or_default();
            let command = fs::read(process.join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            if network == self.network || command.contains(&folder) {
                found.push(command);
            }
        }
        Ok(found)
    }

    fn cgroups(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        folders(Path::new("/sys/fs/cgroup"), &mut found)?;
        let is_own = |folder: &PathBuf| {
            let name = folder.file_name().unwrap_or_default().to_string_lossy();
            self.containers.iter().any(|id| name.contains(id))
        };
        Ok(found.into_iter().filter(is_own).collect())
    }
}

fn folders(parent: &Path, found: &mut Vec<PathBuf>) -> Result {
    // Other people's come and go while they are looked at.
    let Ok(entries) = fs::read_dir(parent) else { return Ok(()) };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            folders(&entry.path(), found)?;
            found.push(entry.path());
        }
    }
    Ok(())
}
