//! Where a node lives: network, mounts and processes of its own, so that the end of one process is the end of all of it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::harness::process::Process;
use crate::harness::sandbox::Sandbox;
use crate::harness::{Result, programs};

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

/// Where a node has file systems of its own. What others have there it does not see.
const HIDDEN: [&str; 3] = ["/run", "/var/lib", "/var/log"];

/// Network, mounts and processes that nobody else sees.
pub(crate) struct Namespaces {
    holder: Process,
    files: PathBuf,
}

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
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["sh", "-c", HOLD, "sh"])
            .arg(sandbox.path())
            .arg(ADDRESS)
            .args(HIDDEN);
        let mut holder = Process::spawn(sandbox, "namespaces", &mut command)?;
        let held = sandbox.path().join("held");
        holder.wait_until(Duration::from_secs(20), || held.exists())?;
        let files = PathBuf::from(format!("/proc/{}/ns", holder.id()));
        Ok(Self { holder, files })
    }

    /// The network namespace, as nsenter takes it.
    pub(crate) fn network(&self) -> PathBuf {
        self.files.join("net")
    }

    /// A program that sees the node's network, mounts and processes, and ends with the process that this starts.
    ///
    /// That process is `unshare`, which the kernel kills the program after. It takes no SIGTERM: it has to be killed.
    pub(super) fn inside(&self, program: &Path) -> Command {
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

    /// Ends everything that lives here.
    pub(super) fn end(&mut self) -> Result {
        self.holder.kill()
    }
}
