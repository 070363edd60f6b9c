//! What README and the essay on Paxos quote of the sample run stands in the sample run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The words of each log line of the sample, by the line's id.
fn sample_lines() -> BTreeMap<String, BTreeSet<String>> {
    let files =
        (1..=5).map(|n| format!("server-{n}.log")).chain(["client-1.log".to_string(), "client-2.log".to_string()]);
    let mut lines = BTreeMap::new();
    for file in files {
        for line in read(&format!("res/sample/{file}")).lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            lines.insert(words[2].to_string(), words.into_iter().map(str::to_string).collect());
        }
    }
    lines
}

/// The quotes of log lines in a text: from the line's id on.
fn quotes(text: &str) -> Vec<Vec<&str>> {
    let is_id = |word: &&str| {
        let number = word.strip_prefix('s').and_then(|rest| rest.split_once('.'));
        number.is_some_and(|(server, n)| server.parse::<u8>().is_ok() && n.parse::<u64>().is_ok())
    };
    let is_role = |word: Option<&&str>| word.is_some_and(|word| ["proposer", "acceptor", "learner"].contains(word));
    let lines = text.lines().map(|line| line.trim_start_matches("//!").split_whitespace().collect::<Vec<_>>());
    lines
        .filter_map(|words| {
            let id = words.iter().position(is_id)?;
            is_role(words.get(id + 1)).then(|| words[id..].to_vec())
        })
        .collect()
}

#[test]
fn quoted_log_lines_are_those_of_the_sample_run() {
    let sample = sample_lines();
    let (readme, essay) = (read("README.md"), read("src/paxos/mod.rs"));
    for (file, text) in [("README.md", &readme), ("src/paxos/mod.rs", &essay)] {
        let quotes = quotes(text);
        assert_eq!(quotes.len(), 5, "{file} explains one command in five lines");
        for quote in quotes {
            let line = sample.get(quote[0]).unwrap_or_else(|| panic!("{file}: the sample has no line {}", quote[0]));
            for word in &quote {
                assert!(line.contains(*word), "{file}: {word} is not in line {} of the sample", quote[0]);
            }
        }
    }
    let ids = |text| quotes(text).into_iter().map(|quote| quote[0].to_string()).collect::<Vec<_>>();
    assert_eq!(ids(&readme), ids(&essay));
}

#[test]
fn quoted_screen_is_that_of_the_sample_run() {
    let (readme, screen) = (read("README.md"), read("res/sample/demo.txt"));
    let block = readme.split("```text\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let lines: Vec<&str> = block.lines().filter(|line| *line != "...").collect();
    assert!(lines.len() >= 8, "{block}");
    for line in lines {
        assert!(screen.lines().any(|shown| shown == line), "{line:?} is not on the screen of the sample run");
    }
}
