//! The examples in the lab's help texts can be typed, and do what they say.

#[path = "../../../tests/support/mod.rs"]
mod support;

use support::examples::{HelpPage, assert_parse, assert_run};

const PAGES: &[HelpPage] = &[
    ("paxos-lab", &["--help"]),
    ("paxos-lab", &["simulate", "--help"]),
    ("paxos-lab", &["check", "--help"]),
    ("paxos-lab", &["play", "--help"]),
    ("paxos-lab", &["chaos", "--help"]),
    ("paxos-lab", &["soak", "--help"]),
];

#[test]
fn every_example_of_the_lab_can_be_typed() {
    assert_parse(PAGES, 22);
}

#[test]
fn the_short_examples_of_the_lab_do_what_they_say() {
    assert_run(&PAGES[..3], 7, |words| words.contains(&"--minutes") || words.contains(&"1..1000"));
}
