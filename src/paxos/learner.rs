//! The learner: finds out what was chosen, and applies it in slot order.
//!
//! The learner of a ballot's owner counts that ballot's `ACCEPTED`; when a majority of distinct acceptors has accepted a
//! slot at that one ballot, the slot is chosen, and the learner says so to all (Paxos Made Simple, section 2.3). Every
//! learner keeps the value of the highest ballot that it heard in an `ACCEPT`, so `CHOSEN` need not carry it: if that
//! ballot is at least the chosen one, its value is the chosen one (P2b: no higher proposal carries another).
//!
//! A learner may miss anything. Who hears in a `BEAT` that a peer is further asks it for what is missing. What a learner
//! keeps of the past is told in [`retention`](super::retention), how one that is far behind gets a whole state in
//! [`snapshots`](super::snapshots), how a wrong state is found out in [`doubts`](super::doubts), and how reads are answered
//! in [`reads`](super::reads).

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::doubts::{Compared, Doubts};
use super::reads::Reads;
use super::retention::Past;
use super::row::Row;
use super::snapshots::Incoming;
use super::{
    Ballot, CommandId, Entry, Life, Message, PartName, Policy, Quorums, Slot, SlotRange, StateMachine, Value, rules,
};
use crate::role::{Input, NoRecord, Output, Role, Server, Servers, Timed};

/// How far beyond the applied slot a learner keeps what it hears; what lies beyond, it asks for later.
pub const WINDOW: u64 = 1_024;
/// The values of one ENTRIES take about this many bytes at most, unless a single one is larger.
pub const ENTRIES_BYTES: usize = 1 << 20;
/// One ENTRIES holds at most so many slots.
pub const ENTRIES_MAX: usize = 1_024;
/// Votes are counted for at most so many ballots a slot, the highest: a proposal that is so many attempts old is chosen
/// again by a later one.
const BALLOTS_COUNTED: usize = 16;
/// A beat older than so many of one's own beats (each 100 ms) says nothing about who is alive.
pub const FRESH_BEATS: u64 = 3;

/// A time-out of a learner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LearnerTimer {
    /// Time to say how far one is.
    Beat,
    /// Something is missing and may still be on its way.
    Missing,
    /// The peer asked for entries has not answered.
    CatchUp,
    /// A round of reads has not found a majority.
    Read {
        /// The round.
        id: u128,
    },
    /// A slot that reads wait for is still not applied.
    Fill {
        /// How often it was asked for.
        tries: u32,
    },
}

impl Timed for LearnerTimer {
    fn delay_ms(&self) -> RangeInclusive<u64> {
        match *self {
            LearnerTimer::Beat => 100..=100,
            LearnerTimer::Missing => 50..=50,
            LearnerTimer::CatchUp => 200..=200,
            LearnerTimer::Read { .. } => 100..=150,
            // 50 to 150 ms, doubling up to 0.8 s.
            LearnerTimer::Fill { tries } => (50 << tries.min(4))..=(150 << tries.min(3)).min(800),
        }
    }
}

/// What a server asks of its learner.
#[derive(Clone, Debug)]
pub enum LearnerRequest<Q> {
    /// A linearizable read.
    Read {
        /// Comes back with the answer.
        token: u64,
        /// What to ask the state machine.
        query: Q,
    },
    /// The checkpoint that was to be written is durable, or could not be written.
    CheckpointEnded {
        /// Its slot.
        slot: Slot,
        /// Whether it is durable.
        is_durable: bool,
    },
    /// Write the state down soon, however little has changed.
    WantCheckpoint,
    /// What did these commands come to? For whoever waited while a whole state came in.
    Recall(Vec<CommandId>),
    /// The own acceptor cannot read these slots.
    Mend(Vec<SlotRange>),
}

/// What a learner tells its server.
#[derive(Clone, Debug)]
pub enum LearnerOutcome<M: StateMachine> {
    /// A slot was applied. Said of every slot, whoever proposed it, for those who wait for an outcome.
    Applied {
        /// The slot.
        slot: Slot,
        /// Its command, unless it is a no-op.
        id: Option<CommandId>,
        /// What the state machine made of it.
        outcome: M::Outcome,
    },
    /// How far the log is applied, for the own proposer. Said once for all slots of a turn.
    Advanced {
        /// The last slot applied.
        applied: Slot,
        /// The commands in the slots applied since this was said last.
        ids: Vec<CommandId>,
    },
    /// A read's answer.
    Answer {
        /// As in the request.
        token: u64,
        /// The state answered from had applied exactly the slots up to this one.
        slot: Slot,
        /// What the state machine said.
        answer: M::Answer,
    },
    /// A read found no majority, or its slot was not applied in time.
    ReadFailed {
        /// As in the request.
        token: u64,
        /// The acceptors that answered the last round.
        answered: Servers,
    },
    /// The state is to be written down.
    Checkpoint {
        /// Every slot up to this one is in it.
        slot: Slot,
        /// Its digest.
        digest: u64,
        /// What has changed since the last one.
        changes: M::Changes,
    },
    /// A durable checkpoint holds every slot up to this one: the own acceptor may forget them. Said when a life begins, too.
    Durable {
        /// The slot.
        slot: Slot,
    },
    /// A peer needs the durable checkpoint, or the next part of one.
    SnapshotAsked {
        /// The peer.
        to: Server,
        /// The part; the first one of the last checkpoint if None.
        part: Option<PartName>,
    },
    /// A whole state came in: nothing was said of the slots in between. Who waits may ask what is remembered.
    Installed {
        /// Every slot up to this one is in it.
        slot: Slot,
        /// Its digest.
        digest: u64,
        /// Who sent it.
        from: Server,
    },
    /// A command was applied in a slot that this learner has not seen.
    Recalled {
        /// The last slot applied.
        slot: Slot,
        /// The command.
        id: CommandId,
        /// What it came to.
        outcome: M::Outcome,
    },
    /// What was chosen in slots that the own acceptor cannot read.
    Mended {
        /// The slots, each with a ballot at which it was chosen.
        entries: Vec<Entry>,
    },
    /// Its state is wrong, and it has fallen silent.
    Fenced {
        /// The first slot after which another server is known to have another state.
        slot: Slot,
        /// A slot after which they were still equal, if one is known.
        equal: Option<Slot>,
        /// The servers that have another one.
        against: Servers,
    },
}

/// A step of a learner.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LearnerFact<O> {
    /// A majority has accepted a slot at one ballot of this server's.
    Chosen {
        /// The slot.
        slot: Slot,
        /// The ballot.
        ballot: Ballot,
        /// Who accepted.
        quorum: Servers,
        /// The value, if it was heard at this ballot.
        value: Option<Value>,
    },
    /// A chosen value was applied.
    Learned {
        /// The slot, now the last one applied.
        slot: Slot,
        /// The ballot at which it is known to be chosen.
        ballot: Ballot,
        /// The value.
        value: Value,
        /// What the state machine made of it.
        outcome: O,
    },
    /// It asks a peer for what it missed.
    CaughtUp {
        /// The first slot missing.
        from: Slot,
        /// The peer asked.
        to: Server,
        /// How far that peer, or another, is known to be.
        known: Slot,
    },
    /// It asks a proposer to get slots chosen that a read found.
    Filled {
        /// Up to this slot.
        slot: Slot,
        /// The servers whose proposers are asked.
        to: Servers,
    },
    /// It has taken a whole state in place of its own.
    Installed {
        /// The last slot applied to it.
        slot: Slot,
        /// Its digest.
        digest: u64,
        /// Who sent it.
        from: Server,
    },
}

/// What is known of a slot that is not applied yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Open {
    /// The value of the highest ballot heard in an ACCEPT.
    heard: Option<(Ballot, Value)>,
    /// A ballot at which the slot is known to be chosen.
    chosen: Option<Ballot>,
    /// Who accepted it at which ballot of this server's; the lowest ballot first.
    votes: Vec<(Ballot, Servers)>,
    /// CHOSEN was said.
    reported: bool,
}

/// What is known of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Peer {
    pub(super) applied: Slot,
    /// Of its state after that slot.
    pub(super) digest: u64,
    pub(super) compared: Compared,
    /// In one's own beats.
    heard_at: u64,
}

/// The learner of one server. See the head of its file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Learner<M: StateMachine> {
    pub(super) me: Server,
    pub(super) quorums: Quorums,
    pub(super) policy: Policy,
    /// The last slot applied; rises by exactly one at a time.
    pub(super) applied: Slot,
    pub(super) machine: M,
    /// What was applied last, without a gap, for peers that are behind.
    pub(super) log: Row<(Ballot, Value)>,
    pub(super) past: Past,
    /// Slots above `applied`, at most [`WINDOW`] ahead.
    pub(super) open: Row<Open>,
    /// The highest slot that anybody is known to have applied, or that is known to be chosen.
    pub(super) known: Slot,
    /// What the peers' beats said.
    pub(super) peers: BTreeMap<Server, Peer>,
    pub(super) doubts: Doubts,
    /// Beats of one's own so far: the learner's clock.
    pub(super) beats: u64,
    /// The peer asked for entries, or for a part of its state, and not heard of yet.
    pub(super) asked: Option<Server>,
    /// A whole state that is coming in from the peer asked.
    pub(super) incoming: Option<Incoming<M>>,
    /// The peer asked last, whatever came of it: if it was no help, the next one is asked.
    asked_last: Option<Server>,
    /// The [`LearnerTimer::Missing`] timer runs, and was started when this slot was the last one applied.
    waiting: Option<Slot>,
    /// The commands applied in this turn; None between two turns, and if nothing was applied.
    advanced: Option<Vec<CommandId>>,
    pub(super) reads: Reads<M::Query>,
    /// The values of one ENTRIES take about so many bytes at most; at least 1.
    part_bytes: usize,
}

impl<M: StateMachine> Learner<M> {
    /// A learner whose state machine has applied everything up to `applied`, and whose disk has it. It keeps everything
    /// that it learns; see [`with_retention`](Learner::with_retention).
    pub fn new(me: Server, quorums: Quorums, life: Life, applied: Slot, machine: M) -> Learner<M> {
        Learner {
            me,
            quorums,
            policy: Policy::BasicPaxos,
            applied,
            machine,
            log: Row::from(applied.next()),
            past: Past::new(applied),
            open: Row::from(applied.next()),
            known: applied,
            peers: BTreeMap::new(),
            doubts: Doubts::default(),
            beats: 0,
            asked: None,
            incoming: None,
            asked_last: None,
            waiting: None,
            advanced: None,
            reads: Reads::new(life),
            part_bytes: ENTRIES_BYTES,
        }
    }

    /// The same under this policy: it says whose proposer fills slots that nobody finishes.
    pub fn under(self, policy: Policy) -> Learner<M> {
        Learner { policy, ..self }
    }

    /// The same with smaller parts: a simulation of a few commands meets ENTRIES that are not all as well.
    pub fn with_part_bytes(self, part_bytes: usize) -> Learner<M> {
        Learner { part_bytes, ..self }
    }

    /// The last slot applied.
    pub fn applied(&self) -> Slot {
        self.applied
    }

    /// The highest slot known to be chosen anywhere.
    pub fn known(&self) -> Slot {
        self.known
    }

    /// The state machine, as of [`Learner::applied`].
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// A life begins: beat, ask somebody what was missed, and find out by a read how far the log may reach. Nothing tells
    /// a learner that starts last that the final CHOSEN was said before it lived.
    fn start(&mut self, out: &mut Output<Self>) {
        self.forget_digests();
        out.outcome(LearnerOutcome::Durable { slot: self.past.durable });
        self.beat(out);
        out.send(self.quorums.others(self.me), Message::CatchUp { from: self.applied.next() });
        self.begin_first_read();
    }

    /// ACCEPT, heard beside the acceptor: keep the value of the highest ballot.
    fn handle_accept(&mut self, ballot: Ballot, first: Slot, values: Vec<Value>, out: &mut Output<Self>) {
        for (slot, value) in first.to(Slot::LAST).zip(values) {
            let Some(open) = self.open(slot) else { continue };
            match &open.heard {
                // A ballot carries one value for a slot; a lower one's is of no interest.
                Some((held, before)) if *held >= ballot => assert!(
                    *held > ballot || *before == value,
                    "ballot {ballot} carries two values for {slot:?}: {before:?} and {value:?}"
                ),
                _ => open.heard = Some((ballot, value)),
            }
        }
        self.advance(out);
    }

    /// ACCEPTED: count distinct acceptors of one ballot of our own; at a majority a slot is chosen, which is said once.
    fn handle_accepted(&mut self, acceptor: Server, ballot: Ballot, slots: SlotRange, out: &mut Output<Self>) {
        if ballot.server != self.me || !self.quorums.servers().contains(acceptor) {
            return;
        }
        let chosen: Vec<Slot> =
            self.of_interest(slots).filter(|slot| self.count(acceptor, ballot, *slot, out)).collect();
        for slots in SlotRange::runs(chosen) {
            out.send(self.quorums.others(self.me), Message::Chosen { ballot, slots });
            self.handle_chosen(ballot, slots, out);
        }
    }

    /// Counts one vote; true if with it the slot is chosen.
    fn count(&mut self, acceptor: Server, ballot: Ballot, slot: Slot, out: &mut Output<Self>) -> bool {
        let quorums = self.quorums;
        let Some(open) = self.open(slot) else { return false };
        if open.reported {
            return false;
        }
        let at = open.votes.partition_point(|(before, _)| *before < ballot);
        if open.votes.get(at).is_none_or(|(before, _)| *before != ballot) {
            open.votes.insert(at, (ballot, Servers::NONE));
        }
        let votes = &mut open.votes[at].1;
        *votes = rules::with_vote(*votes, acceptor, quorums.servers());
        let quorum = *votes;
        if open.votes.len() > BALLOTS_COUNTED {
            open.votes.remove(0);
        }
        if !rules::is_chosen(&quorums, quorum) {
            return false;
        }
        assert!(quorum.without(quorums.servers()).is_empty(), "only servers of the cluster vote, and {quorum} did");
        open.reported = true;
        let value = open.heard.as_ref().filter(|(heard, _)| *heard == ballot).map(|(_, value)| value);
        out.fact(|| LearnerFact::Chosen { slot, ballot, quorum, value: value.cloned() });
        true
    }

    /// CHOSEN: each slot holds what any proposal at this ballot, or above, carries.
    fn handle_chosen(&mut self, ballot: Ballot, slots: SlotRange, out: &mut Output<Self>) {
        self.known = self.known.max(slots.last);
        for slot in self.of_interest(slots) {
            if let Some(open) = self.open(slot) {
                // The lowest such ballot makes the value heard count soonest.
                open.chosen = Some(open.chosen.map_or(ballot, |before| before.min(ballot)));
            }
        }
        self.advance(out);
        self.look_for_missing(out);
    }

    /// BEAT: somebody says how far it is.
    fn handle_beat(&mut self, peer: Server, applied: Slot, digest: u64, out: &mut Output<Self>) {
        if peer == self.me || !self.quorums.servers().contains(peer) {
            return;
        }
        let compared = self.peers.get(&peer).map(|peer| peer.compared).unwrap_or_default();
        self.peers.insert(peer, Peer { applied, digest, compared, heard_at: self.beats });
        self.compare(peer, applied, digest);
        self.known = self.known.max(applied);
        self.look_for_missing(out);
    }

    /// CATCHUP: send what was applied here from that slot on, as much as a frame takes.
    fn handle_catch_up(&mut self, peer: Server, from: Slot, out: &mut Output<Self>) {
        if from < self.log_begins() {
            return self.offer_snapshot(peer, from, out);
        }
        let mut entries = Vec::new();
        let mut room = self.part_bytes;
        for (slot, (ballot, value)) in self.log.range(from).take(ENTRIES_MAX) {
            let size = 24 + value.size();
            if size > room && !entries.is_empty() {
                break;
            }
            room = room.saturating_sub(size);
            entries.push(Entry { slot, ballot: *ballot, value: value.clone() });
        }
        out.send(Servers::only(peer), Message::Entries { entries, applied: self.applied });
    }

    /// ENTRIES: apply those that come next; ask for more if there is more.
    fn handle_entries(&mut self, peer: Server, entries: Vec<Entry>, applied: Slot, out: &mut Output<Self>) {
        self.known = self.known.max(applied);
        let before = self.applied;
        for entry in entries {
            if entry.slot == self.applied.next() {
                self.apply(entry.slot, entry.ballot, entry.value, out);
            }
        }
        self.advance(out);
        let fetches = self.incoming.is_some();
        if (self.asked == Some(peer) || self.asked.is_none()) && !fetches {
            self.asked = None;
            if self.applied > before && self.applied < applied {
                self.ask(peer, out);
            } else {
                self.look_for_missing(out);
            }
        }
    }

    /// Applies every slot that is next and whose chosen value is held.
    pub(super) fn advance(&mut self, out: &mut Output<Self>) {
        while let Some(Open { chosen: Some(chosen), heard: Some((heard, _)), .. }) = self.open.front() {
            if !rules::holds_chosen(*heard, *chosen) {
                break;
            }
            let chosen = *chosen;
            let open = self.open.end_first().and_then(|open| open.heard);
            let Some((_, value)) = open else { unreachable!("the value was there a line ago") };
            self.apply(self.applied.next(), chosen, value, out);
        }
    }

    /// Applies the next slot, says what came of it, and answers the reads that waited for it.
    fn apply(&mut self, slot: Slot, ballot: Ballot, value: Value, out: &mut Output<Self>) {
        assert_eq!(slot, self.applied.next(), "slots are applied one after the other");
        let outcome = self.machine.apply(slot, &value);
        self.applied = slot;
        self.known = self.known.max(slot);
        self.open.end_below(slot.next());
        self.note_digest();
        out.fact(|| LearnerFact::Learned { slot, ballot, value: value.clone(), outcome: outcome.clone() });
        out.outcome(LearnerOutcome::Applied { slot, id: value.id(), outcome });
        self.advanced.get_or_insert_default().extend(value.id());
        self.keep(Entry { slot, ballot, value }, out);
        self.answer_reads(out);
    }

    /// Those of these slots that may have a record.
    fn of_interest(&self, SlotRange { first, last }: SlotRange) -> impl Iterator<Item = Slot> + use<M> {
        first.max(self.applied.next()).to(last.min(self.applied.plus(WINDOW)))
    }

    /// The record of a slot that is still of interest: not applied yet, and not too far ahead.
    fn open(&mut self, slot: Slot) -> Option<&mut Open> {
        let ahead = slot.ahead_of(self.applied);
        if ahead <= WINDOW { self.open.reach(slot) } else { None }
    }

    /// If something chosen is missing, waits a moment for it to arrive by itself.
    pub(super) fn look_for_missing(&mut self, out: &mut Output<Self>) {
        if self.known > self.applied && self.waiting.is_none() && self.asked.is_none() {
            self.waiting = Some(self.applied);
            out.arm(LearnerTimer::Missing);
        }
    }

    /// The moment is over. If the log has grown meanwhile, what is missing now is another slot: it gets its moment too.
    fn miss(&mut self, out: &mut Output<Self>) {
        let stuck = self.waiting.take() == Some(self.applied);
        if stuck && self.asked.is_none() {
            self.catch_up(out);
        } else {
            self.look_for_missing(out);
        }
    }

    /// Asks a peer that has more: the next one after the one asked last, which may have been no help.
    fn catch_up(&mut self, out: &mut Output<Self>) {
        self.asked = None;
        if self.known <= self.applied {
            return;
        }
        let ahead = self.peers.iter().filter(|(_, peer)| peer.applied > self.applied);
        let ahead: Servers = ahead.map(|(server, _)| *server).collect();
        // Best a living peer that is ahead; if nobody's beat is, whoever chose the slot may still be alone with it.
        let others = self.quorums.others(self.me);
        let choices = [ahead.and(self.alive()), ahead, others];
        let candidates = choices.into_iter().find(|servers| !servers.is_empty()).unwrap_or(others);
        let next = candidates.iter().find(|peer| self.asked_last.is_some_and(|last| *peer > last));
        if let Some(peer) = next.or_else(|| candidates.iter().next()) {
            self.ask(peer, out);
        }
    }

    pub(super) fn ask(&mut self, peer: Server, out: &mut Output<Self>) {
        (self.asked, self.asked_last) = (Some(peer), Some(peer));
        let (from, known) = (self.applied.next(), self.known);
        out.fact(|| LearnerFact::CaughtUp { from, to: peer, known });
        out.send(Servers::only(peer), Message::CatchUp { from });
        out.arm(LearnerTimer::CatchUp);
    }

    /// Says how far it is, to its own proposer too.
    fn beat(&mut self, out: &mut Output<Self>) {
        self.beats += 1;
        out.arm(LearnerTimer::Beat);
        let (applied, digest) = (self.applied, self.machine.digest());
        out.send(self.quorums.servers(), Message::Beat { applied, digest });
        self.give_up_old_reads(out);
        self.judge(out);
        self.begin_checkpoint(out);
    }

    /// What commands came to that were applied some time ago, as far as the state remembers.
    fn recall(&self, ids: Vec<CommandId>, out: &mut Output<Self>) {
        for id in ids {
            if let Some(outcome) = self.machine.recall(id) {
                out.outcome(LearnerOutcome::Recalled { slot: self.applied, id, outcome });
            }
        }
    }

    /// The servers whose learners were heard of in the last 300 ms, and this one.
    pub(super) fn alive(&self) -> Servers {
        let fresh = self.peers.iter().filter(|(_, peer)| self.beats - peer.heard_at < FRESH_BEATS);
        fresh.map(|(server, _)| *server).chain([self.me]).collect()
    }
}

impl<M: StateMachine> Role for Learner<M> {
    type Message = Message;
    type Record = NoRecord;
    type Timer = LearnerTimer;
    type Request = LearnerRequest<M::Query>;
    type Outcome = LearnerOutcome<M>;
    type Fact = LearnerFact<M::Outcome>;

    fn replay(&mut self, record: NoRecord) {
        match record {}
    }

    fn step(&mut self, input: Input<Self>, out: &mut Output<Self>) {
        if self.doubts.fenced.is_some() {
            // What it holds is wrong: nobody hears of it any more.
            if let Input::Request(LearnerRequest::Read { token, .. }) = input {
                out.outcome(LearnerOutcome::ReadFailed { token, answered: Servers::NONE });
            }
            return;
        }
        match input {
            Input::Start => self.start(out),
            Input::Message { from, message } => match message {
                Message::Accept { ballot, first, values } => self.handle_accept(ballot, first, values, out),
                Message::Accepted { ballot, slots } => self.handle_accepted(from, ballot, slots, out),
                Message::Chosen { ballot, slots } => self.handle_chosen(ballot, slots, out),
                Message::Beat { applied, digest } => self.handle_beat(from, applied, digest, out),
                Message::CatchUp { from: slot } => self.handle_catch_up(from, slot, out),
                Message::Entries { entries, applied } => self.handle_entries(from, entries, applied, out),
                Message::Snapshot(part) => self.handle_snapshot(from, part, out),
                Message::Fetch(part) => self.handle_fetch(from, part, out),
                Message::ReadAnswer { id, slot } => self.handle_read_answer(from, id, slot, out),
                // Not for a learner; see Message::heard_by.
                Message::Prepare { .. }
                | Message::Promise { .. }
                | Message::Nack { .. }
                | Message::Truncated { .. }
                | Message::Read { .. }
                | Message::Fill { .. }
                | Message::Forward { .. }
                | Message::Refused { .. }
                | Message::Heartbeat { .. }
                | Message::HeartbeatAnswer { .. }
                | Message::Relay { .. }
                | Message::PreVote { .. }
                | Message::PreVoteAnswer { .. } => {}
            },
            Input::Timeout(timer) => match timer {
                LearnerTimer::Beat => self.beat(out),
                LearnerTimer::Missing => self.miss(out),
                // Late if the answer has come: then nothing is asked of anybody.
                LearnerTimer::CatchUp => {
                    if self.asked.is_some() && !self.fetch_again(out) {
                        self.catch_up(out);
                    }
                }
                LearnerTimer::Read { id } => self.retry_read(id),
                LearnerTimer::Fill { tries } => self.fill(tries, out),
            },
            Input::Request(request) => match request {
                LearnerRequest::Read { token, query } => self.read(token, query, out),
                LearnerRequest::CheckpointEnded { slot, is_durable } => self.end_checkpoint(slot, is_durable, out),
                LearnerRequest::WantCheckpoint => self.want_checkpoint(out),
                LearnerRequest::Recall(ids) => self.recall(ids, out),
                LearnerRequest::Mend(slots) => self.mend(slots, out),
            },
        }
    }
    /// The proposer hears once what a whole turn has applied, and one round of questions serves the reads that came in it.
    fn finish(&mut self, out: &mut Output<Self>) {
        if let Some(ids) = self.advanced.take() {
            out.outcome(LearnerOutcome::Advanced { applied: self.applied, ids });
        }
        self.begin_round(out);
    }
}
