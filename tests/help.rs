//! The examples in the server's help texts can be typed, and do what they say.

mod support;

use support::examples::{HelpPage, assert_parse, assert_run};

const PAGES: &[HelpPage] = &[("paxos-server", &["--help"]), ("paxos-server", &["timeline", "--help"])];

#[test]
fn every_example_of_the_server_can_be_typed() {
    assert_parse(PAGES, 12);
}

#[test]
fn the_examples_that_read_a_run_do_what_they_say() {
    assert_run(PAGES, 5, |words| {
        !["audit", "report", "logs", "timeline"].contains(&words[0]) || words.contains(&"runs/sim-7")
    });
}
