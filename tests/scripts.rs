//! The two scripts as a newcomer uses them, in a folder whose name holds spaces, on the programs of this build.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use support::{await_some, lab, watched_cluster_file};

/// A copy of what a clone holds, with a `cargo` that finds everything built.
struct Clone {
    _folder: tempfile::TempDir,
    home: PathBuf,
    path: String,
}

impl Clone {
    fn new() -> Clone {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("a clone with spaces");
        let source = Path::new(env!("CARGO_MANIFEST_DIR"));
        std::fs::create_dir_all(home.join("res")).unwrap();
        std::fs::create_dir_all(home.join("target/release")).unwrap();
        for script in ["run_server.sh", "run_client.sh"] {
            std::fs::copy(source.join(script), home.join(script)).unwrap();
        }
        std::fs::write(home.join("res/cluster.toml"), watched_cluster_file(5)).unwrap();
        for (name, program) in [
            ("paxos-server", env!("CARGO_BIN_EXE_paxos-server")),
            ("paxos-client", env!("CARGO_BIN_EXE_paxos-client")),
            ("paxos-lab", env!("CARGO_BIN_EXE_paxos-lab")),
        ] {
            symlink(program, home.join("target/release").join(name)).unwrap();
        }
        let tools = folder.path().join("tools");
        std::fs::create_dir(&tools).unwrap();
        let cargo = tools.join("cargo");
        std::fs::write(&cargo, "#!/bin/sh\nexit 0\n").unwrap();
        std::fs::set_permissions(&cargo, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
        Clone { _folder: folder, home, path }
    }

    /// A script, called from another folder.
    fn script(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.home.join(name));
        command.args(arguments).current_dir("/").env("PATH", &self.path).stdin(Stdio::null());
        command.env_remove("CARGO_TARGET_DIR").env_remove("PAXOS_RUNS").env_remove("PAXOS_CLUSTER");
        command
    }

    fn run(&self, name: &str, arguments: &[&str]) -> (i32, String) {
        output(self.script(name, arguments).output().unwrap())
    }

    fn must(&self, name: &str, arguments: &[&str]) -> String {
        let (code, text) = self.run(name, arguments);
        assert_eq!(code, 0, "{name} {arguments:?}: {text}");
        text
    }

    fn latest(&self) -> PathBuf {
        self.home.join("runs/latest").canonicalize().unwrap()
    }

    fn pids(&self) -> Vec<u32> {
        let list = std::fs::read_to_string(self.latest().join("pids")).unwrap();
        list.lines().map(|line| line.split(' ').nth(1).unwrap().parse().unwrap()).collect()
    }
}

impl Drop for Clone {
    fn drop(&mut self) {
        let _ = self.script("run_server.sh", &["stop"]).output();
    }
}

fn output(output: Output) -> (i32, String) {
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.code().unwrap_or(-1), text)
}

fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_newcomer_starts_looks_breaks_and_stops() {
    let clone = Clone::new();
    let text = clone.must("run_server.sh", &["--fail", "none", "--seed", "7", "--lab"]);
    for word in
        ["server-1.log", "data/server-5", "protocol: basic-paxos", "failures: none", "seed: 7", "watch it: http://"]
    {
        assert!(text.contains(word), "{word} is missing: {text}");
    }
    let pids = clone.pids();
    assert_eq!(pids.iter().filter(|pid| is_alive(**pid)).count(), 5);

    let (code, text) = clone.run("run_server.sh", &[]);
    assert!(code == 1 && text.contains("runs already"), "{text}");
    assert!(clone.must("run_server.sh", &["status"]).contains("writes OK"));

    let text = clone.must("run_client.sh", &["--pace", "1ms", "--scenes", "all"]);
    assert!(text.contains("replica digest: 5 of 5 equal"), "{text}");
    let text = clone.must("run_client.sh", &["--pace", "1ms", "--clients", "3"]);
    assert!(text.contains("replica digest: 5 of 5 equal"), "{text}");
    clone.must("run_client.sh", &["put", "a key", "a value"]);
    assert_eq!(clone.must("run_client.sh", &["get", "a key"]), "a value\n");

    let first = clone.latest();
    clone.must("run_server.sh", &["stop"]);
    await_some("all five have ended", || pids.iter().all(|pid| !is_alive(*pid)).then_some(()));
    let (code, text) = lab(&["audit", &first.to_string_lossy()]);
    assert_eq!(code, 0, "{text}");

    // What was there is there again.
    clone.must("run_server.sh", &["--continue", "--fail", "none"]);
    assert_eq!(clone.latest(), first);
    assert_eq!(clone.must("run_client.sh", &["get", "a key"]), "a value\n");
    let boots = std::fs::read_to_string(first.join("server-3.log")).unwrap();
    let boot = boots.lines().rfind(|line| line.contains(" BOOT ")).unwrap().to_string();
    assert!(boot.contains("life=2") && !boot.contains("accepted=0"), "{boot}");
    clone.must("run_server.sh", &["stop"]);
    let (code, text) = lab(&["audit", &first.to_string_lossy()]);
    assert_eq!(code, 0, "{text}");
    let (code, _) = lab(&["report", &first.to_string_lossy()]);
    assert_eq!(code, 0);
}

#[test]
fn the_demo_passes_while_roles_fail() {
    for fail in ["acceptors", "all"] {
        let clone = Clone::new();
        clone.must("run_server.sh", &["--fail", fail, "--seed", "3", "--mean-up", "900ms", "--mean-down", "300ms"]);
        let text = clone.must("run_client.sh", &["--pace", "150ms"]);
        assert!(text.contains("replica digest: 5 of 5 equal"), "{text}");
        clone.must("run_server.sh", &["stop"]);
        let run = clone.latest();
        let (code, text) = lab(&["audit", &run.to_string_lossy()]);
        assert_eq!(code, 0, "{text}");
        let (_, report) = lab(&["report", &run.to_string_lossy()]);
        for goal in ["G1", "G2", "G3", "G4", "G9"] {
            let line = report.lines().find(|line| line.contains(goal)).unwrap_or_default();
            assert!(line.contains('✔') || line.contains("[x]") || line.contains("yes"), "{goal}: {report}");
        }
    }
}

#[test]
fn a_run_whose_acceptors_forget_is_reported_unsafe() {
    let clone = Clone::new();
    let arguments = ["--restart", "lost", "--fail", "acceptors", "--mean-up", "600ms", "--mean-down", "200ms"];
    clone.must("run_server.sh", &arguments);
    // The demo may fail here: that is what the mode is for.
    let _ = clone.run("run_client.sh", &["--pace", "100ms"]);
    clone.must("run_server.sh", &["stop"]);
    let run = clone.latest();
    let (code, audit) = lab(&["audit", &run.to_string_lossy()]);
    assert!(code == 0 || code == 7, "{audit}");
    assert!(audit.contains("UNSAFE"), "{audit}");
    let (_, report) = lab(&["report", &run.to_string_lossy()]);
    assert!(report.contains("UNSAFE"), "{report}");
    let lines = std::fs::read_to_string(run.join("server-1.log")).unwrap();
    let restarts: Vec<&str> = lines.lines().filter(|line| line.contains("acceptor RESTART")).collect();
    assert!(!restarts.is_empty() && restarts.iter().all(|line| line.contains("UNSAFE")), "{restarts:?}");
    assert!(lines.lines().any(|line| line.contains(" BOOT ") && line.contains("UNSAFE")));
}

#[test]
fn a_start_that_cannot_be_says_why_and_leaves_nothing_behind() {
    let clone = Clone::new();
    let file = std::fs::read_to_string(clone.home.join("res/cluster.toml")).unwrap();
    let taken = file.lines().find_map(|line| line.strip_prefix("client = ")).unwrap().trim_matches('"').to_string();
    let _holder = std::net::TcpListener::bind(&taken).unwrap();
    let (code, text) = clone.run("run_server.sh", &[]);
    assert!(code == 1 && text.contains(&taken) && text.contains("taken"), "{text}");
    assert!(!clone.home.join("runs/latest").exists());

    let (code, text) = clone.run("run_server.sh", &["--fail", "some"]);
    assert!(code == 1 && text.contains("some"), "{text}");

    let without = clone.script("run_server.sh", &[]).env("PATH", "/usr/bin:/bin").output().unwrap();
    let (code, text) = output(without);
    if !Path::new("/usr/bin/cargo").exists() {
        assert!(code == 1 && text.contains("rustup"), "{text}");
    }
}

#[test]
fn in_the_foreground_ctrl_c_ends_all() {
    let clone = Clone::new();
    let mut command = clone.script("run_server.sh", &["--foreground", "--fail", "none"]);
    let mut script = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut said = BufReader::new(script.stdout.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().contains("Ctrl-C ends all servers")));
    let pids = clone.pids();
    assert_eq!(pids.iter().filter(|pid| is_alive(**pid)).count(), 5);
    // What was started in the background may have come to ignore Ctrl-C for good; then its sibling stands in.
    let signal = if ignores_interrupts() { "-TERM" } else { "-INT" };
    assert!(Command::new("kill").args([signal, &script.id().to_string()]).status().unwrap().success());
    assert!(script.wait().unwrap().success());
    assert!(pids.iter().all(|pid| !is_alive(*pid)));
}

/// Whether this process, and so its children, ignore SIGINT: a shell cannot trap what was ignored when it began.
fn ignores_interrupts() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 0b10 != 0)
}
