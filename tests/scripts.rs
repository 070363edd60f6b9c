//! The two scripts as a newcomer uses them, in a folder whose name holds spaces, on the programs of this build.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use support::{await_value, cluster_file_with_page, proved, run_program, write_script};

/// A copy of what a clone holds, with a `cargo` that finds everything built.
struct WorkingCopy {
    dir: tempfile::TempDir,
    home: PathBuf,
    path: String,
}

impl WorkingCopy {
    fn new() -> WorkingCopy {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("a clone with spaces");
        let source = Path::new(env!("CARGO_MANIFEST_DIR"));
        std::fs::create_dir_all(home.join("res")).unwrap();
        std::fs::create_dir_all(home.join("target/release")).unwrap();
        for script in ["run_server.sh", "run_client.sh"] {
            std::fs::copy(source.join(script), home.join(script)).unwrap();
        }
        std::fs::write(home.join("Cargo.toml"), "").unwrap();
        std::fs::write(home.join("res/cluster.toml"), cluster_file_with_page(5)).unwrap();
        for (name, program) in
            [("paxos-server", env!("CARGO_BIN_EXE_paxos-server")), ("paxos-client", env!("CARGO_BIN_EXE_paxos-client"))]
        {
            symlink(program, home.join("target/release").join(name)).unwrap();
        }
        let tools = dir.path().join("tools");
        std::fs::create_dir(&tools).unwrap();
        symlink(source.join("tests/support/cargo_stub.sh"), tools.join("cargo")).unwrap();
        let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
        let clone = WorkingCopy { dir, home, path };
        clone.replace_cargo("exit 0");
        clone
    }

    /// A clone of a cluster of three.
    fn small() -> WorkingCopy {
        let clone = WorkingCopy::new();
        std::fs::write(clone.home.join("res/cluster.toml"), cluster_file_with_page(3)).unwrap();
        clone
    }

    /// From now on the stub that stands for `cargo` does this. The stub itself is a file of the repository: a program
    /// that this process has just written may be "busy", because another test starts a process at the same moment.
    fn replace_cargo(&self, what: &str) {
        std::fs::write(self.dir.path().join("tools/behavior"), what).unwrap();
    }

    /// Moves the built programs to another target folder.
    fn move_programs(&self, target: &Path) {
        std::fs::create_dir_all(target).unwrap();
        std::fs::rename(self.home.join("target/release"), target.join("release")).unwrap();
    }

    /// The names of the folders of runs.
    fn runs(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.home.join("runs")) else { return Vec::new() };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.starts_with('2')).collect();
        names.sort();
        names
    }

    /// A script, called from another folder.
    fn script(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("bash");
        command.arg(self.home.join(name)).args(arguments).current_dir("/").env("PATH", &self.path).stdin(Stdio::null());
        for name in ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET_DIR", "PAXOS_RUNS", "PAXOS_CLUSTER", "CDPATH"] {
            command.env_remove(name);
        }
        command
    }

    fn run(&self, name: &str, arguments: &[&str]) -> (i32, String) {
        output(self.script(name, arguments).output().unwrap())
    }

    fn run_ok(&self, name: &str, arguments: &[&str]) -> String {
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

impl Drop for WorkingCopy {
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
fn new_user_starts_inspects_and_stops_a_cluster() {
    let clone = WorkingCopy::new();
    let text = clone.run_ok("run_server.sh", &["--fail", "none", "--seed", "7", "--lab"]);
    for word in
        ["server-1.log", "data/server-5", "protocol: basic-paxos", "failures: none", "seed: 7", "watch it: http://"]
    {
        assert!(text.contains(word), "{word} is missing: {text}");
    }
    let pids = clone.pids();
    assert_eq!(pids.iter().filter(|pid| is_alive(**pid)).count(), 5);

    let (code, text) = clone.run("run_server.sh", &[]);
    assert!(code == 1 && text.contains("is already running"), "{text}");
    assert!(clone.run_ok("run_server.sh", &["status"]).contains("writes OK"));

    let text = clone.run_ok("run_client.sh", &["--pace", "1ms", "--scenes", "all"]);
    for words in [
        "replica digest: 5 of 5 equal",
        "no majority: 2 of 5 acceptors up (s4, s5), requests wait",
        " waits: no majority: 2 of 5 acceptors up (s4, s5)",
        "a majority again",
    ] {
        assert!(text.contains(words), "{words:?} is missing: {text}");
    }
    let text = clone.run_ok("run_client.sh", &["--pace", "1ms", "--clients", "3"]);
    assert!(text.contains("replica digest: 5 of 5 equal"), "{text}");
    clone.run_ok("run_client.sh", &["put", "a key", "a value"]);
    assert_eq!(clone.run_ok("run_client.sh", &["get", "a key"]), "a value\n");

    let first = clone.latest();
    clone.run_ok("run_server.sh", &["stop"]);
    await_value("all five have ended", || pids.iter().all(|pid| !is_alive(*pid)).then_some(()));
    let (code, text) = proved(&first);
    assert_eq!(code, 0, "{text}");

    // What was there is there again.
    let text = clone.run_ok("run_server.sh", &["--continue"]);
    assert!(text.contains("as before: --fail=none --seed=7 --lab --protocol=basic-paxos"), "{text}");
    assert_eq!(clone.latest(), first);
    assert_eq!(clone.run_ok("run_client.sh", &["get", "a key"]), "a value\n");
    let boots = std::fs::read_to_string(first.join("server-3.log")).unwrap();
    let boot = boots.lines().rfind(|line| line.contains(" BOOT ")).unwrap().to_string();
    assert!(boot.contains("incarnation=2") && !boot.contains("accepted=0"), "{boot}");
    clone.run_ok("run_server.sh", &["stop"]);
    let (code, text) = proved(&first);
    assert_eq!(code, 0, "{text}");
    let (code, _) = run_program("paxos-server", &["report", &first.to_string_lossy()]);
    assert_eq!(code, 0);
}

#[test]
fn the_demo_passes_while_roles_fail() {
    for fail in ["acceptors", "all"] {
        let clone = WorkingCopy::new();
        clone.run_ok("run_server.sh", &["--fail", fail, "--seed", "3", "--mean-up", "900ms", "--mean-down", "300ms"]);
        let text = clone.run_ok("run_client.sh", &["--pace", "150ms"]);
        assert!(text.contains("replica digest: 5 of 5 equal"), "{text}");
        clone.run_ok("run_server.sh", &["stop"]);
        let run = clone.latest();
        let (code, text) = proved(&run);
        assert_eq!(code, 0, "{text}");
        let (_, report) = run_program("paxos-server", &["report", &run.to_string_lossy()]);
        for goal in ["G1", "G2", "G3", "G4", "G9"] {
            let line = report.lines().find(|line| line.contains(goal)).unwrap_or_default();
            assert!(line.contains('✔') || line.contains("[x]") || line.contains("yes"), "{goal}: {report}");
        }
    }
}

#[test]
fn run_with_acceptors_that_lose_promises_is_reported_unsafe() {
    let clone = WorkingCopy::new();
    let arguments = ["--restart", "lost", "--fail", "acceptors", "--mean-up", "600ms", "--mean-down", "200ms"];
    clone.run_ok("run_server.sh", &arguments);
    // The demo may fail here: that is what the mode is for.
    let _ = clone.run("run_client.sh", &["--pace", "100ms"]);
    clone.run_ok("run_server.sh", &["stop"]);
    let run = clone.latest();
    let (code, audit) = proved(&run);
    assert!(code == 0 || code == 7, "{audit}");
    assert!(audit.contains("UNSAFE"), "{audit}");
    let (_, report) = run_program("paxos-server", &["report", &run.to_string_lossy()]);
    assert!(report.contains("UNSAFE"), "{report}");
    let lines = std::fs::read_to_string(run.join("server-1.log")).unwrap();
    let restarts: Vec<&str> = lines.lines().filter(|line| line.contains("acceptor RESTART")).collect();
    assert!(!restarts.is_empty() && restarts.iter().all(|line| line.contains("UNSAFE")), "{restarts:?}");
    assert!(lines.lines().any(|line| line.contains(" BOOT ") && line.contains("UNSAFE")));
}

#[test]
fn failed_start_reports_why_and_leaves_nothing_behind() {
    let clone = WorkingCopy::new();
    let file = std::fs::read_to_string(clone.home.join("res/cluster.toml")).unwrap();
    let taken = file.lines().find_map(|line| line.strip_prefix("client = ")).unwrap().trim_matches('"').to_string();
    let _holder = std::net::TcpListener::bind(&taken).unwrap();
    let (code, text) = clone.run("run_server.sh", &[]);
    assert!(code == 1 && text.contains(&taken) && text.contains("in use"), "{text}");
    assert!(!clone.home.join("runs/latest").exists());

    for (words, says) in [
        (&["--fail", "some"][..], "invalid value 'some'"),
        (&["stopp"], "unknown command 'stopp' (known: stop, status, clean"),
        (&["--lab", "stopp"], "stopp"),
        (&["--fial", "none"], "--fial"),
        (&["-x"], "-x"),
        (&["stop", "--lab"], "takes no other arguments"),
        (&["--lab", "--data", "here"], "--data"),
    ] {
        let (code, text) = clone.run("run_server.sh", words);
        assert!(code == 2 && text.contains(says), "{words:?}: {code} {text}");
    }
    assert!(clone.runs().is_empty() && !clone.home.join("runs/.starting").exists());

    let without = clone.script("run_server.sh", &[]).env("PATH", "/usr/bin:/bin").output().unwrap();
    let (code, text) = output(without);
    if !Path::new("/usr/bin/cargo").exists() {
        assert!(code == 1 && text.contains("rustup"), "{text}");
    }
}

#[test]
fn continued_run_keeps_its_options() {
    let clone = WorkingCopy::small();
    let arguments = ["--protocol", "multi-paxos", "--fail=none", "--mean-up", "3s", "--seed", "11", "--seed", "12"];
    clone.run_ok("run_server.sh", &arguments);
    clone.run_ok("run_server.sh", &["stop"]);
    let text = clone.run_ok("run_server.sh", &["--continue", "--seed", "13", "--mean-down=2s"]);
    assert!(text.contains("as before: --protocol=multi-paxos --fail=none --mean-up=3s"), "{text}");
    assert!(text.contains("protocol: multi-paxos   failures: none   seed: 13\n"), "{text}");
    let boot = |n| {
        let lines = std::fs::read_to_string(clone.latest().join("server-2.log")).unwrap();
        lines.lines().filter(|line| line.contains(" BOOT ")).nth(n).unwrap().to_string()
    };
    assert!(boot(0).contains("protocol=multi-paxos seed=12 fail=none"), "{}", boot(0));
    assert!(boot(1).contains("protocol=multi-paxos seed=13 fail=none"), "{}", boot(1));
    clone.run_ok("run_server.sh", &["stop"]);

    // What an earlier build has left behind does not say how it was started.
    let options = clone.latest().join("options");
    let kept = std::fs::read_to_string(&options).unwrap();
    assert!(kept.lines().any(|line| line == "--mean-down=2s"), "{kept}");
    std::fs::remove_file(&options).unwrap();
    let (code, text) = clone.run("run_server.sh", &["--continue"]);
    assert!(code == 1 && text.contains("an earlier build") && text.contains("--protocol P --fail WHAT"), "{text}");
    clone.run_ok("run_server.sh", &["--continue", "--protocol", "multi-paxos", "--fail", "none"]);
    clone.run_ok("run_server.sh", &["stop"]);

    let (code, text) = clone.run("run_server.sh", &["--continue", "--protocol", "two-phase-commit"]);
    assert!(code == 1 && text.contains("holds data written under Paxos"), "{text}");
    assert!(std::fs::read_to_string(&options).unwrap().contains("multi-paxos"), "what failed is not kept");
}

#[test]
fn scripts_work_through_links_and_relative_paths() {
    let clone = WorkingCopy::small();
    let links = clone.dir.path().join("links");
    std::fs::create_dir_all(links.join("more")).unwrap();
    for name in ["run_server.sh", "run_client.sh"] {
        symlink(clone.home.join(name), links.join("more").join(name)).unwrap();
        symlink(Path::new("more").join(name), links.join(name)).unwrap();
    }
    // Relative, through a link, and with a CDPATH that makes `cd` talk.
    symlink(clone.dir.path(), links.join("far")).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = clone.script("run_server.sh", &[]);
        command = {
            let mut by_name = Command::new("bash");
            by_name.args(arguments).current_dir(clone.dir.path()).stdin(Stdio::null());
            for (name, value) in command.get_envs() {
                match value {
                    Some(value) => by_name.env(name, value),
                    None => by_name.env_remove(name),
                };
            }
            by_name
        };
        let (code, text) =
            output(command.env("PAXOS_RUNS", "links/far/my runs").env("CDPATH", ".:/").output().unwrap());
        assert_eq!(code, 0, "{arguments:?}: {text}");
        text
    };
    run(&["links/run_server.sh", "--fail", "none"]);
    run(&["links/run_client.sh", "put", "a", "b"]);
    assert!(run(&["a clone with spaces/run_server.sh", "status"]).contains("server 3: process "));
    let text = run(&["links/more/run_server.sh", "stop"]);
    assert!(text.contains("stopped: server 1 2 3 of"), "{text}");
    let list = clone.dir.path().join("my runs/latest/pids");
    assert_eq!(std::fs::read_to_string(list).unwrap().lines().count(), 3);
}

#[test]
fn programs_are_found_where_cargo_puts_them() {
    let clone = WorkingCopy::small();
    let target = clone.dir.path().join("a \"far\" place");
    clone.move_programs(&target);
    let status = |set: &[(&str, &Path)]| {
        let mut command = clone.script("run_client.sh", &["--version"]);
        output(command.envs(set.iter().copied()).output().unwrap())
    };
    for name in ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET_DIR"] {
        let (code, text) = status(&[(name, &target)]);
        assert!(code == 0 && text.contains("paxos-client"), "{name}: {text}");
    }
    let (code, text) = status(&[]);
    assert!(code == 1 && text.contains("does not exist"), "{text}");
    // What its own settings say, cargo tells.
    let program = target.join("release/paxos-client").display().to_string().replace('"', "\\\"");
    let told = format!("{{\"reason\":\"compiler-artifact\",\"executable\":\"{program}\",\"fresh\":true}}");
    let told =
        [r#"{"reason":"compiler-artifact","executable":null,"fresh":true}"#, &told, r#"{"reason":"build-finished"}"#];
    clone.replace_cargo(&format!("cat <<'EOF'\n{}\nEOF", told.join("\n")));
    let (code, text) = status(&[]);
    assert!(code == 0 && text.contains("paxos-client"), "{text}");
}

#[test]
fn only_a_slow_build_is_announced() {
    let clone = WorkingCopy::small();
    assert!(!clone.run_ok("run_client.sh", &["--version"]).contains("building"));
    let go = clone.dir.path().join("go");
    let wait = format!("for n in $(seq 1200); do if [ -e '{}' ]; then exit 0; fi; sleep 0.05; done", go.display());
    clone.replace_cargo(&format!("echo '{{}}'; {wait}; exit 1"));
    let mut command = clone.script("run_client.sh", &["--version"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(said.next().unwrap().unwrap().contains("building the programs"));
    std::fs::write(&go, "").unwrap();
    assert!(child.wait().unwrap().success());
    assert!(said.all(|line| !line.unwrap().contains("building")), "it is said once");

    clone.replace_cargo("echo 'error: it is broken' >&2; exit 101");
    let (code, text) = clone.run("run_client.sh", &["get", "a"]);
    assert!(code == 1 && text.contains("it is broken") && text.contains("could not build the programs"), "{text}");
}

#[test]
fn clean_removes_old_runs_and_nothing_else() {
    let clone = WorkingCopy::small();
    assert!(clone.run_ok("run_server.sh", &["clean"]).contains("no run"));
    clone.run_ok("run_server.sh", &["--fail", "none"]);
    let first = clone.latest();
    let bytes = du_kib(&first) << 10;
    assert!(bytes < 40 << 20, "a run takes {bytes} bytes");
    // Another start made a later one the latest; the servers of the first live on.
    let later = clone.home.join("runs/2099-01-01T00-00-00Z");
    std::fs::create_dir_all(later.join("data")).unwrap();
    let latest = clone.home.join("runs/latest");
    std::fs::remove_file(&latest).unwrap();
    symlink(&later, &latest).unwrap();
    let others = ["notes", "2026-01-01", "2026-01-01T00-00-00Z"].map(|name| clone.home.join("runs").join(name));
    others.iter().for_each(|other| std::fs::create_dir(other).unwrap());
    let text = clone.run_ok("run_server.sh", &["clean"]);
    assert!(text.contains("its servers are running") && text.contains("runs removed: 0"), "{text}");
    assert!(first.exists() && others.iter().all(|other| other.exists()));

    std::fs::remove_file(&latest).unwrap();
    symlink(&first, &latest).unwrap();
    clone.run_ok("run_server.sh", &["stop"]);
    std::fs::write(later.join("data/large"), vec![1; 3 << 20]).unwrap();
    let text = clone.run_ok("run_server.sh", &["clean"]);
    assert!(text.contains("runs removed: 1, 3 MiB") && text.contains("kept: "), "{text}");
    assert!(first.exists() && !later.exists() && others.iter().all(|other| other.exists()));
}

/// How much room a folder takes on its disk.
fn du_kib(dir: &Path) -> u64 {
    let output = Command::new("du").arg("-sk").arg(dir).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn demo_options_start_the_demo_and_commands_pass_through() {
    let clone = WorkingCopy::small();
    let echo = clone.home.join("target/release/paxos-client");
    std::fs::remove_file(&echo).unwrap();
    write_script(&echo, "#!/bin/sh\necho \"$@\"\n");
    for (words, wanted) in [
        (&[][..], "demo"),
        (&["--clients", "3"], "demo --clients 3"),
        (&["--scenes=all", "-o", "json"], "demo --scenes=all -o json"),
        (&["--timeout", "3s"], "demo --timeout 3s"),
        (&["demo", "--pace", "1ms"], "demo --pace 1ms"),
        (&["put", "a", "b"], "put a b"),
        (&["--timeout", "3s", "get", "a"], "--timeout 3s get a"),
        (&["--server=2", "get", "a"], "--server=2 get a"),
        (&["help", "put"], "help put"),
        (&["--version"], "--version"),
    ] {
        let output = clone.script("run_client.sh", words).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), wanted, "{words:?}");
    }
}

#[test]
fn ctrl_c_stops_all_servers_in_the_foreground() {
    let clone = WorkingCopy::new();
    let mut command = clone.script("run_server.sh", &["--foreground", "--fail", "none"]);
    let mut script = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut said = BufReader::new(script.stdout.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().contains("Ctrl-C stops all servers")));
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

#[test]
fn without_failures_hardly_any_ballot_is_refused() {
    let clone = WorkingCopy::new();
    clone.run_ok("run_server.sh", &["--fail", "none"]);
    clone.run_ok("run_client.sh", &[]);
    clone.run_ok("run_server.sh", &["stop"]);
    let lines = (1..=5).map(|n| std::fs::read_to_string(clone.latest().join(format!("server-{n}.log"))).unwrap());
    let refusals: usize = lines.map(|lines| lines.matches(" NACK ").count()).sum();
    // Each change of server used to cost one refusal of each acceptor, 80 in all.
    assert!(refusals <= 5, "{refusals} refusals");
}

/// What a classroom is promised: two commands without an option, at most 20 s, one screen, five servers of three roles
/// each, five log files, and a report that ticks what such a run must show.
#[test]
fn two_commands_without_options_show_everything_promised_to_a_class() {
    let clone = WorkingCopy::new();
    let started = std::time::Instant::now();
    let start = clone.script("run_server.sh", &[]).output().unwrap();
    assert_eq!(start.status.code(), Some(0), "{start:?}");
    let demo = clone.script("run_client.sh", &[]).output().unwrap();
    let took = started.elapsed();
    assert_eq!(demo.status.code(), Some(0), "{demo:?}");
    assert!(took.as_secs() < 20, "it took {took:?}");

    let screen = [start.stdout, demo.stdout].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    let too_wide = |line: &&str| line.chars().count() > 100 && !line.starts_with("run: ");
    assert_eq!(screen.lines().find(too_wide), None, "a screen has a hundred columns at most");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/classroom.txt");
    if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
        std::fs::write(&golden, stable(&screen)).unwrap();
    }
    let expected = std::fs::read_to_string(&golden).unwrap_or_default();
    assert_eq!(
        stable(&screen),
        expected,
        "if the screen was meant to change, set UPDATE_GOLDENFILES and say so in the change"
    );

    for (what, sign) in [
        ("a crash", "        -- s"),
        ("the acceptors that remain", " remain"),
        ("a restart", " again"),
        ("the majority of a write", ") by s"),
        ("the hardest request", " met the most failures: "),
        ("the reason why nothing was lost", "Nothing was lost: "),
        ("the command that shows it", "See it: ./run_server.sh logs --req c1-"),
    ] {
        assert!(screen.contains(sign), "the screen does not show {what}: {screen}");
    }

    let pids = clone.pids();
    assert_eq!(pids.len(), 5);
    for (pid, n) in pids.into_iter().zip(1..) {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let names: Vec<String> = threads
            .map(|thread| std::fs::read_to_string(thread.unwrap().path().join("comm")).unwrap_or_default())
            .collect();
        for role in ["proposer\n", "learner\n"] {
            assert!(names.iter().any(|name| name == role), "process {pid} has no thread {role:?}: {names:?}");
        }
        // The acceptor's thread may be down at this moment, so its lines stand for it.
        let log = std::fs::read_to_string(clone.latest().join(format!("server-{n}.log"))).unwrap();
        assert!(log.contains(" acceptor PROMISE "), "{log}");
    }
    let of = |op: &str| screen.split("== 15 operations").nth(1).unwrap().matches(&format!(" {op} ")).count();
    assert_eq!(["put", "get", "delete"].map(of), [5, 5, 5]);

    clone.run_ok("run_server.sh", &["stop"]);
    let report = clone.run_ok("run_server.sh", &["report"]);
    for point in ["G1", "G2", "G3", "G4", "G9"] {
        assert!(report.contains(&format!("[x] {point} ")), "{point} is not ticked: {report}");
    }
    assert!(clone.run_ok("run_server.sh", &["audit"]).contains("verdict: PROVED"));
}

/// A screen without what is another one each time: times, ports, processes, and what failures change.
fn stable(screen: &str) -> String {
    let mut stable = String::new();
    // The lines between the requests, and the sentences about the hardest one, say what failed in this run.
    let is_of_this_run = |line: &str| {
        let story = [
            "met the most failures: ",
            " chose it; its OK came",
            "A majority was asked before its reply",
            "Its OK came after ",
            "See it: ./run_server.sh logs --req c1-",
        ];
        line.starts_with("problems: ") || line.starts_with("        -- ") || story.iter().any(|one| line.contains(one))
    };
    for line in screen.lines().filter(|line| !is_of_this_run(line)) {
        let row = line.split_whitespace().next().unwrap_or_default();
        let shown = match line.split_once(": ") {
            Some(("run" | "watch it" | "crashes during this run" | "replica digest", _)) => {
                format!("{}: ...", line.split(": ").next().unwrap_or_default())
            }
            Some(("protocol", _)) => line.split("seed: ").next().unwrap_or_default().to_string() + "seed: ...",
            _ if line.starts_with("writes ") => "writes ...".to_string(),
            _ if row.len() == 2 && row.starts_with('s') => format!("{row} ..."),
            _ if row.parse::<u8>().is_ok() => format!("{row} ..."),
            _ if row.starts_with("c1-") => line.split(" slot=").next().unwrap_or_default().to_string(),
            _ => line.to_string(),
        };
        stable += shown.trim_end();
        stable.push('\n');
    }
    stable
}
