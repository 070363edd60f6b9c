//! Runs the fuzz targets on all inputs kept from earlier fuzzing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A directory below `fuzz/`.
fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz").join(name)
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// Prints the name of the input that caused a panic.
struct Running(PathBuf);

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("broken by {}", self.0.display());
        }
    }
}

fn replay(name: &str, target: fn(&[u8])) {
    let folder = folder("corpus").join(name);
    let files = names(&folder);
    assert!(files.len() > 3, "the corpus of {name} is nearly empty");
    for file in files {
        let running = Running(folder.join(file));
        target(&fs::read(&running.0).unwrap());
    }
    target(b"");
}

macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        const TARGETS: &[&str] = &[$(stringify!($name)),*];

        mod corpus_of {
            $(#[test]
            fn $name() {
                super::replay(stringify!($name), crate::fuzz::$name);
            })*
        }
    };
}

targets![
    choices, cluster, exercises, folder, frames, handshake, histories, http, journal, lines, messages, operations,
    records, requests, runs, state
];

#[test]
fn every_target_is_fuzzed_and_replayed() {
    let targets: BTreeSet<String> = TARGETS.iter().map(ToString::to_string).collect();
    let programs = names(&folder("fuzz_targets"));
    let fuzzed: BTreeSet<String> = programs.iter().map(|file| file.trim_end_matches(".rs").to_string()).collect();
    assert_eq!(targets, fuzzed);
    assert_eq!(targets, names(&folder("corpus")));
}
