//! Where a node lives: network, mounts and processes of its own, so that the end of one process is the end of all of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use crate::harness::process::Process;
use crate::harness::sandbox::Sandbox;
use crate::harness::{Result, programs, text};

/// The address of the node, in its own network.
pub(crate) const ADDRESS: &str = "172.30.0.2";

/// Prepares the namespaces from within and stays: the first process of a PID namespace keeps it, and its end ends the others.
///
/// What the kubelet and containerd write outside of the folder of the run goes to file systems that end with the mounts.
/// Values of the kernel that the kubelet would change for the whole machine it finds as it wants them. A bridge without a
/// port has no carrier, and without a default route nobody finds out what the node's address is.
const HOLD: &str = r#"
set -eu
folder=$1 address=$2
shift 2
for place; do mount -n -t tmpfs -o mode=755 tmpfs "$place"; done
mkdir -p "$folder/kernel"
while read -r name value; do
    [ -e "/proc/sys/$name" ] || continue
    file=$folder/kernel/$(basename "$name")
    echo "$value" >"$file"
    mount -n --bind "$file" "/proc/sys/$name"
done <<END
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
END
ip link add node0 type bridge
ip link add port0 type veth peer name port1
ip link set port0 master node0
for device in lo node0 port0 port1; do ip link set "$device" up; done
ip address add "$address/24" dev node0
ip route add default dev node0
echo 1 >/proc/sys/net/ipv4/ip_forward
touch "$folder/held"
while :; do sleep 3600 & wait $!; done
"#;

/// Ends the cgroups of Pods that were killed with their node; nobody else does, and they would stay for ever. The kernel
/// lets go of them a moment after the last process.
const CLEAN_UP: &str = r#"
folder=$(dirname "$0")
ids=
for task in "$folder"/containerd/io.containerd.runtime.v2.task/k8s.io/*; do
    [ ! -e "$task" ] || ids="$ids ${task##*/}"
done
own() {
    for id in $ids; do find /sys/fs/cgroup -depth -type d -path "*/k8s.io/$id*" "$@" 2>/dev/null; done
}
for _ in 1 2 3 4 5 6 7 8 9 10; do
    own -exec rmdir {} +
    [ -n "$(own -print -quit)" ] || break
    sleep 0.2
done
# What they stood in, unless others still do.
find /sys/fs/cgroup -depth -type d -name k8s.io -exec rmdir {} + 2>/dev/null
"#;

/// Where a node has file systems of its own. What others have there it does not see.
const HIDDEN: [&str; 3] = ["/run", "/var/lib", "/var/log"];

/// Network, mounts and processes that nobody else sees.
pub(crate) struct Namespaces {
    holder: Unshared,
    files: PathBuf,
    sandbox: Arc<Sandbox>,
}

/// What `unshare` was started for, or goes on under its eyes. It takes no SIGTERM: its end is SIGKILL, and with it that of the
/// program.
pub(super) struct Unshared(Process);

impl Namespaces {
    pub(super) fn new(sandbox: &Arc<Sandbox>) -> Result<Self> {
        for path in [sandbox.path(), &programs::find("containerd")?] {
            let path = path.canonicalize()?;
            if let Some(place) = HIDDEN.iter().find(|place| path.starts_with(place)) {
                let remedy = "TMPDIR and SLUICEGATE_PLATFORM have to lead elsewhere";
                return Err(format!(
                    "{} is not seen on a node, which has a {place} of its own: {remedy}",
                    path.display()
                )
                .into());
            }
        }
        sandbox.write("clean-up", CLEAN_UP)?;
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["sh", "-c", HOLD, "sh"])
            .arg(sandbox.path())
            .arg(ADDRESS)
            .args(HIDDEN);
        let mut holder = Unshared(Process::spawn(sandbox, "namespaces", &mut command)?);
        let held = sandbox.path().join("held");
        holder.0.wait_until(Duration::from_secs(20), || held.exists())?;
        let files = PathBuf::from(format!("/proc/{}/ns", holder.0.id()));
        Ok(Self { holder, files, sandbox: Arc::clone(sandbox) })
    }

    /// The network namespace, as nsenter takes it.
    pub(crate) fn network(&self) -> PathBuf {
        self.files.join("net")
    }

    /// Runs a program to its end that sees the node's network, mounts and processes.
    pub(super) fn run(&self, program: &Path, arguments: &[&str]) -> Result<Output> {
        Ok(self.inside(program).args(arguments).output()?)
    }

    /// Starts a program that sees the node's network, mounts and processes.
    pub(super) fn spawn(
        &self,
        name: &str,
        program: &Path,
        prepare: impl FnOnce(&mut Command) -> &mut Command,
    ) -> Result<Unshared> {
        Ok(Unshared(Process::spawn(&self.sandbox, name, prepare(&mut self.inside(program)))?))
    }

    fn inside(&self, program: &Path) -> Command {
        let file = |name: &str| self.files.join(name).display().to_string();
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", file("net")))
            .arg(format!("--mount={}", file("mnt")))
            .arg(format!("--pid={}", file("pid_for_children")))
            .args(["--no-fork", "--", "unshare", "--fork", "--kill-child", "--"])
            .arg(program);
        command
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        self.holder.end();
        let clean_up = self.sandbox.path().join("clean-up");
        if let Err(error) = Command::new("sh").arg(clean_up).status() {
            eprintln!("node: removing its cgroups: {error}");
        }
    }
}

impl Unshared {
    pub(super) fn process(&mut self) -> &mut Process {
        &mut self.0
    }

    fn end(&mut self) {
        if let Err(error) = self.0.kill() {
            eprintln!("node: {}", text(error));
        }
    }
}

impl Drop for Unshared {
    fn drop(&mut self) {
        self.end();
    }
}
