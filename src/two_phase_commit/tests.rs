//! The two roles step by step: their records, their messages, and what they must not do.

use std::collections::VecDeque;

use super::*;
use crate::kv::{self, ApplyResult, Kv, Op, ReadQuery, WriteResult};
use crate::paxos::{Command, CommandId, Slot};
use crate::role::{Action, Input, Role, ServerId, ServerSet, step_batch};

/// Five servers without clocks: messages are delivered in order, time-outs when a test says so.
struct CommitCluster {
    coordinators: Vec<Coordinator>,
    participants: Vec<Participant>,
    coordinator_disks: Vec<Vec<CoordinatorRecord>>,
    participant_disks: Vec<Vec<ParticipantRecord>>,
    /// Roles that receive nothing.
    down: Vec<(ServerId, bool)>,
    mail: VecDeque<(ServerId, ServerId, CommitMessage)>,
    outcomes: Vec<(ServerId, CoordinatorNotification)>,
    answers: Vec<(ServerId, ParticipantNotification)>,
    facts: Vec<String>,
    sent: usize,
}

const COORDINATOR: bool = true;
const PARTICIPANT: bool = false;

pub(super) fn all() -> ServerSet {
    ServerSet::first(5)
}

fn at(server: ServerId) -> usize {
    usize::from(server.0) - 1
}

pub(super) fn open(nonce: u128) -> Command {
    kv::KvCommand::Open { nonce, label: "c1-1".to_string() }.to_paxos()
}

/// A write in a session whose nonce is the number of the transaction that opened it.
pub(super) fn put(session: u64, sequence: u64, key: &str) -> Command {
    let nonce = TransactionId::of_slot(Slot(session)).number.into();
    let op = Op::Put { key: key.into(), value: format!("{sequence}").into_bytes().into(), if_version: None };
    kv::KvCommand::Write { session, nonce, sequence, first_open: 1, label: "c1-2".to_string(), op }.to_paxos()
}

impl CommitCluster {
    fn new() -> CommitCluster {
        CommitCluster {
            coordinators: all().iter().map(|me| Coordinator::new(me, all())).collect(),
            participants: all().iter().map(|me| Participant::new(me, all(), Kv::with_sessions_at_most(2))).collect(),
            coordinator_disks: vec![Vec::new(); 5],
            participant_disks: vec![Vec::new(); 5],
            down: Vec::new(),
            mail: VecDeque::new(),
            outcomes: Vec::new(),
            answers: Vec::new(),
            facts: Vec::new(),
            sent: 0,
        }
    }

    fn coordinator(&mut self, server: ServerId, input: Input<Coordinator>) {
        if self.down.contains(&(server, COORDINATOR)) {
            return;
        }
        let stepped = step_batch(&mut self.coordinators[at(server)], [((), input)], true);
        self.coordinator_disks[at(server)].extend(stepped.records().iter().cloned());
        for action in stepped.commit(&mut CommitDisk).unwrap().into_actions().remove(0).1 {
            match action {
                Action::Send { to, message } => self.send(server, to, &message),
                Action::Notify(outcome) => self.outcomes.push((server, outcome)),
                Action::Trace(trace_event) => self.facts.push(format!("{server} {trace_event:?}")),
                Action::Arm(_) => {}
            }
        }
    }

    fn participant(&mut self, server: ServerId, input: Input<Participant>) {
        if self.down.contains(&(server, PARTICIPANT)) {
            return;
        }
        let stepped = step_batch(&mut self.participants[at(server)], [((), input)], true);
        self.participant_disks[at(server)].extend(stepped.records().iter().cloned());
        for action in stepped.commit(&mut CommitDisk).unwrap().into_actions().remove(0).1 {
            match action {
                Action::Send { to, message } => self.send(server, to, &message),
                Action::Notify(outcome) => self.answers.push((server, outcome)),
                Action::Trace(trace_event) => self.facts.push(format!("{server} {trace_event:?}")),
                Action::Arm(_) => {}
            }
        }
    }

    fn send(&mut self, from: ServerId, to: ServerSet, message: &CommitMessage) {
        self.sent += to.len();
        self.mail.extend(to.iter().map(|to| (from, to, message.clone())));
    }

    /// Delivers all messages, and those sent in reply.
    fn deliver(&mut self) {
        self.deliver_while(|_| true);
    }

    /// Delivers the messages that fit, in order; the others stay in flight.
    fn deliver_while(&mut self, fits: impl Fn(&(ServerId, ServerId, CommitMessage)) -> bool) {
        while let Some(next) = self.mail.iter().position(&fits) {
            let Some((from, to, message)) = self.mail.remove(next) else { return };
            for role in message.recipients() {
                let message = message.clone();
                match role {
                    crate::role::RoleKind::Coordinator => self.coordinator(to, Input::Message { from, message }),
                    _ => self.participant(to, Input::Message { from, message }),
                }
            }
        }
    }

    fn ask(&mut self, server: u8, command: Command) {
        self.coordinator(ServerId(server), Input::Request(CoordinatorRequest::Propose(command)));
    }

    fn look(&mut self, times: u32) {
        for _ in 0..times {
            for server in all().iter() {
                self.participant(server, Input::Timeout(ParticipantTimer::Look));
            }
            self.deliver();
        }
    }

    fn tick(&mut self, times: u32) {
        for _ in 0..times {
            for server in all().iter() {
                self.coordinator(server, Input::Timeout(CoordinatorTimer::Tick));
            }
            self.deliver();
        }
    }

    /// Opens a session through server 1.
    fn session(&mut self, nonce: u128) -> u64 {
        self.ask(1, open(nonce));
        self.deliver();
        match self.outcomes.pop() {
            Some((_, CoordinatorNotification::Done { outcome: ApplyResult::Opened { session, .. }, .. })) => session,
            other => panic!("no session: {other:?}"),
        }
    }

    fn restart_coordinator(&mut self, server: u8) {
        let server = ServerId(server);
        let mut fresh = Coordinator::new(server, all());
        self.coordinator_disks[at(server)].iter().for_each(|record| fresh.replay(record.clone()));
        self.coordinators[at(server)] = fresh;
        self.down.retain(|one| *one != (server, COORDINATOR));
        self.coordinator(server, Input::Start);
    }

    fn restart_participant(&mut self, server: u8) {
        let server = ServerId(server);
        let mut fresh = Participant::new(server, all(), Kv::with_sessions_at_most(2));
        self.participant_disks[at(server)].iter().for_each(|record| fresh.replay(record.clone()));
        self.participants[at(server)] = fresh;
        self.down.retain(|one| *one != (server, PARTICIPANT));
        self.participant(server, Input::Start);
    }

    fn in_doubt(&self) -> usize {
        self.participants.iter().map(Participant::in_doubt_count).sum()
    }

    fn versions(&self, key: &str) -> Vec<u64> {
        let version = |one: &Participant| one.kv().store().get(key.as_bytes()).map_or(0, |entry| entry.version);
        self.participants.iter().map(version).collect()
    }

    fn has_said(&self, words: &str) -> bool {
        self.facts.iter().any(|trace_event| trace_event.contains(words))
    }
}

/// A disk that keeps nothing: tests keep the records themselves.
pub(super) struct CommitDisk;

impl<R> crate::role::StableStore<R> for CommitDisk {
    type Error = std::convert::Infallible;

    fn commit(&mut self, _records: &[R]) -> Result<(), Self::Error> {
        Ok(())
    }
}

#[test]
fn write_commits_everywhere_with_four_messages_per_server_and_eleven_syncs() {
    let mut cluster = CommitCluster::new();
    let session = cluster.session(1);
    let (sent, records) = (cluster.sent, |cluster: &CommitCluster| {
        let of = |disks: &[Vec<ParticipantRecord>]| disks.iter().map(Vec::len).sum::<usize>();
        of(&cluster.participant_disks) + cluster.coordinator_disks.iter().map(Vec::len).sum::<usize>()
    });
    let before = records(&cluster);
    cluster.ask(2, put(session, 1, "k"));
    cluster.deliver();
    let done = CoordinatorNotification::Done {
        id: CommandId::new(session, 1, 1),
        outcome: ApplyResult::Applied(kv::SavedResult {
            slot: Slot(1 << 6 | 2),
            written: WriteResult::Done { version: 1 },
        }),
    };
    assert!(
        cluster.outcomes.iter().any(|(server, outcome)| (*server, outcome) == (ServerId(2), &done)),
        "{:?}",
        cluster.outcomes
    );
    assert_eq!(cluster.versions("k"), [1; 5]);
    assert_eq!(cluster.sent - sent, 4 * 5, "VOTEREQ, VOTE, DECIDE and ACK");
    // A new coordinator reserves its numbers once. Then there is a prepared and a committed record on five servers, and
    // one commit record.
    assert_eq!(records(&cluster) - before, 1 + 2 * 5 + 1);
    assert!(cluster.coordinators.iter().all(Coordinator::is_idle) && cluster.in_doubt() == 0);
}

#[test]
fn session_is_named_by_its_opening_transaction_and_a_full_table_drops_the_least_active() {
    let mut cluster = CommitCluster::new();
    let (first, second) = (cluster.session(1), cluster.session(2));
    assert_eq!(TransactionId::of_slot(Slot(first)), TransactionId { number: 1, coordinator: ServerId(1) });
    // After one refusal, the coordinator tries again and evicts the quietest session.
    cluster.ask(3, open(9));
    cluster.deliver();
    cluster.coordinator(ServerId(3), Input::Timeout(CoordinatorTimer::Retry));
    cluster.deliver();
    let known = |cluster: &CommitCluster, session| {
        cluster.participants.iter().filter(|one| one.kv().sessions().contains(session)).count()
    };
    assert_eq!((known(&cluster, first), known(&cluster, second)), (0, 5));
    cluster.ask(4, put(first, 1, "k"));
    cluster.deliver();
    let last = cluster.outcomes.last();
    assert!(matches!(last, Some((_, CoordinatorNotification::Done { outcome: ApplyResult::Expired, .. }))), "{last:?}");
}

#[test]
fn session_is_not_dropped_where_it_is_not_opened_yet() {
    let mut cluster = CommitCluster::new();
    let first = TransactionId { number: 1, coordinator: ServerId(1) };
    let second = TransactionId { number: 2, coordinator: ServerId(2) };
    let mut ask = |transaction: TransactionId, work: TransactionBody| {
        let message = CommitMessage::VoteRequest { transaction, work };
        cluster.participant(ServerId(5), Input::Message { from: transaction.coordinator, message });
        cluster.mail.pop_back().map(|(_, _, message)| message)
    };
    // Server 5 is prepared for a session that is open everywhere else. There the tables are full, and the session has
    // to go.
    let vote = ask(first, TransactionBody { command: open(7), evict: None });
    assert!(matches!(vote, Some(CommitMessage::Vote { vote: Vote::Yes(None), .. })), "{vote:?}");
    let vote = ask(second, TransactionBody { command: open(8), evict: Some(first.as_slot().0) });
    // Committed in this order, the session would be opened after it was removed.
    let refused = Vote::No(VoteNoReason::Locked(first));
    assert!(matches!(&vote, Some(CommitMessage::Vote { vote, .. }) if *vote == refused), "{vote:?}");
}

#[test]
fn two_coordinators_refuse_each_other_for_one_key_and_both_commit_in_the_end() {
    let mut cluster = CommitCluster::new();
    let session = cluster.session(1);
    let other = cluster.session(2);
    cluster.ask(1, put(session, 1, "k"));
    cluster.ask(2, put(other, 1, "k"));
    // Each server receives the request of its own coordinator first.
    cluster.deliver_while(|(from, to, _)| from == to);
    cluster.deliver();
    assert_eq!(cluster.versions("k"), [0; 5], "neither has all votes");
    assert!(cluster.has_said("Locked"));
    for server in [1, 2] {
        cluster.coordinator(ServerId(server), Input::Timeout(CoordinatorTimer::Retry));
        cluster.deliver();
    }
    assert_eq!(cluster.versions("k"), [2; 5]);
}

#[test]
fn two_commands_for_one_key_at_one_server_wait_for_each_other() {
    let mut cluster = CommitCluster::new();
    let session = cluster.session(1);
    cluster.ask(1, put(session, 1, "k"));
    cluster.ask(1, put(session, 2, "k"));
    cluster.deliver();
    assert_eq!(cluster.versions("k"), [2; 5]);
    assert!(!cluster.has_said("Locked"));
}

#[test]
fn missing_vote_aborts_and_the_command_is_not_applied() {
    let mut cluster = CommitCluster::new();
    let session = cluster.session(1);
    cluster.down.push((ServerId(5), PARTICIPANT));
    cluster.ask(1, put(session, 1, "k"));
    cluster.deliver();
    assert_eq!(cluster.in_doubt(), 4);
    cluster.tick(20);
    let (id, silent) = (CommandId::new(session, 1, 1), ServerSet::only(ServerId(5)));
    let refused = CoordinatorNotification::NotApplied { id, why: AbortReason::NoVote { silent } };
    assert_eq!(cluster.outcomes.last(), Some(&(ServerId(1), refused)));
    assert_eq!((cluster.versions("k"), cluster.in_doubt()), (vec![0; 5], 0));
}

#[test]
fn prepared_participant_decides_nothing_alone_and_reports_that_it_is_blocked() {
    let mut cluster = CommitCluster::new();
    let session = cluster.session(1);
    cluster.ask(1, put(session, 1, "k"));
    // All have voted, and the coordinator crashes before it receives the votes.
    cluster.deliver_while(|(_, _, message)| matches!(message, CommitMessage::VoteRequest { .. }));
    cluster.down.push((ServerId(1), COORDINATOR));
    cluster.deliver();
    cluster.look(100);
    assert_eq!(cluster.in_doubt(), 5, "no command has expired");
    assert!(
        cluster.has_said("Blocked")
            && cluster.participants.iter().all(|one| one.in_doubt().all(|doubt| doubt.is_blocked))
    );
    // A read waits, and finally fails because the key is locked.
    cluster.participant(
        ServerId(2),
        Input::Request(ParticipantRequest::Read { token: 3, query: ReadQuery { key: b"k".to_vec() } }),
    );
    assert!(cluster.answers.is_empty());
    cluster.look(8);
    assert!(
        matches!(cluster.answers[..], [(ServerId(2), ParticipantNotification::ReadFailed { token: 3, .. })]),
        "{:?}",
        cluster.answers
    );
    // Without a commit record, the decision was abort.
    cluster.restart_coordinator(1);
    cluster.look(9);
    assert_eq!((cluster.in_doubt(), cluster.versions("k")), (0, vec![0; 5]));
    assert!(cluster.has_said("presumed: true"));
}

#[test]
fn commit_survives_crashes_of_its_coordinator_and_every_participant() {
    let mut cluster = CommitCluster::new();
    let session = cluster.session(1);
    cluster.ask(1, put(session, 1, "k"));
    cluster.deliver_while(|(_, _, message)| !matches!(message, CommitMessage::Decide { .. }));
    // It has decided and replied to its client; no participant has received DECIDE.
    assert!(matches!(cluster.outcomes.last(), Some((_, CoordinatorNotification::Done { .. }))));
    cluster.mail.clear();
    for server in 1..=5 {
        cluster.restart_participant(server);
    }
    assert_eq!(cluster.in_doubt(), 5);
    cluster.mail.clear();
    cluster.restart_coordinator(1);
    cluster.deliver();
    assert_eq!((cluster.in_doubt(), cluster.versions("k")), (0, vec![1; 5]));
}

#[test]
fn participant_that_knows_the_decision_ends_the_doubt_of_the_others() {
    let mut cluster = CommitCluster::new();
    let session = cluster.session(1);
    cluster.ask(1, put(session, 1, "k"));
    // Only server 3 receives DECIDE before the coordinator crashes.
    cluster.deliver_while(|(_, to, message)| !matches!(message, CommitMessage::Decide { .. }) || *to == ServerId(3));
    cluster.down.push((ServerId(1), COORDINATOR));
    cluster.mail.clear();
    assert_eq!(cluster.in_doubt(), 4);
    cluster.look(5);
    assert_eq!((cluster.in_doubt(), cluster.versions("k")), (0, vec![1; 5]));
}

#[test]
fn participant_that_has_not_voted_ends_the_doubt_of_the_others_and_never_votes_yes_later() {
    let mut cluster = CommitCluster::new();
    let session = cluster.session(1);
    cluster.ask(1, put(session, 1, "k"));
    // The request to server 5 is late.
    cluster
        .deliver_while(|(_, to, message)| matches!(message, CommitMessage::VoteRequest { .. }) && *to != ServerId(5));
    cluster.down.push((ServerId(1), COORDINATOR));
    let late = cluster
        .mail
        .iter()
        .position(|(_, to, message)| *to == ServerId(5) && matches!(message, CommitMessage::VoteRequest { .. }));
    let late = cluster.mail.remove(late.unwrap()).unwrap();
    cluster.look(5);
    assert_eq!((cluster.in_doubt(), cluster.versions("k")), (0, vec![0; 5]));
    // Not even after a crash: its answer is on its disk.
    cluster.restart_participant(5);
    cluster.mail.push_back(late);
    cluster.deliver();
    assert_eq!(cluster.in_doubt(), 0);
}

#[test]
fn repeated_vote_request_gets_the_same_vote_whatever_the_session_is_then() {
    let mut cluster = CommitCluster::new();
    let session = cluster.session(1);
    // The first write is prepared on server 2 alone; its client gives it up and writes something else.
    cluster.ask(1, put(session, 1, "k"));
    let asked = |(_, to, message): &(ServerId, ServerId, CommitMessage)| {
        matches!(message, CommitMessage::VoteRequest { .. }) && *to == ServerId(2)
    };
    cluster.deliver_while(asked);
    let rest: Vec<_> = cluster.mail.drain(..).collect();
    let op = Op::Put { key: b"other".to_vec(), value: b"v".to_vec().into(), if_version: None };
    let second = kv::KvCommand::Write { session, nonce: 1, sequence: 2, first_open: 2, label: "c1-3".to_string(), op };
    cluster.ask(3, second.to_paxos());
    cluster.deliver();
    assert_eq!(cluster.versions("other"), [1; 5]);
    // Servers that receive the first write now refuse it; server 2, asked again, repeats its vote.
    let (_, _, request) = rest.iter().find(|(_, to, _)| *to == ServerId(3)).cloned().unwrap();
    cluster.facts.clear();
    cluster.participant(ServerId(2), Input::Message { from: ServerId(1), message: request });
    assert!(cluster.has_said("vote: Yes(Some(Done { version: 1 }))"), "{:?}", cluster.facts);
}

#[test]
fn coordinator_never_uses_a_number_twice() {
    let mut coordinator = Coordinator::new(ServerId(1), all());
    let mut records = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for life in 0..3 {
        let mut fresh = Coordinator::new(ServerId(1), all());
        records.iter().for_each(|record: &CoordinatorRecord| fresh.replay(record.clone()));
        coordinator = fresh;
        for n in 0..3 {
            let input = Input::Request(CoordinatorRequest::Propose(open(life * 10 + n)));
            let stepped = step_batch(&mut coordinator, [((), input)], true);
            records.extend(stepped.records().iter().cloned());
            for (_, actions) in stepped.commit(&mut CommitDisk).unwrap().into_actions() {
                for action in actions {
                    if let Action::Send { message: CommitMessage::VoteRequest { transaction, .. }, .. } = action {
                        assert!(seen.insert(transaction), "{transaction} twice");
                    }
                }
            }
        }
    }
    assert_eq!(seen.len(), 9);
    assert!(coordinator.next_number() > 2_048);
}

#[test]
fn transaction_has_one_printed_form() {
    let id = TransactionId { number: 17, coordinator: ServerId(3) };
    assert_eq!((id.to_string(), "17.3".parse()), ("17.3".to_string(), Ok(id)));
    assert_eq!(TransactionId::of_slot(id.as_slot()), id);
    for wrong in ["17", "17.", ".3", "17.64", "a.3"] {
        assert!(wrong.parse::<TransactionId>().is_err(), "{wrong}");
    }
}
