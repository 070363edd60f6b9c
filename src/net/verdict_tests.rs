use super::*;
use crate::net::{AdmissionStatus, LeaderStatus, Refusal};
use crate::paxos::{Ballot, Slot};
use crate::role::RoleKind;

/// Healthy servers 1 to `count`, all linked with each other. The first leads if the protocol has leaders.
fn healthy(count: u8, protocol: Protocol) -> Vec<ServerStatus> {
    let all = ServerSet::first(count);
    let status = |server: ServerId| {
        let others = all.without(ServerSet::only(server));
        let mut status = ServerStatus::healthy(server, protocol);
        (status.connected, status.hears) = (others, others);
        status
    };
    let mut all: Vec<ServerStatus> = all.iter().map(status).collect();
    if protocol == Protocol::MultiPaxos {
        lead(&mut all, 1, 7);
    }
    all
}

fn lead(all: &mut [ServerStatus], leader: u8, round: u64) {
    let ballot = Ballot { round, server: ServerId(leader) };
    for status in all {
        status.promised = ballot;
        status.leader = Some(LeaderStatus { ballot, for_ms: 1, why: "heartbeats received".to_string() });
    }
}

fn of(count: u8, answers: &[ServerStatus]) -> AvailabilityVerdict {
    AvailabilityVerdict::of(ServerSet::first(count), answers)
}

fn says(count: u8, answers: &[ServerStatus]) -> String {
    of(count, answers).to_string()
}

/// A server of the cluster, by its number.
fn one(all: &mut [ServerStatus], server: u8) -> &mut ServerStatus {
    &mut all[usize::from(server) - 1]
}

fn end_role(all: &mut [ServerStatus], server: u8, role: RoleKind) {
    one(all, server).roles.iter_mut().find(|one| one.role == role).unwrap().up = false;
}

/// Messages from `from` to `to` are lost: both servers know it.
fn cut(all: &mut [ServerStatus], from: u8, to: u8) {
    let without = |servers: ServerSet, server| servers.without(ServerSet::only(ServerId(server)));
    one(all, from).connected = without(one(all, from).connected, to);
    one(all, to).hears = without(one(all, to).hears, from);
}

/// Neither of these servers receives messages of the other.
fn cut_both(all: &mut [ServerStatus], one: u8, other: u8) {
    cut(all, one, other);
    cut(all, other, one);
}

const PAXOS: [Protocol; 2] = [Protocol::BasicPaxos, Protocol::MultiPaxos];

#[test]
fn healthy_cluster_takes_writes_and_reports_how_many_servers_may_fail() {
    for protocol in PAXOS {
        assert_eq!(says(1, &healthy(1, protocol)), "writes OK; if one more server fails, writes may stop");
        assert_eq!(says(3, &healthy(3, protocol)), "writes OK; 1 more server may fail");
        assert_eq!(says(4, &healthy(4, protocol)), "writes OK; 1 more server may fail");
        assert_eq!(says(5, &healthy(5, protocol)), "writes OK; 2 more servers may fail");
        assert_eq!(of(5, &healthy(5, protocol)).problem(), None);
    }
    let all = healthy(3, Protocol::TwoPhaseCommit);
    assert_eq!(says(3, &all), "writes OK; two-phase commit tolerates no failure");
}

#[test]
fn server_that_does_not_reply_does_not_count() {
    for protocol in PAXOS {
        let all = healthy(5, protocol);
        assert_eq!(says(5, &all[..4]), "writes OK; 1 more server may fail");
        assert_eq!(says(5, &all[..3]), "writes OK; if one more server fails, writes may stop");
        assert_eq!(
            says(5, &all[..2]),
            "no writes: no quorum, 2 of 5 acceptors can vote and 3 are needed; no reply from s3,s4,s5"
        );
    }
    assert_eq!(
        says(3, &[]),
        "no writes: no quorum, 0 of 3 acceptors can vote and 2 are needed; no reply from s1,s2,s3"
    );
    let all = healthy(3, Protocol::TwoPhaseCommit);
    assert_eq!(
        says(3, &all[..2]),
        "no writes: 2 of 3 participants can vote, two-phase commit needs all 3; no reply from s3"
    );
}

/// Everything that makes a vote unavailable, and how it is reported.
#[test]
fn unavailable_vote_does_not_count() {
    type Spoil = fn(&mut ServerStatus);
    let spoils: [(&str, Spoil); 6] = [
        ("acceptor down", |status| status.roles[1].up = false),
        ("acceptor CORRUPT, unreadable slots: 12", |status| status.corrupt_slots = 12),
        ("disk full", |status| status.disk_full = true),
        ("FENCED, its replica diverged", |status| status.fenced = Some(Slot(5))),
        ("not admitted yet, its data directory is new", |status| {
            status.admission = Some(AdmissionStatus { witnesses: ServerSet::NONE, needed: 2 });
        }),
        ("runs two-phase-commit", |status| status.protocol = Protocol::TwoPhaseCommit.name().to_string()),
    ];
    for protocol in PAXOS {
        for (told, spoil) in spoils {
            let mut all = healthy(3, protocol);
            spoil(one(&mut all, 3));
            assert_eq!(says(3, &all), "writes OK; if one more server fails, writes may stop", "{told}");
            assert_eq!(of(3, &all).problem(), Some(format!("server 3: {told}")));
            spoil(one(&mut all, 2));
            let reason = "no writes: no quorum, 1 of 3 acceptors can vote and 2 are needed";
            assert_eq!(says(3, &all), format!("{reason}; server 2: {told}; server 3: {told}"));
        }
    }
}

#[test]
fn two_servers_count_for_each_other_only_if_both_directions_of_their_link_work() {
    for protocol in PAXOS {
        let mut all = healthy(3, protocol);
        cut(&mut all, 3, 2);
        let reason = "server 2 and server 3 are not linked: server 3 does not reach server 2";
        assert_eq!(says(3, &all), "writes OK; if one more server fails, writes may stop");
        assert_eq!(of(3, &all).problem().unwrap(), reason);

        // Without the third server, these two are all that is left.
        let verdict = of(3, &all[1..]);
        assert_eq!(verdict.writes, Writes::No);
        let why = "no server is linked with the 2 acceptors that a write needs; no reply from s1";
        assert_eq!(verdict.to_string(), format!("no writes: {why}; {reason}"));
    }
}

#[test]
fn broken_link_stops_counting_even_if_the_peer_was_heard_recently() {
    let mut all = healthy(2, Protocol::BasicPaxos);
    one(&mut all, 2).connected = ServerSet::NONE;
    assert_eq!(of(2, &all).writes, Writes::No);
    assert_eq!(of(2, &all).problems, ["server 1 and server 2 are not linked: server 2 does not reach server 1"]);
}

#[test]
fn connection_without_incoming_messages_is_no_link() {
    let mut all = healthy(2, Protocol::BasicPaxos);
    one(&mut all, 1).hears = ServerSet::NONE;
    assert_eq!(
        says(2, &all),
        "no writes: no server is linked with the 2 acceptors that a write needs; server 1 and server 2 are not linked: \
         server 1 receives nothing from server 2"
    );
}

#[test]
fn server_that_all_others_refuse_is_named_once_with_the_reason() {
    let mut all = healthy(5, Protocol::MultiPaxos);
    for other in [1, 2, 3, 5] {
        cut_both(&mut all, 4, other);
        let why = "another data directory".to_string();
        one(&mut all, 4).refusals.push(Refusal { server: ServerId(other), why });
    }
    assert_eq!(says(5, &all), "writes OK; 1 more server may fail");
    let trouble = "server 4 is linked with no other server: server 4 reports: another data directory";
    assert_eq!(of(5, &all).problems, [trouble]);
}

#[test]
fn servers_that_reply_to_clients_but_do_not_reach_each_other_take_no_writes() {
    for protocol in Protocol::ALL {
        let mut all = healthy(5, protocol);
        all.iter_mut().for_each(|status| (status.connected, status.hears) = (ServerSet::NONE, ServerSet::NONE));
        let verdict = of(5, &all);
        assert_eq!(verdict.writes, Writes::No);
        assert_eq!(verdict.problems, ["no two servers are linked: server 1 does not reach server 2"], "{protocol}");
    }
}

#[test]
fn linked_servers_without_a_leader_are_reported() {
    let mut all = healthy(3, Protocol::MultiPaxos);
    all.iter_mut().for_each(|status| status.leader = None);
    assert_eq!(of(3, &all).writes, Writes::NoLeader);
    assert_eq!(
        says(3, &all),
        "no leader at the moment: enough servers are up and linked, but none of them leads; writes wait for an election"
    );

    // The other servers know a leader that does not answer, or does not say that it leads.
    lead(&mut all, 3, 7);
    let claim = one(&mut all, 3).leader.take();
    assert_eq!(of(3, &all).writes, Writes::NoLeader);
    one(&mut all, 3).leader = claim;
    assert!(of(3, &all).is_ok());
    assert_eq!(of(3, &all[..2]).writes, Writes::NoLeader);
}

#[test]
fn leader_counts_only_if_enough_linked_acceptors_have_promised_no_higher_ballot() {
    let mut all = healthy(5, Protocol::MultiPaxos);
    [2, 3, 4].into_iter().for_each(|other| cut_both(&mut all, 1, other));
    assert_eq!(of(5, &all).writes, Writes::NoLeader);
    let told = says(5, &all);
    let why = "server 1 reports that it leads, but only 2 of the 3 acceptors it needs are linked with it and have promised no \
               higher ballot";
    assert!(told.starts_with(&format!("no leader at the moment: {why}")), "{told}");

    let mut deposed = healthy(3, Protocol::MultiPaxos);
    for server in [2, 3] {
        one(&mut deposed, server).promised = Ballot { round: 9, server: ServerId(2) };
    }
    assert_eq!(of(3, &deposed).writes, Writes::NoLeader);
    // Its successor also says that it leads: the higher ballot counts.
    let ballot = Ballot { round: 9, server: ServerId(2) };
    one(&mut deposed, 2).leader = Some(LeaderStatus { ballot, for_ms: 1, why: String::new() });
    assert!(of(3, &deposed).is_ok());
}

#[test]
fn writes_need_a_server_that_can_propose() {
    for role in [RoleKind::Proposer, RoleKind::Learner] {
        let mut all = healthy(3, Protocol::BasicPaxos);
        (1..=3).for_each(|server| end_role(&mut all, server, role));
        assert_eq!(of(3, &all).writes, Writes::NoLeader);
        let why = "no server that is linked with 2 acceptors takes writes";
        let word = role.as_str();
        assert_eq!(
            says(3, &all),
            format!(
                "no proposer at the moment: {why}; server 1: {word} down; server 2: {word} down; server 3: {word} down"
            )
        );
    }
    let mut learner = healthy(3, Protocol::MultiPaxos);
    end_role(&mut learner, 1, RoleKind::Learner);
    assert_eq!(of(3, &learner).writes, Writes::NoLeader);

    let mut all = healthy(3, Protocol::TwoPhaseCommit);
    (1..=3).for_each(|server| end_role(&mut all, server, RoleKind::Coordinator));
    assert!(says(3, &all).starts_with("no coordinator at the moment: "), "{}", says(3, &all));
}

#[test]
fn leader_with_a_full_disk_continues_while_other_servers_take_writes() {
    let mut all = healthy(3, Protocol::MultiPaxos);
    one(&mut all, 1).disk_full = true;
    assert_eq!(says(3, &all), "writes OK; if one more server fails, writes may stop");
    end_role(&mut all, 2, RoleKind::Learner);
    end_role(&mut all, 3, RoleKind::Proposer);
    let told = says(3, &all);
    assert!(
        told.contains("server 1 reports that it leads, but no server that takes writes is linked with it"),
        "{told}"
    );
}

#[test]
fn server_with_an_overdue_checkpoint_votes_but_takes_no_writes() {
    let mut all = healthy(3, Protocol::BasicPaxos);
    one(&mut all, 2).checkpoint_full = true;
    assert_eq!(says(3, &all), "writes OK; 1 more server may fail");
    (1..=3).for_each(|server| one(&mut all, server).checkpoint_full = true);
    let told = says(3, &all);
    assert!(
        told.starts_with("no proposer at the moment: no server that is linked with 2 acceptors takes writes; "),
        "{told}"
    );
}

#[test]
fn tolerated_failures_leave_a_server_with_a_quorum() {
    // Five voters, and one server that accepts writes: if it fails, no write is possible.
    let mut all = healthy(5, Protocol::BasicPaxos);
    (2..=5).for_each(|server| end_role(&mut all, server, RoleKind::Proposer));
    assert_eq!(says(5, &all), "writes OK; if one more server fails, writes may stop");
    let mut two = healthy(5, Protocol::BasicPaxos);
    (3..=5).for_each(|server| end_role(&mut two, server, RoleKind::Proposer));
    assert_eq!(says(5, &two), "writes OK; 1 more server may fail");
    // Each missing link may be the one that counts.
    let mut ring = healthy(5, Protocol::BasicPaxos);
    [(1, 3), (2, 4), (3, 5), (4, 1), (5, 2)].into_iter().for_each(|(one, other)| cut_both(&mut ring, one, other));
    assert_eq!(says(5, &ring), "writes OK; if one more server fails, writes may stop");
}

#[test]
fn two_phase_commit_needs_every_vote_and_every_link_of_one_coordinator() {
    let mut all = healthy(3, Protocol::TwoPhaseCommit);
    cut_both(&mut all, 1, 2);
    assert!(of(3, &all).is_ok(), "server 3 can");
    cut(&mut all, 3, 1);
    assert_eq!(of(3, &all).writes, Writes::No);
    let mut full = healthy(3, Protocol::TwoPhaseCommit);
    one(&mut full, 2).disk_full = true;
    assert_eq!(
        says(3, &full),
        "no writes: 2 of 3 participants can vote, two-phase commit needs all 3; server 2: disk full"
    );
}

#[test]
fn message_names_the_first_problems_and_counts_the_rest() {
    let mut all = healthy(7, Protocol::BasicPaxos);
    (1..=6).for_each(|server| one(&mut all, server).disk_full = true);
    let told = says(7, &all);
    assert!(told.ends_with("server 3: disk full; server 4: disk full; and 2 more"), "{told}");
    assert_eq!(of(7, &all).problems.len(), 6);
}
