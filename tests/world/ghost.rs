//! What an all-knowing observer of a cluster checks after each turn. The roles know nothing of it.

use std::collections::{BTreeMap, BTreeSet};

use paxos_kv::kv::{Kv, Outcome};
use paxos_kv::paxos::{
    AcceptorRecord, Ballot, CommandId, Entry, LearnerFact, LearnerOutcome, Message, Quorums, Slot, StateMachine, Value,
};
use paxos_kv::role::{Action, Server, Servers};

use super::{Cluster, Ran, Turn};

/// The history of a cluster, as nobody in it can see it.
pub struct Ghost {
    quorums: Quorums,
    /// What each acceptor has durably promised.
    promised: BTreeMap<Server, Ballot>,
    /// Who durably accepted which value in a slot at a ballot.
    votes: BTreeMap<(Slot, Ballot), (Value, Servers)>,
    /// What was chosen, and the first ballot at which it was.
    chosen: BTreeMap<Slot, (Ballot, Value)>,
    /// Ballots that were prepared, and from where.
    prepared: BTreeMap<Ballot, Slot>,
    /// Values that were proposed.
    proposed: BTreeMap<(Slot, Ballot), Value>,
    /// The log as applied: outcome and digest after each slot, from slot 1.
    applied: Vec<(Outcome, u64)>,
    /// How far each living learner is.
    learners: BTreeMap<Server, Slot>,
    /// Commands that took effect, and where.
    effects: BTreeMap<CommandId, Slot>,
    /// Commands that a client was told will never be applied.
    refused: BTreeSet<CommandId>,
    /// Replays the log in slot order.
    machine: Kv,
}

impl Ghost {
    pub fn new(quorums: Quorums) -> Ghost {
        Ghost {
            quorums,
            promised: BTreeMap::new(),
            votes: BTreeMap::new(),
            chosen: BTreeMap::new(),
            prepared: BTreeMap::new(),
            proposed: BTreeMap::new(),
            applied: Vec::new(),
            learners: BTreeMap::new(),
            effects: BTreeMap::new(),
            refused: BTreeSet::new(),
            machine: Kv::default(),
        }
    }

    /// The highest slot that is chosen, whether or not anybody knows.
    pub fn highest_chosen(&self) -> Slot {
        self.chosen.keys().next_back().copied().unwrap_or_default()
    }

    /// How many slots were applied by somebody.
    pub fn applied(&self) -> usize {
        self.applied.len()
    }

    /// In how many slots the log came to an outcome of this kind.
    pub fn outcomes(&self, kind: impl Fn(&Outcome) -> bool) -> usize {
        self.applied.iter().filter(|(outcome, _)| kind(outcome)).count()
    }

    /// A client was told that a command will never be applied.
    pub fn refuse(&mut self, id: CommandId) {
        assert!(!self.effects.contains_key(&id), "{id:?} was called not applied, and is applied");
        self.refused.insert(id);
    }

    /// A learner begins a new life with nothing.
    pub fn learner_started(&mut self, server: Server) {
        self.learners.insert(server, Slot(0));
    }

    /// Checks a turn of one server's role.
    pub fn observe(&mut self, cluster: &Cluster<Kv>, server: Server, turn: &Turn<Kv>) {
        match turn {
            Turn::Acceptor(ran) => {
                for record in &ran.durable {
                    self.observe_record(server, record);
                }
                self.observe_memory(cluster, server);
            }
            Turn::Proposer(ran) => {
                for action in &ran.actions {
                    if let Action::Send { message, .. } = action {
                        self.observe_proposal(server, message);
                    }
                }
            }
            Turn::Learner(ran) => self.observe_learner(cluster, server, ran),
            Turn::Down => {}
        }
    }

    /// Promises only rise; a ballot carries one value a slot; a slot has one chosen value.
    fn observe_record(&mut self, server: Server, record: &AcceptorRecord) {
        let promised = self.promised.entry(server).or_insert(Ballot::ZERO);
        let ballot = match record {
            AcceptorRecord::Promised(ballot) | AcceptorRecord::Accepted(Entry { ballot, .. }) => *ballot,
            // These clusters have no checkpoints, and their disks keep what they are given.
            AcceptorRecord::Truncated(_) | AcceptorRecord::Mended(_) | AcceptorRecord::Damaged(_) => {
                panic!("{server} writes {record:?}")
            }
        };
        assert!(ballot >= *promised, "{server} promised {promised} and then took part in {ballot}");
        *promised = ballot;
        if let AcceptorRecord::Accepted(Entry { slot, ballot, value }) = record {
            let (voted, servers) = self.votes.entry((*slot, *ballot)).or_insert_with(|| (value.clone(), Servers::NONE));
            assert_eq!(voted, value, "ballot {ballot} carries two values for slot {slot}");
            servers.insert(server);
            if self.quorums.is_chosen(*servers) {
                let (at, chosen) = self.chosen.entry(*slot).or_insert_with(|| (*ballot, value.clone()));
                assert_eq!(chosen, value, "slot {slot} was chosen twice, at {at} and at {ballot}");
            }
        }
    }

    /// What an acceptor believes is what its disk says, in every life.
    fn observe_memory(&self, cluster: &Cluster<Kv>, server: Server) {
        if let Some(acceptor) = &cluster.node(server).acceptor.role {
            let durable = self.promised.get(&server).copied().unwrap_or(Ballot::ZERO);
            assert_eq!(acceptor.promised(), durable, "{server} forgot its promise, or made one that is not durable");
        }
    }

    /// A ballot is prepared once, by its owner; whatever is proposed above a chosen ballot is the chosen value.
    fn observe_proposal(&mut self, server: Server, message: &Message) {
        match message {
            Message::Prepare { ballot, from } => {
                assert_eq!(ballot.server, server, "{server} prepared a ballot of another's");
                assert!(self.prepared.insert(*ballot, *from).is_none(), "ballot {ballot} was used twice");
            }
            Message::Accept { ballot, first, values } => {
                for (slot, value) in (first.0..).map(Slot).zip(values) {
                    assert!(
                        self.prepared.get(ballot).is_some_and(|from| *from <= slot),
                        "{ballot} was not prepared for {slot}"
                    );
                    let before = self.proposed.insert((slot, *ballot), value.clone());
                    assert!(
                        before.is_none_or(|before| before == *value),
                        "{ballot} proposed two values in slot {slot}"
                    );
                    if let Some((at, chosen)) = self.chosen.get(&slot).filter(|(at, _)| at < ballot) {
                        assert_eq!(
                            chosen, value,
                            "slot {slot} was chosen at {at}, and {ballot} proposes another value"
                        );
                    }
                }
            }
            _ => {}
        }
    }

    fn observe_learner(&mut self, cluster: &Cluster<Kv>, server: Server, ran: &Ran<paxos_kv::paxos::Learner<Kv>>) {
        if ran.crashed {
            self.learners.insert(server, Slot(0));
        }
        for action in &ran.actions {
            match action {
                Action::Fact(LearnerFact::Chosen { slot, ballot, quorum, .. }) => {
                    let voted = self.votes.get(&(*slot, *ballot)).map(|(_, servers)| *servers).unwrap_or_default();
                    assert!(
                        quorum.without(voted).is_empty(),
                        "{server} counted {quorum} for slot {slot} at {ballot}: only {voted} voted"
                    );
                    assert!(self.quorums.is_chosen(*quorum), "{quorum} choose nothing");
                }
                Action::Fact(LearnerFact::Learned { slot, value, outcome, .. }) => {
                    self.observe_applied(server, *slot, value, outcome);
                }
                Action::Outcome(LearnerOutcome::Answer { slot, .. }) => {
                    let applied = self.learners.get(&server).copied().unwrap_or_default();
                    assert!(*slot <= applied, "{server} answers from slot {slot}, having applied {applied}");
                }
                _ => {}
            }
        }
        if let Some(learner) = &cluster.node(server).learner.role
            && let Some((_, digest)) = self.applied.get(learner.applied().0.wrapping_sub(1) as usize)
        {
            assert_eq!(learner.machine().digest(), *digest, "{server} differs after {:?}", learner.applied());
        }
    }

    /// Learners apply the chosen values, slot after slot, with equal outcomes; no command takes effect twice.
    fn observe_applied(&mut self, server: Server, slot: Slot, value: &Value, outcome: &Outcome) {
        let before = self.learners.insert(server, slot).unwrap_or_default();
        assert_eq!(slot, before.next(), "{server} applied slot {slot} after {before}");
        let chosen = self.chosen.get(&slot).map(|(_, value)| value);
        assert_eq!(chosen, Some(value), "{server} applied in slot {slot} what was not chosen");
        if let Some((known, _)) = self.applied.get(slot.0 as usize - 1) {
            assert_eq!(known, outcome, "{server} came to another outcome in slot {slot}");
            return;
        }
        assert_eq!(
            self.machine.apply(slot, value),
            *outcome,
            "the outcome of slot {slot} is not that of the log before it"
        );
        self.applied.push((*outcome, self.machine.digest()));
        let Some(id) = value.id() else { return };
        assert!(!self.refused.contains(&id), "{id:?} was called not applied, and was applied in slot {slot}");
        match outcome {
            Outcome::Applied(_) => {
                let first = self.effects.insert(id, slot);
                assert_eq!(first, None, "{id:?} took effect twice, the second time in slot {slot}");
            }
            Outcome::Duplicate(saved) => assert_eq!(self.effects.get(&id), Some(&saved.slot), "{id:?}"),
            Outcome::Opened { session, .. } => {
                let first = *self.effects.entry(id).or_insert(Slot(*session));
                assert_eq!(first, Slot(*session), "{id:?} opened two sessions");
            }
            Outcome::Noop | Outcome::Superseded | Outcome::Expired => {}
            Outcome::Unreadable => panic!("{id:?} cannot be read"),
        }
    }
}
