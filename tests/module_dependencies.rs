//! The pure rooms stay pure: what they may not use, they do not even name.
//!
//! Clippy forbids clocks, sockets, files and hash order there by name; this test reads their `use` lines, and every
//! path in their code, so that a role cannot reach a thread, a random number or another room by a way that no list
//! names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The simulator, seen from `src`.
const SIMULATOR: &str = "../crates/lab/src/sim";
const SIMULATOR_SERVER: &str = "../crates/lab/src/sim/server.rs";
const SIMULATOR_SCHEDULER: &str = "../crates/lab/src/sim/scheduler.rs";
/// The rooms that are functions of their inputs.
const CORE_MODULES: [&str; 4] = ["role.rs", "paxos", "kv", "two_phase_commit"];
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
const FORBIDDEN_TO_HOST: [&str; 12] = [
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
    "crate::client",
];

/// What a client decides waits for nothing either, and draws nothing that the caller has not brought.
const FORBIDDEN_TO_CLIENT_CORE: [&str; 15] = [
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
];

#[test]
fn pure_rooms_use_nothing_of_the_world() {
    use_nothing_of(&CORE_MODULES, &FORBIDDEN, 10);
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
fn use_nothing_of(modules: &[&str], forbidden: &[&str], count: usize) {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let is_test = |file: &PathBuf| file.file_name().is_some_and(|name| name.to_string_lossy().ends_with("_tests.rs"));
    let files: Vec<PathBuf> =
        modules.iter().flat_map(|room| files(&src.join(room))).filter(|one| !is_test(one)).collect();
    assert!(files.len() > count, "the rooms have moved: only {files:?} were found");
    for file in files {
        let text = fs::read_to_string(&file).expect("a source file can be read");
        for path in paths(&text) {
            let broken = forbidden.iter().find(|forbidden| is_in(&path, forbidden));
            assert!(broken.is_none(), "{} uses {path}, which is no business of this room", file.display());
        }
    }
}

/// What a client is told, what a caller is answered, and why a life does not begin: written by the core alone. Those
/// who run it hand such words on, and do not even name most of them.
#[test]
fn only_the_core_refuses_and_answers() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let simulator =
        ["server.rs", "process_env.rs", "scheduler.rs", "two_phase.rs"].map(|file| format!("{SIMULATOR}/{file}"));
    let shells = ["server".to_string()].into_iter().chain(simulator);
    let words = [
        "WhyNotApplied::",
        "WhyUnknown::",
        "Reply::",
        "HelloReply::",
        "RecoveryError::NoRoom(format",
        "RecoveryError::Failed(format",
        "RecoveryError::Broken(format",
        "delivery::DropReason",
        "seeded_bugs::is_enabled",
    ];
    let is_test = |file: &PathBuf| file.file_name().is_some_and(|name| name.to_string_lossy().ends_with("_tests.rs"));
    let files: Vec<PathBuf> = shells.flat_map(|shell| files(&src.join(shell))).collect();
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

/// What differs between the protocols is their roles, and what a server chose when it started. Paxos knows of no other
/// protocol, and the journal of no role.
#[test]
fn the_protocol_is_chosen_once() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let rules: [(&[&str], &[&str], usize); 3] = [
        (&["host", "server", "storage", SIMULATOR_SERVER, SIMULATOR_SCHEDULER], &["is_paxos"], 50),
        (&["paxos"], &["two_phase", "TwoPhase", "Coordinator", "Participant", "Family", "Protocol"], 20),
        (&["storage/journal", "storage/journal/mod.rs"], &["Acceptor", "Coordinator", "Participant"], 4),
    ];
    for (rooms, words, count) in rules {
        let all = rooms.iter().flat_map(|room| files(&src.join(room)));
        // What it forges for tests are an acceptor's records, and so are those of its tests.
        let ships =
            |file: &PathBuf| !file.to_string_lossy().contains("tests") && !file.ends_with("journal/malformed.rs");
        let all: Vec<PathBuf> = all.filter(ships).collect();
        assert!(all.len() > count, "the rooms have moved: only {all:?} were found");
        for file in all {
            let text = code(&fs::read_to_string(&file).expect("a source file can be read"));
            let named = words.iter().find(|word| text.contains(**word));
            assert!(named.is_none(), "{} names {named:?}", file.display());
        }
    }
}

/// What makes a cluster unsafe on purpose, or takes its time and timers out of its hands, is for the lab alone.
#[test]
fn unsafe_modes_of_the_lab_are_named_in_the_lab_alone() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let words = ["that_may_miss", "by_hand", "LocalRead", "local_read", ".run_out("];
    let is_home = |file: &Path, word: &str| match word {
        "that_may_miss" => file.ends_with("paxos/quorum.rs"),
        ".run_out(" => file.ends_with("host/timers.rs") || file.ends_with("host/role_host.rs"),
        _ => false,
    };
    let all = files(&src);
    assert!(all.len() > 100, "the sources have moved");
    for file in all.into_iter().filter(|file| !file.to_string_lossy().contains("tests")) {
        let text = code(&fs::read_to_string(&file).expect("a source file can be read"));
        let named = words.iter().find(|word| text.contains(**word) && !is_home(&file, word));
        assert!(named.is_none(), "{} names {named:?}, which is for the lab alone", file.display());
    }
    let lab = src.join(SIMULATOR);
    let texts: String =
        files(&lab).iter().map(|file| fs::read_to_string(file).expect("a source file can be read")).collect();
    assert!(words[..2].iter().all(|word| texts.contains(word)), "the lab calls them something else");
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
    let rooms = ["paxos", "two_phase_commit", "kv", "storage", "host", "client", "net"];
    for file in rooms.iter().flat_map(|room| files(&src.join(room))) {
        let text = fs::read_to_string(&file).expect("a source file can be read");
        let is_rules = file.file_name().is_some_and(|name| name == "rules.rs");
        let named = paths(&text).into_iter().find(|path| path.contains("seeded_bugs"));
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

#[test]
fn no_two_files_of_paxos_import_each_other() {
    let imports = imports_within(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "paxos");
    assert!(imports.len() > 15, "the room has moved: only {:?} were found", imports.keys());
    let learner = &imports["paxos::learner"];
    assert!(learner.contains("paxos::learner::quorum_reads"), "the learner has moved: it imports {learner:?}");
    let circles = cycles(&imports);
    assert!(circles.is_empty(), "of these files each needs all the others to be understood: {circles:?}");
}

#[test]
fn no_part_of_a_paxos_role_knows_the_role() {
    let imports = imports_within(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "paxos");
    let below = imports.keys().filter(|module| module.matches("::").count() > 1);
    let below = below.map(|module| (module.clone(), module[..module.rfind("::").unwrap_or(0)].to_string()));
    for (part, role) in below {
        assert!(!imports[&part].contains(&role), "{part} imports {role}, which is made of it");
        let is_used = imports[&role].contains(&part);
        assert!(is_used, "{role} has a part that it does not import: {part}");
    }
}

#[test]
fn a_circle_is_found_however_long_it_is_and_through_names_that_are_passed_on() {
    let room = [
        ("paxos", "mod learner;\nmod quorum_reads;\npub use learner::{Learner, WINDOW as WIDTH,};\npub struct Life;"),
        ("paxos::learner", "mod words;\npub use self::words::Word;\nuse super::quorum_reads::Reads;"),
        ("paxos::learner::words", "use super::super::Life;\nuse crate::role::Server;"),
        ("paxos::quorum_reads", "use super::{Life,};\n#[cfg(test)]\nmod tests {\n    use super::*;\n}"),
    ];
    let found = |more: &[(&str, &str)]| {
        let more = |name| more.iter().filter(move |(to, _)| *to == name).map(|(_, text)| *text).collect::<String>();
        let texts = room.iter().map(|(name, text)| (name.to_string(), format!("{}\n{text}", more(*name))));
        let all = cycles(&imports_of(texts.collect()));
        all.into_iter().map(|one| one.into_iter().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    assert_eq!(found(&[]), [""; 0]);
    for way in ["use super::learner::Learner;", "use super::{Life, WIDTH as W};", "fn f() { crate::paxos::Learner; }"] {
        assert_eq!(found(&[("paxos::quorum_reads", way)]), ["paxos::learner paxos::quorum_reads"], "{way}");
    }
    assert_eq!(found(&[("paxos::learner::words", "use super::Open;")]), ["paxos::learner paxos::learner::words"]);
    let words = ("paxos::quorum_reads", "use crate::paxos::learner::Word;");
    assert_eq!(found(&[words]), [""; 0], "the learner only passes it on");
    let long = found(&[words, ("paxos::learner::words", "use crate::{paxos::{Learner}, role};")]);
    assert_eq!(long, ["paxos::learner paxos::learner::words paxos::quorum_reads"]);
}

/// By module, the modules of a room that each file imports: where a name is defined, not where it is passed on.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// What the files of a room import of each other. Tests stand outside of it: nothing imports them.
fn imports_within(src: &Path, module: &str) -> Imports {
    let is_test = |path: &Path| path.components().any(|part| part.as_os_str().to_string_lossy().contains("tests"));
    let mut texts = BTreeMap::new();
    for file in files(&src.join(module)) {
        let path = file.strip_prefix(src).expect("the room is in src").with_extension("");
        if is_test(&path) {
            continue;
        }
        let parts: Vec<String> = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        let module = parts.join("::");
        let module = module.strip_suffix("::mod").unwrap_or(&module).to_string();
        texts.insert(module, fs::read_to_string(&file).expect("a source file can be read"));
    }
    imports_of(texts)
}

fn imports_of(texts: BTreeMap<String, String>) -> Imports {
    let without_tests = |text: &str| text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_string();
    let texts: BTreeMap<_, _> = texts.into_iter().map(|(module, text)| (module, without_tests(&text))).collect();
    let passed_on: BTreeMap<&str, Vec<(String, String)>> =
        texts.iter().map(|(module, text)| (module.as_str(), reexports(module, text))).collect();
    let mut imports = Imports::new();
    for (module, text) in &texts {
        // What the head of a room passes on, it need not understand.
        let used = if module.contains("::") { paths(text) } else { paths(&without_pub_use(text)) };
        let used = used.iter().filter_map(|path| absolute(module, path, &texts));
        let homes: BTreeSet<String> = used.filter_map(|path| defining_module(&path, &texts, &passed_on)).collect();
        imports.insert(module.clone(), homes.into_iter().filter(|home| home != module).collect());
    }
    imports
}

/// The names that a module passes on by `pub use`, and where it has them from.
fn reexports(module: &str, text: &str) -> Vec<(String, String)> {
    let mut names = Vec::new();
    for part in code(text).split("pub use ").skip(1) {
        let mut all = Vec::new();
        expand_braces("", &tree(part), &mut all);
        for path in all.iter().filter(|path| !path.ends_with("::")) {
            let last = path.rsplit("::").next().unwrap_or_default();
            let (path, name) = path.split_once(" as ").unwrap_or((path, last));
            let path = path.strip_prefix("self::").unwrap_or(path);
            let from = path.strip_prefix("crate::").map_or_else(|| format!("{module}::{path}"), str::to_string);
            names.push((name.to_string(), from));
        }
    }
    names
}

/// A text whose `pub use` lines are gone: to pass a name on is not to need it.
fn without_pub_use(text: &str) -> String {
    let code = code(text);
    let mut parts = code.split("pub use ");
    let first = parts.next().unwrap_or_default().to_string();
    parts.fold(first, |all, part| all + part.split_once(';').map_or("", |(_, rest)| rest))
}

/// A path as seen from the crate, if it leads into one of these modules.
fn absolute(module: &str, path: &str, texts: &BTreeMap<String, String>) -> Option<String> {
    if path.ends_with("::") {
        // A brace follows, and what is in it is read by itself; or a comma that ends a list.
        return None;
    }
    let mut base = module.to_string();
    let mut rest = path;
    if let Some(path) = rest.strip_prefix("crate::") {
        (base, rest) = (String::new(), path);
    } else if let Some(path) = rest.strip_prefix("self::") {
        rest = path;
    } else if !rest.starts_with("super::") {
        // A module of this file's own, or something of the world.
        let first = rest.split("::").next().unwrap_or_default();
        texts.contains_key(&format!("{module}::{first}")).then_some(())?;
    }
    while let Some(path) = rest.strip_prefix("super::") {
        rest = path;
        base = base.rsplit_once("::").map_or(String::new(), |(before, _)| before.to_string());
    }
    let path = if base.is_empty() { rest.to_string() } else { format!("{base}::{rest}") };
    let room = path.split("::").next().unwrap_or_default();
    texts.contains_key(room).then_some(path)
}

/// The module in which the thing at this path is defined.
fn defining_module(
    path: &str,
    texts: &BTreeMap<String, String>,
    passed_on: &BTreeMap<&str, Vec<(String, String)>>,
) -> Option<String> {
    let mut module = path;
    while !texts.contains_key(module) {
        module = module.rsplit_once("::")?.0;
    }
    let name = path[module.len()..].trim_start_matches("::").split("::").next().unwrap_or_default();
    let from = passed_on[module].iter().find(|(passed, _)| passed == name);
    match from {
        Some((_, from)) => defining_module(from, texts, passed_on),
        None => Some(module.to_string()),
    }
}

/// The sets of files of which each reaches each other by imports.
fn cycles(imports: &Imports) -> Vec<BTreeSet<String>> {
    let reach: BTreeMap<&String, BTreeSet<&String>> =
        imports.keys().map(|from| (from, reached(from, imports))).collect();
    let circle = |from: &String| -> BTreeSet<String> {
        let both = reach[from].iter().filter(|to| reach.get(**to).is_some_and(|back| back.contains(from)));
        both.map(|to| to.to_string()).collect()
    };
    let circles: BTreeSet<BTreeSet<String>> = imports.keys().map(circle).filter(|one| !one.is_empty()).collect();
    circles.into_iter().collect()
}

/// Every file that one reaches by imports.
fn reached<'a>(from: &'a String, imports: &'a Imports) -> BTreeSet<&'a String> {
    let (mut all, mut todo) = (BTreeSet::new(), vec![from]);
    while let Some(next) = todo.pop() {
        todo.extend(imports.get(next).into_iter().flatten().filter(|to| all.insert(*to)));
    }
    all
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

/// A text without its comments.
fn code(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Every path that the text uses: those of its `use` lines, braces undone, and those written out in its code.
fn paths(text: &str) -> Vec<String> {
    let code = code(text);
    let mut paths = Vec::new();
    for part in code.split("use ").skip(1) {
        expand_braces("", &tree(part), &mut paths);
    }
    // What it is called here does not matter.
    paths.iter_mut().for_each(|path| path.truncate(path.find(" as ").unwrap_or(path.len())));
    let words = code.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
    paths.extend(words.filter(|word| word.contains("::")).map(str::to_string));
    paths
}

/// What stands between `use` and its semicolon, on one line.
fn tree(part: &str) -> String {
    part.split(';').next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `std::{fmt, net::TcpStream}` is `std::fmt` and `std::net::TcpStream`.
fn expand_braces(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    match tree.split_once('{') {
        None => paths.push(format!("{prefix}{tree}")),
        Some((head, rest)) => {
            let inner = rest.strip_suffix('}').unwrap_or(rest);
            for branch in branches(inner) {
                expand_braces(&format!("{prefix}{head}"), branch, paths);
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
