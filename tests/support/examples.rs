//! The examples of help texts: each is a command that can be typed.

use std::path::Path;
use std::process::{Command, Output};

use super::{program, repository};

/// A program, and the arguments that print the help text with examples.
pub type HelpPage = (&'static str, &'static [&'static str]);

pub fn run(name: &str, arguments: &[&str], dir: &Path) -> Output {
    Command::new(program(name)).args(arguments).current_dir(dir).output().unwrap()
}

/// The commands among the examples of a help page, without what is said about them.
pub fn examples(name: &str, page: &[&str]) -> Vec<Vec<String>> {
    let help = String::from_utf8(run(name, page, Path::new(".")).stdout).unwrap();
    let (_, examples) = help.split_once("Examples:").unwrap();
    let commands = examples.lines().filter_map(|line| line.split_once(&format!("{name} ")));
    let commands = commands.filter(|(before, _)| before.chars().all(|c| c == ' ' || "RUST_LOG=debug".contains(c)));
    commands
        .map(|(_, command)| command.split("  ").next().unwrap_or(command))
        .map(|command| command.split_whitespace().map(str::to_string).collect())
        .collect()
}

/// A directory with the files that the examples name: a recorded run, and a history of another project.
pub fn example_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let home = repository();
    let latest = dir.path().join("runs/latest");
    std::fs::create_dir_all(&latest).unwrap();
    for entry in std::fs::read_dir(home.join("res/sample")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "log") {
            std::fs::copy(&path, latest.join(path.file_name().unwrap())).unwrap();
        }
    }
    let history = home.join("crates/lab/tests/histories/register-overlap-ok.log");
    std::fs::copy(history, dir.path().join("register.log")).unwrap();
    dir
}

/// Checks that every example can be typed: its help is only printed if everything before `--help` is understood.
pub fn assert_parse(pages: &[HelpPage], at_least: usize) {
    let dir = example_dir();
    let mut seen = 0;
    for (name, page) in pages {
        for words in examples(name, page) {
            let words: Vec<&str> = words.iter().map(String::as_str).chain(["--help"]).collect();
            let output = run(name, &words, dir.path());
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{name} {words:?}: {complaint}");
            seen += 1;
        }
    }
    assert!(seen >= at_least, "{seen} examples");
}

/// Checks that the examples do something, but for those that `is_skipped` names: they would run for minutes, or until
/// they are stopped. Each prints something and exits with 0.
pub fn assert_run(pages: &[HelpPage], at_least: usize, is_skipped: impl Fn(&[&str]) -> bool) {
    let dir = example_dir();
    let mut seen = 0;
    for (name, page) in pages {
        for words in examples(name, page) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            if is_skipped(&words) {
                continue;
            }
            // The shell expands the star.
            let is_for_a_shell = words.iter().any(|word| word.contains('*'));
            let both = vec!["check", "runs/latest/client-1.log", "runs/latest/client-2.log"];
            let words = if is_for_a_shell { both } else { words };
            let output = run(name, &words, dir.path());
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{name} {words:?}: {complaint}");
            assert!(!output.stdout.is_empty() || !output.stderr.is_empty(), "{name} {words:?} prints nothing");
            seen += 1;
        }
    }
    assert!(seen >= at_least, "{seen} examples");
}
