//! Scenarios: text files that say what happens to a cluster of roles, and what the roles then do.
//!
//! Each file under `tests/scenarios` has one idea, told by its first line. A block of commands is followed by
//! everything that came of it: what became durable (`disk`), what was sent (`->`), armed (`timer`), decided and told.
//! The commands are described at [`Scenario::command`]. After a change that is meant, `UPDATE_GOLDENFILES=1 cargo test
//! --test scenarios` writes the files anew; read the difference before you believe it.

mod role_cluster;

/// The little language of the files, and the words of their output.
#[path = "role_cluster/scenario.rs"]
mod scenario;

use std::path::Path;

use scenario::Scenario;

/// One test a file, and one that no file is forgotten.
macro_rules! scenarios {
    ($($area:ident { $($case:ident)* })*) => {
        $(mod $area {
            $(#[test]
            fn $case() {
                super::run(stringify!($area), stringify!($case));
            })*
        })*

        #[test]
        fn every_file_is_a_test() {
            let listed: &[&str] = &[$($(concat!(stringify!($area), "/", stringify!($case)),)*)*];
            for area in [$(stringify!($area)),*] {
                for file in std::fs::read_dir(dir().join(area)).expect("the directory exists") {
                    let name = file.expect("it can be read").file_name();
                    let path = format!("{area}/{}", name.to_string_lossy());
                    assert!(listed.contains(&path.as_str()), "tests/scenarios/{path} is not listed in tests/scenarios.rs");
                }
            }
        }
    };
}

scenarios! {
    acceptor {
        accept_again accept_raises_promise crash_after_sync crash_before_sync crash_in_a_batch equal_prepare_is_answered_again
        large_promise_in_pages nack promise promises_survive read_replies
    }
    proposer {
        adopts_the_highest_ballot corrupt_slot_is_never_free duplicate_command dropped_when_applied_by_another
        fill_and_recovery holes_become_noops lets_its_learner_catch_up learner_down not_applied_only_if_never_proposed
        pages_of_a_promise proposes_again_in_a_new_slot rounds_survive no_replies stale_promises stale_round_prepares_again_once
        truncated_closes
    }
    learner {
        progress_reveals_missed_chosen catches_up_in_pieces chosen_for_another_ballot counts_distinct_acceptors_of_one_ballot
        counts_its_own_ballots_only fences_when_outvoted skips_peers_without_entries read_does_not_join_a_round
        read_fills read_retries_with_a_new_id starts_from_nothing
    }
    leader {
        batches election fill forwarding higher_ballot_wins leader_refused leader_without_progress leader_without_replies new_leader_finishes
        no_leader not_the_leader pre_vote_refused leader_hint resend restart
    }
    cluster {
        command_adopted_by_a_rival duel five_servers_two_down lost_memory_is_unsafe restart_at_every_step
        rival_kills_an_accept_in_flight two_servers_at_once write
    }
}

fn dir() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios"))
}

fn run(area: &str, case: &str) {
    let path = dir().join(area).join(case);
    if let Err(error) = goldenscript::run(&mut Scenario::default(), &path) {
        panic!("{area}/{case}: {error}");
    }
}
