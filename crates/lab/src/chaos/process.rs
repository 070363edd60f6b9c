//! One server under test: its process, which is restarted, and its disk, which stays.

use std::fs::{File, OpenOptions};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

use super::volume::Volume;
use paxos_kv::role::ServerId;

/// Time limit for a process to exit after SIGTERM.
const EXIT_TIMEOUT: Duration = Duration::from_secs(20);

/// A process younger than this may not have installed its signal handlers yet.
const STARTUP_TIME_MAX: Duration = Duration::from_secs(10);

/// A server of the cluster under test.
pub struct ServerProcess {
    /// The server's number.
    pub server: ServerId,
    /// The volume that holds its data directory.
    pub volume: Volume,
    /// Directory of its log file and its stderr file.
    pub log_dir: PathBuf,
    program: PathBuf,
    arguments: Vec<String>,
    child: Option<Child>,
    /// Time of the last start, and the exit status since then.
    started_at: Instant,
    exit_status: Option<ExitStatus>,
    tracer: Option<Child>,
    /// Number of the fault that affects it.
    pub active_fault: Option<usize>,
    /// Whether it may exit by itself now.
    pub may_exit: bool,
}

impl ServerProcess {
    /// A server that has not been started.
    pub fn new(
        server: ServerId,
        volume: Volume,
        lines: PathBuf,
        program: PathBuf,
        arguments: Vec<String>,
    ) -> ServerProcess {
        ServerProcess {
            server,
            volume,
            log_dir: lines,
            program,
            arguments,
            child: None,
            started_at: Instant::now(),
            exit_status: None,
            tracer: None,
            active_fault: None,
            may_exit: false,
        }
    }

    /// Path of its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.volume.path().join(format!("server-{}", self.server.0))
    }

    /// The content of its stderr file.
    pub fn errors(&self) -> String {
        std::fs::read_to_string(self.errors_path(&self.log_dir)).unwrap_or_default()
    }

    fn errors_path(&self, dir: &Path) -> PathBuf {
        dir.join(format!("server-{}.err", self.server.0))
    }

    /// Replaces the further arguments, from the next start on.
    pub fn set_arguments(&mut self, arguments: Vec<String>) {
        self.arguments = arguments;
    }

    /// Starts the process.
    pub fn start(&mut self) -> Result<(), String> {
        self.start_with_log_dir(&self.log_dir.clone())
    }

    /// Starts the process with its log in another directory: lines of an impostor do not belong to this run.
    pub fn start_with_log_dir(&mut self, lines: &Path) -> Result<(), String> {
        if self.is_running() {
            return Ok(());
        }
        (self.may_exit, self.exit_status, self.started_at) = (false, None, Instant::now());
        let failed = |error| format!("cannot start {}: {error}", self.program.display());
        std::fs::create_dir_all(lines).map_err(failed)?;
        let errors: File =
            OpenOptions::new().append(true).create(true).open(self.errors_path(lines)).map_err(failed)?;
        // If this process is killed, the kernel kills the server too.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(&self.program);
        self.add_arguments(&mut command, lines).stdout(Stdio::null()).stderr(errors.try_clone().map_err(failed)?);
        let child = match command.spawn() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let mut command = Command::new(&self.program);
                self.add_arguments(&mut command, lines).stdout(Stdio::null()).stderr(errors).spawn()
            }
            spawned => spawned,
        };
        self.child = Some(child.map_err(failed)?);
        Ok(())
    }

    fn add_arguments<'a>(&self, command: &'a mut Command, lines: &Path) -> &'a mut Command {
        command.arg("--id").arg(self.server.0.to_string()).arg("--data").arg(self.data_dir());
        command.arg("--log-dir").arg(lines).arg("--quiet").args(&self.arguments).stdin(Stdio::null())
    }

    /// Whether the process runs, as of the last check: see [`ServerProcess::poll_exit`].
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// The exit status if the process has exited by itself since the last check.
    pub fn poll_exit(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok().flatten()?;
        (self.child, self.exit_status) = (None, Some(status));
        self.untrace();
        Some(status)
    }

    /// The exit status if the process has exited by itself since its start.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.poll_exit().or(self.exit_status)
    }

    /// Waits until the process exits by itself.
    pub fn await_exit(&mut self, within: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.exit_status() {
                return Some(status);
            }
            if !self.is_running() || Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The process id.
    pub fn pid(&self) -> Option<Pid> {
        Pid::from_raw(self.child.as_ref()?.id() as i32)
    }

    /// Sends a signal if the process runs.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            let _ = kill_process(pid, signal);
        }
    }

    /// Sends `kill -9`. Call [`ServerProcess::reap`] to wait for the exit. Returns false if the process did not run.
    pub fn kill(&mut self) -> bool {
        self.may_exit = true;
        self.signal(Signal::KILL);
        self.child.is_some()
    }

    /// Waits for a process that was killed.
    pub fn reap(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
        self.untrace();
    }

    /// Sends SIGTERM and waits for the exit; an error if it does not exit in time or exits with a failure.
    pub fn stop(&mut self) -> Result<(), String> {
        if !self.is_running() {
            return Ok(());
        }
        self.signal(Signal::TERM);
        match self.await_exit(EXIT_TIMEOUT) {
            Some(status) if status.success() => Ok(()),
            // The process had not installed its signal handlers yet.
            Some(status)
                if status.signal() == Some(Signal::TERM.as_raw()) && self.started_at.elapsed() < STARTUP_TIME_MAX =>
            {
                Ok(())
            }
            Some(status) => {
                Err(format!("server {} got SIGTERM and ended with {status} instead of exit code 0", self.server.0))
            }
            None => Err(format!("server {} got SIGTERM and still runs after {EXIT_TIMEOUT:?}", self.server.0)),
        }
    }

    /// Attaches strace to inject errors or delays into its syncs; `how` is the injection in strace's syntax.
    pub fn trace(&mut self, how: &str) -> Result<(), String> {
        let Some(pid) = self.pid() else { return Ok(()) };
        let inject = format!("inject=fdatasync:{how}");
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", &inject]);
        command.args(["-p", &pid.as_raw_nonzero().to_string()]).stdin(Stdio::null()).stdout(Stdio::null());
        let tracer = command.stderr(Stdio::null()).spawn().map_err(|error| format!("cannot start strace: {error}"))?;
        self.tracer = Some(tracer);
        Ok(())
    }

    /// Detaches strace.
    pub fn untrace(&mut self) {
        let Some(mut tracer) = self.tracer.take() else { return };
        // On SIGTERM strace detaches from the process before it exits.
        if let Some(pid) = Pid::from_raw(tracer.id() as i32) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while matches!(tracer.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = tracer.kill();
        let _ = tracer.wait();
    }

    /// Limits its open files to the number now open plus `more`; None lifts the limit.
    pub fn limit_files(&self, more: Option<u64>) -> Result<(), String> {
        let Some(pid) = self.pid() else { return Ok(()) };
        let open = || {
            let entries = std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero()));
            entries.map_or(64, |entries| entries.count() as u64)
        };
        let maximum = self.open_files_max(pid);
        let current = more.map_or(maximum, |more| Some(open() + more));
        let limits = Rlimit { current, maximum };
        prlimit(Some(pid), Resource::Nofile, limits)
            .map(drop)
            .map_err(|error| format!("cannot set the limit of open files: {error}"))
    }

    fn open_files_max(&self, pid: Pid) -> Option<u64> {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", pid.as_raw_nonzero())).unwrap_or_default();
        let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
        line.split_whitespace().nth(4)?.parse().ok()
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.volume.thaw();
        self.kill();
        self.reap();
    }
}
