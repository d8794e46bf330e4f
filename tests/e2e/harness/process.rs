//! Processes: started with a log, waited for, stopped by their own number.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::sandbox::{Sandbox, tail};
use super::{Result, text};

/// How long a process may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);

pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    sandbox: Arc<Sandbox>,
}

impl Process {
    pub(crate) fn spawn(sandbox: &Arc<Sandbox>, name: &str, command: &mut Command) -> Result<Self> {
        let log = sandbox.path().join(format!("{name}.log"));
        let file = File::create(&log)?;
        let child =
            command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn().map_err(
                |error| format!("starting {name} ({}): {error}", command.get_program().display()),
            )?;
        sandbox.started(child.id());
        Ok(Self { name: name.to_owned(), child, log, sandbox: Arc::clone(sandbox) })
    }

    /// Asks `ready` until it says yes, the process has ended or the time is over.
    pub(crate) fn wait_until(
        &mut self,
        limit: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> Result {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!(
                    "{} ended ({status}) before it was ready\n{}",
                    self.name,
                    self.tail()
                )
                .into());
            }
            if ready() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "{} was not ready within {limit:?}\n{}",
                    self.name,
                    self.tail()
                )
                .into());
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    #[allow(
        dead_code,
        reason = "only the node tests, which share this, look into a process by its number"
    )]
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn kill(&mut self) -> Result {
        self.sandbox.stopped(self.child.id());
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM without waiting for the end.
    pub(crate) fn terminate(&self) -> Result {
        let pid = self.child.id().to_string();
        let status = Command::new("sh").args(["-c", "kill -TERM \"$1\"", "sh", &pid]).status()?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("SIGTERM to {}: {status}", self.name).into())
        }
    }

    pub(crate) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    pub(crate) fn tail(&self) -> String {
        tail(&self.name, &self.log, 40)
    }

    /// All that it has said.
    pub(crate) fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(&self.log)?).into_owned())
    }

    fn stop(&mut self) -> Result {
        if self.has_ended()? {
            return Ok(());
        }
        self.terminate()?;
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            if self.has_ended()? {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        eprintln!("e2e: {} did not end within {GRACE:?} of SIGTERM\n{}", self.name, self.tail());
        self.kill()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("e2e: stopping {}: {}", self.name, text(error));
        }
        self.sandbox.stopped(self.child.id());
    }
}

/// A program in a network namespace, as a process of its own whose number is that of the command.
pub(crate) fn in_network(network: &Path, program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", network.display())).arg("--").arg(program);
    command
}

/// Ports that were free a moment ago. Held together, so that no two are the same.
pub(crate) fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut listeners = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        *port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok(ports)
}

/// Starts again with other ports when somebody took one between [`free_ports`] and the start.
pub(crate) fn unless_stolen<T>(mut start: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 0..3 {
        match start() {
            Err(error) if text_of(&error).to_lowercase().contains("address already in use") => {}
            answer => return answer,
        }
    }
    start()
}

fn text_of(failed: &libtest_mimic::Failed) -> &str {
    failed.message().unwrap_or_default()
}
