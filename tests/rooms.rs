//! The pure rooms stay pure: what they may not use, they do not even name.
//!
//! Clippy forbids clocks, sockets, files and hash order there by name; this test reads their `use` lines, and every path
//! in their code, so that a role cannot reach a thread, a random number or another room by a way that no list names.

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms that are functions of their inputs.
const ROOMS: [&str; 4] = ["role.rs", "paxos", "kv", "two_phase_commit"];
/// Paths that would make them something else.
const FORBIDDEN: [&str; 14] = [
    "std::net",
    "std::fs",
    "std::thread",
    "std::time",
    "std::env",
    "std::process",
    "std::sync::Mutex",
    "std::sync::mpsc",
    "rand",
    "crate::server",
    "crate::net",
    "crate::storage",
    "crate::trace",
    "crate::client",
];

/// What a server decides waits for nothing, and knows neither of those who run it.
const FORBIDDEN_TO_HOST: [&str; 14] = [
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::fs",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::sync::Condvar",
    "std::sync::mpsc",
    "crossbeam_channel",
    "rand",
    "crate::server",
    "crate::sim",
    "crate::chaos",
    "crate::client",
];

/// What a client decides waits for nothing either, and draws nothing that the caller has not brought.
const FORBIDDEN_TO_CLIENT_CORE: [&str; 17] = [
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::fs",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::sync::Mutex",
    "std::sync::Condvar",
    "std::sync::mpsc",
    "crossbeam_channel",
    "rand",
    "getrandom",
    "socket2",
    "crate::server",
    "crate::sim",
    "crate::chaos",
];

#[test]
fn pure_rooms_use_nothing_of_the_world() {
    use_nothing_of(&ROOMS, &FORBIDDEN, 10);
}

#[test]
fn what_a_server_decides_waits_for_nothing() {
    use_nothing_of(&["host"], &FORBIDDEN_TO_HOST, 5);
}

#[test]
fn what_a_client_decides_waits_for_nothing() {
    use_nothing_of(&["client/core"], &FORBIDDEN_TO_CLIENT_CORE, 7);
}

/// No file of these rooms names one of these paths. There are more than `count` files, or the rooms have moved.
fn use_nothing_of(rooms: &[&str], forbidden: &[&str], count: usize) {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let is_test = |file: &PathBuf| file.file_name().is_some_and(|name| name.to_string_lossy().ends_with("_tests.rs"));
    let files: Vec<PathBuf> =
        rooms.iter().flat_map(|room| files(&src.join(room))).filter(|one| !is_test(one)).collect();
    assert!(files.len() > count, "the rooms have moved: only {files:?} were found");
    for file in files {
        let text = fs::read_to_string(&file).expect("a source file can be read");
        for path in paths(&text) {
            let broken = forbidden.iter().find(|forbidden| is_in(&path, forbidden));
            assert!(broken.is_none(), "{} uses {path}, which is no business of this room", file.display());
        }
    }
}

/// What a client is told, what a caller is answered, and why a life does not begin: written by the core alone. Those who run
/// it hand such words on, and do not even name most of them.
#[test]
fn only_the_core_refuses_and_answers() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let shells = ["server", "sim/server.rs", "sim/surroundings.rs", "sim/turns.rs", "sim/two_phase.rs"];
    let words = [
        "WhyNotApplied::",
        "Unknown::",
        "Reply::",
        "Answer::",
        "Unborn::NoRoom(format",
        "Unborn::Failed(format",
        "Unborn::Broken(format",
        "delivery::Cause",
        "museum::is",
    ];
    let is_test = |file: &PathBuf| file.file_name().is_some_and(|name| name.to_string_lossy().ends_with("_tests.rs"));
    let files: Vec<PathBuf> = shells.iter().flat_map(|shell| files(&src.join(shell))).collect();
    assert!(files.len() > 15, "the shells have moved: only {files:?} were found");
    for file in files.iter().filter(|file| !is_test(file)) {
        let text = fs::read_to_string(file).expect("a source file can be read");
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            let word = words.iter().find(|word| line.contains(**word));
            assert!(word.is_none(), "{} decides what the core decides: {line}", file.display());
        }
    }
}

#[test]
fn pure_rooms_deny_what_clippy_knows_at_their_head() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for head in ["role.rs", "paxos/mod.rs", "kv/mod.rs", "two_phase_commit/mod.rs"] {
        let text = fs::read_to_string(src.join(head)).expect("a source file can be read");
        let denied = text.contains("#![deny(clippy::disallowed_methods, clippy::disallowed_types)]");
        assert!(denied, "src/{head} denies nothing");
    }
}

#[test]
fn of_the_files_that_ship_only_the_rules_know_of_seeded_bugs() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let rooms = ["paxos", "two_phase_commit", "kv", "storage"];
    for file in rooms.iter().flat_map(|room| files(&src.join(room))) {
        let text = fs::read_to_string(&file).expect("a source file can be read");
        let is_rules = file.file_name().is_some_and(|name| name == "rules.rs");
        let named = paths(&text).into_iter().find(|path| path.contains("museum"));
        assert!(is_rules || named.is_none(), "{} uses {named:?}: that belongs into rules.rs", file.display());
    }
}

#[test]
fn every_way_of_writing_a_use_is_read() {
    let text = "use std::{fmt, net::TcpStream};\nuse rand_pcg::Pcg32;\nuse crate::{kv, storage::{Disk, Journal}};\n\
                fn f() { let t = std::time::Instant::now(); }\n// use std::fs; in a comment is no use";
    let found = paths(text);
    for wanted in ["std::fmt", "std::net::TcpStream", "rand_pcg::Pcg32", "crate::storage::Journal"] {
        assert!(found.iter().any(|path| path == wanted), "{wanted} is not in {found:?}");
    }
    assert!(found.iter().any(|path| is_in(path, "std::time")));
    assert!(found.iter().any(|path| is_in(path, "rand")));
    assert!(!found.iter().any(|path| is_in(path, "std::fs")));
}

/// Whether a path leads into a forbidden place: `rand` stands for the whole family of crates.
fn is_in(path: &str, forbidden: &str) -> bool {
    let rest = path.strip_prefix(forbidden);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::") || (forbidden == "rand" && rest.starts_with('_')))
}

fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_path_buf()];
    }
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    entries.flat_map(|entry| files(&entry.expect("a folder can be read").path())).collect()
}

/// Every path that the text uses: those of its `use` lines, braces undone, and those written out in its code.
fn paths(text: &str) -> Vec<String> {
    let code: String =
        text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let mut paths = Vec::new();
    for part in code.split("use ").skip(1) {
        let tree: String = part.split(';').next().unwrap_or_default().split_whitespace().collect();
        undo_braces("", &tree, &mut paths);
    }
    let words = code.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
    paths.extend(words.filter(|word| word.contains("::")).map(str::to_string));
    paths
}

/// `std::{fmt, net::TcpStream}` is `std::fmt` and `std::net::TcpStream`.
fn undo_braces(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    match tree.split_once('{') {
        None => paths.push(format!("{prefix}{tree}")),
        Some((head, rest)) => {
            let inner = rest.strip_suffix('}').unwrap_or(rest);
            for branch in branches(inner) {
                undo_braces(&format!("{prefix}{head}"), branch, paths);
            }
        }
    }
}

/// Cuts at the commas that stand in no inner brace.
fn branches(tree: &str) -> Vec<&str> {
    let (mut depth, mut start, mut branches) = (0, 0, Vec::new());
    for (at, c) in tree.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                branches.push(&tree[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    branches.push(&tree[start..]);
    branches
}
