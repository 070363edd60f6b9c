//! What the help texts show can be typed, and does what they say.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

/// The lab and the server, and where each tells of examples.
const PAGES: &[(&str, &str, &[&str])] = &[
    ("paxos-lab", env!("CARGO_BIN_EXE_paxos-lab"), &["--help"]),
    ("paxos-lab", env!("CARGO_BIN_EXE_paxos-lab"), &["simulate", "--help"]),
    ("paxos-lab", env!("CARGO_BIN_EXE_paxos-lab"), &["check", "--help"]),
    ("paxos-lab", env!("CARGO_BIN_EXE_paxos-lab"), &["chaos", "--help"]),
    ("paxos-lab", env!("CARGO_BIN_EXE_paxos-lab"), &["soak", "--help"]),
    ("paxos-server", env!("CARGO_BIN_EXE_paxos-server"), &["--help"]),
];

fn run(program: &str, words: &[&str], folder: &Path) -> Output {
    Command::new(program).args(words).current_dir(folder).output().unwrap()
}

/// The commands among the examples of a help page, without what is said about them.
fn examples(name: &str, program: &str, page: &[&str]) -> Vec<Vec<String>> {
    let help = String::from_utf8(run(program, page, Path::new(".")).stdout).unwrap();
    let (_, examples) = help.split_once("Examples:").unwrap();
    let commands = examples.lines().filter_map(|line| line.split_once(&format!("{name} ")));
    let commands = commands.filter(|(before, _)| before.chars().all(|c| c == ' ' || "RUST_LOG=debug".contains(c)));
    commands
        .map(|(_, command)| command.split("  ").next().unwrap_or(command))
        .map(|command| command.split_whitespace().map(str::to_string).collect())
        .collect()
}

/// A folder in which the examples find what they name: a recorded run, and a history of somebody else's.
fn folder_of_examples() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let latest = folder.path().join("runs/latest");
    std::fs::create_dir_all(&latest).unwrap();
    for entry in std::fs::read_dir(home.join("res/sample")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "log") {
            std::fs::copy(&path, latest.join(path.file_name().unwrap())).unwrap();
        }
    }
    let history = home.join("tests/histories/register-overlap-ok.log");
    std::fs::copy(history, folder.path().join("register.log")).unwrap();
    folder
}

#[test]
fn every_example_of_the_lab_and_of_the_server_can_be_typed() {
    let folder = folder_of_examples();
    let mut seen = 0;
    for (name, program, page) in PAGES {
        for words in examples(name, program, page) {
            // The help of the same command is only printed if everything before it is understood.
            let words: Vec<&str> = words.iter().map(String::as_str).chain(["--help"]).collect();
            let output = run(program, &words, folder.path());
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{name} {words:?}: {complaint}");
            seen += 1;
        }
    }
    assert!(seen >= 20, "{seen} examples");
}

#[test]
fn the_examples_of_the_lab_do_what_they_say() {
    let folder = folder_of_examples();
    let mut seen = 0;
    for (name, program, page) in &PAGES[..3] {
        for words in examples(name, program, page) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            // Those that take minutes are typed above.
            if words.contains(&"--minutes") || words.contains(&"1..1000") {
                continue;
            }
            // What a shell makes of the star.
            let is_for_a_shell = words.iter().any(|word| word.contains('*'));
            let both = vec!["check", "runs/latest/client-1.log", "runs/latest/client-2.log"];
            let words = if is_for_a_shell { both } else { words };
            let output = run(program, &words, folder.path());
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{name} {words:?}: {complaint}");
            assert!(!output.stdout.is_empty() || !output.stderr.is_empty(), "{name} {words:?} says nothing");
            seen += 1;
        }
    }
    assert!(seen >= 12, "{seen} examples");
}
