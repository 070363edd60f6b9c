//! The packages of the workspace: the test command of the README reaches all of them, and the store needs no lab.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

fn text(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The value of a manifest as TOML.
fn manifest(path: &str) -> toml::Table {
    text(path).parse().unwrap()
}

/// The packages under `crates`.
fn packages() -> BTreeSet<String> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates");
    let entries = fs::read_dir(crates).unwrap().map(|entry| entry.unwrap());
    let packages = entries.filter(|entry| entry.path().join("Cargo.toml").exists());
    packages.map(|entry| format!("crates/{}", entry.file_name().to_string_lossy())).collect()
}

#[test]
fn the_documented_test_command_and_the_checks_reach_every_package() {
    let root = manifest("Cargo.toml");
    let members =
        root["workspace"]["members"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_string());
    assert_eq!(members.collect::<BTreeSet<_>>(), packages(), "a package is not a member of the workspace");
    for (file, commands) in [
        ("README.md", &["cargo test"][..]),
        ("CONTRIBUTING.md", &["# all tests"]),
        (".ci/run", &["cargo test", "cargo clippy", "cargo doc", "cargo fmt"]),
    ] {
        let text = text(file);
        for command in commands {
            let is_whole = |line: &&str| line.contains("--workspace") || line.contains("--all");
            let lines: Vec<&str> = text.lines().filter(|line| line.contains(command)).collect();
            assert!(lines.iter().all(is_whole), "{file}: {command} leaves out a package: {lines:?}");
        }
        assert!(text.contains("cargo test --workspace"), "{file} does not say how to run all tests");
    }
}

#[test]
fn a_build_of_the_store_builds_no_lab() {
    let root = manifest("Cargo.toml");
    assert_eq!(root["workspace"]["default-members"].as_array().unwrap(), &[toml::Value::from(".")]);
    for kind in ["dependencies", "dev-dependencies"] {
        assert!(!root[kind].as_table().unwrap().contains_key("paxos-lab"), "the store depends on its lab: {kind}");
    }
    let lab = manifest("crates/lab/Cargo.toml");
    assert!(lab["dependencies"].as_table().unwrap().contains_key("paxos-kv"));
}

/// The packages that a dependency on the store with these features compiles.
fn dependencies(features: &str) -> BTreeSet<String> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap());
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args(["tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}"]);
    cargo.args(["--package", "paxos-kv", "--no-default-features", "--features", features]);
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_string).collect()
}

#[test]
fn client_library_needs_nothing_of_the_programs() {
    let (client, programs) = (dependencies("client"), dependencies("programs"));
    for program_only in ["clap", "rustyline", "hdrhistogram", "flate2", "httparse", "signal-hook"] {
        assert!(programs.contains(program_only), "{program_only} is not among {programs:?}");
        assert!(!client.contains(program_only), "the client library compiles {program_only}");
    }
}
