//! Tests of the comparison: its claims about the protocols hold for several seeds.

use super::*;

fn cell(seed: u64, scenario: Scenario, protocol: Protocol) -> ComparisonCell {
    let (cell, _) = run_scenario(seed, scenario, protocol, false);
    assert_eq!(cell.verdict, RunVerdict::Clean, "{} under {}", scenario.name(), protocol.name());
    cell
}

#[test]
fn cell_is_deterministic() {
    for protocol in Protocol::ALL {
        let (one, other) = (cell(3, Scenario::LeaderDies, protocol), cell(3, Scenario::LeaderDies, protocol));
        assert_eq!((one.bars, one.unknown, one.cost.counts), (other.bars, other.unknown, other.cost.counts));
    }
}

#[test]
fn paxos_keeps_writing_with_one_server_down_and_two_phase_commit_does_not() {
    for seed in 1..=3 {
        let commit = cell(seed, Scenario::OneDown, Protocol::TwoPhaseCommit);
        assert!(commit.refused + commit.unknown > 0);
        for protocol in [Protocol::BasicPaxos, Protocol::MultiPaxos] {
            let paxos = cell(seed, Scenario::OneDown, protocol);
            assert!(paxos.longest_gap < SECOND, "{}: {}", protocol.name(), paxos.longest_gap);
            assert_eq!(paxos.in_doubt, 0);
        }
    }
}

#[test]
fn coordinator_crash_between_phases_leaves_participants_in_doubt_until_it_restarts() {
    for seed in 1..=5 {
        let gone = cell(seed, Scenario::LeaderDies, Protocol::TwoPhaseCommit);
        assert!(gone.in_doubt > 0, "seed {seed}: no transaction is in doubt");
        assert!(gone.in_doubt_for > 4 * SECOND, "seed {seed}: in doubt for {}", gone.in_doubt_for);
        let back = cell(seed, Scenario::LeaderReturns, Protocol::TwoPhaseCommit);
        assert_eq!(back.in_doubt, 0, "seed {seed}");
        for protocol in [Protocol::BasicPaxos, Protocol::MultiPaxos] {
            let paxos = cell(seed, Scenario::LeaderDies, protocol);
            assert!(paxos.longest_gap < 2 * SECOND, "{}: {}", protocol.name(), paxos.longest_gap);
        }
    }
}

#[test]
fn no_protocol_completes_all_writes_without_a_majority() {
    for protocol in Protocol::ALL {
        let cell = cell(2, Scenario::ThreeDown, protocol);
        assert!(cell.refused + cell.unknown > 0, "{}", protocol.name());
    }
}

/// The counts of docs/two-phase-commit.md: 4 messages a participant and 2n+1 syncs; messages within a server do not
/// count.
#[test]
fn two_phase_commit_write_costs_what_the_textbooks_say() {
    let cost = cell(1, Scenario::NoFault, Protocol::TwoPhaseCommit).cost;
    // Refused locks and sessions add messages; batches save syncs.
    assert!((15.5..20.0).contains(&cost.messages()), "{}", cost.messages());
    assert!((8.0..13.0).contains(&cost.syncs()), "{}", cost.syncs());
}

#[test]
fn page_has_every_cell_and_loads_nothing_else() {
    let cells: Vec<ComparisonCell> = [Scenario::NoFault, Scenario::LeaderDies]
        .into_iter()
        .flat_map(|scenario| Protocol::ALL.map(|protocol| cell(1, scenario, protocol)))
        .collect();
    let html = page::page(1, &cells);
    assert_eq!(html.matches("<svg").count(), cells.len());
    for cell in &cells {
        assert!(html.contains(&compare_command::replay(1, cell)));
    }
    assert!(!html.contains("http://") && !html.contains("https://") && !html.contains("<script"));
}
