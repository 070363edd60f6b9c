//! The learner: finds out what was chosen, and applies it in slot order.
//!
//! The learner of a ballot's owner counts the `ACCEPTED` of that ballot. A slot is chosen when a majority of distinct
//! acceptors has accepted it at one ballot; the learner then informs all others (Paxos Made Simple, section 2.3). Every
//! learner keeps the value of the highest ballot that it received in an `ACCEPT`, so `CHOSEN` need not carry the value.
//! If that ballot is at least the chosen one, its value is the chosen value (P2b: no higher proposal carries another).
//!
//! The learner's other tasks are in one file each. Each has one struct, which never calls the learner: the learner
//! passes on what happens and carries out what the struct returns. [`CatchUp`] selects the peer to ask for missing
//! entries. [`SnapshotFetch`] assembles an incoming snapshot. [`CheckpointSchedule`] keeps the end of the log and
//! reports when a checkpoint is due. [`Pins`](retention::pins::Pins) decides what is kept for peers that fetch a snapshot.
//! [`QuorumReads`] knows when a read may be answered. [`Divergence`] detects a divergent state.

mod catch_up;
mod divergence;
mod quorum_reads;
pub(super) mod retention;
mod snapshot_fetch;
#[cfg(test)]
mod tests;
mod types;

pub use self::types::{LearnerNotification, LearnerRequest, LearnerTimer, LearnerTraceEvent};

use self::catch_up::{CatchUp, CatchUpStep};
use self::divergence::{Divergence, DivergenceVerdict};
use self::quorum_reads::{Failed, Fill, QuorumReads};
use self::retention::{CheckpointSchedule, Retention};
use self::snapshot_fetch::{ChunkResult, SnapshotFetch};
use super::message::ENTRY_OVERHEAD_BYTES;
use super::slot_window::SlotWindow;
use super::{
    Ballot, ChunkRequest, CommandId, Entry, Incarnation, Message, Policy, Quorums, Slot, SlotRange, SnapshotChunk,
    StateMachine, Value, rules,
};
use crate::role::{Input, NoRecord, Output, Role, RoleKind, ServerId, ServerSet};

/// Maximum distance ahead of the applied slot at which a learner keeps what it receives, in slots. It requests what
/// lies beyond later.
pub const WINDOW: u64 = 1_024;
/// Maximum size of the values of one ENTRIES, in bytes; a single larger value goes alone.
pub const ENTRIES_BYTES: usize = 1 << 20;
/// Maximum number of slots in one ENTRIES.
pub const ENTRIES_MAX: usize = 1_024;
/// Maximum number of ballots per slot for which votes are counted; the highest are kept. If a dropped
/// ballot had chosen its value, a later ballot proposes the same value again (P2b), and that is counted.
const BALLOTS_COUNTED: usize = 16;

/// What the learner knows of a slot that is not applied yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct UnappliedSlot {
    /// The value of the highest ballot received in an ACCEPT.
    proposed_value: Option<(Ballot, Value)>,
    /// A ballot at which the slot is known to be chosen.
    chosen: Option<Ballot>,
    /// The acceptors that accepted the slot, for each of this server's ballots; the lowest ballot first.
    votes: Vec<(Ballot, ServerSet)>,
    /// The quorum that this learner counted itself, after which it sent CHOSEN.
    quorum: Option<ServerSet>,
}

/// The learner of one server. See the head of this file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Learner<M: StateMachine> {
    me: ServerId,
    quorums: Quorums,
    policy: Policy,
    /// The last slot applied. It rises by exactly one at a time, except when a snapshot is installed.
    applied: Slot,
    machine: M,
    /// Slots above `applied`, at most [`WINDOW`] ahead.
    unapplied: SlotWindow<UnappliedSlot>,
    /// The commands applied in this batch; `None` between two batches, and if nothing was applied.
    advanced: Option<Vec<CommandId>>,
    /// A vote was counted in this batch for a slot that is not chosen yet.
    has_counted: bool,
    /// Ticks of 100 ms in this incarnation: the learner's clock.
    ticks: u64,
    catch_up: CatchUp,
    snapshots: SnapshotFetch<M>,
    past: CheckpointSchedule,
    reads: QuorumReads<M::Query>,
    divergence: Divergence,
    /// The peers that fetch a snapshot, as last reported to the server.
    fetching: ServerSet,
    /// Maximum size of the values of one ENTRIES, in bytes; at least 1.
    part_bytes: usize,
}

impl<M: StateMachine> Learner<M> {
    /// A learner whose state machine has applied everything up to `applied`, which its disk holds too. It keeps
    /// everything that it learns; see [`with_retention`](Learner::with_retention).
    pub fn new(me: ServerId, quorums: Quorums, incarnation: Incarnation, applied: Slot, machine: M) -> Learner<M> {
        Learner {
            me,
            quorums,
            policy: Policy::BasicPaxos,
            applied,
            machine,
            unapplied: SlotWindow::from(applied.next()),
            advanced: None,
            has_counted: false,
            ticks: 0,
            catch_up: CatchUp::new(me, quorums.others(me), applied),
            snapshots: SnapshotFetch::new(),
            past: CheckpointSchedule::new(me, quorums.servers(), applied),
            reads: QuorumReads::new(incarnation),
            divergence: Divergence::new(applied),
            fetching: ServerSet::NONE,
            part_bytes: ENTRIES_BYTES,
        }
    }

    /// Sets the policy: it decides which server's proposer fills slots that were left unfinished.
    pub fn with_policy(self, policy: Policy) -> Learner<M> {
        Learner { policy, ..self }
    }

    /// Sets the maximum size of one ENTRIES. With small messages, a simulation of a few commands also has ENTRIES that
    /// do not hold everything.
    pub fn with_part_bytes(self, part_bytes: usize) -> Learner<M> {
        Learner { part_bytes, ..self }
    }

    /// Limits how much of the log the learner keeps.
    pub fn with_retention(mut self, retention: Retention) -> Learner<M> {
        self.past.set_retention(retention);
        self
    }

    /// The last slot applied.
    pub fn applied(&self) -> Slot {
        self.applied
    }

    /// The highest slot known to be chosen anywhere.
    pub fn highest_chosen(&self) -> Slot {
        self.catch_up.highest_chosen()
    }

    /// The state machine, as of [`Learner::applied`].
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// The last slot of the durable checkpoint.
    pub fn durable(&self) -> Slot {
        self.past.durable()
    }

    /// Bytes of applied values that no durable checkpoint holds.
    pub fn unwritten_bytes(&self) -> u64 {
        self.past.unwritten_bytes()
    }

    /// Whether [`unwritten_bytes`](Learner::unwritten_bytes) is so high that the server should take no more writes.
    pub fn is_full(&self) -> bool {
        self.past.is_full()
    }

    /// Bytes of the values in the log.
    pub fn log_bytes(&self) -> u64 {
        self.past.log_bytes()
    }

    /// The first slot of the log; the next slot to come if the log is empty.
    pub fn log_begins(&self) -> Slot {
        self.past.log_begins()
    }

    /// The first slot of the log that is kept for peers that fetch a snapshot; `None` if no peer does.
    pub fn log_pinned_from(&self) -> Option<Slot> {
        self.past.pins().from()
    }

    /// Number of slots of which something is known and that are not applied yet.
    pub fn unapplied_slots(&self) -> usize {
        self.unapplied.len()
    }

    /// The number of the round of reads in flight. While there is one, a further read waits until it ends.
    pub fn round(&self) -> Option<u128> {
        self.reads.round()
    }

    /// The slot after which this replica was found divergent, if it was.
    pub fn fenced(&self) -> Option<Slot> {
        self.divergence.fenced()
    }

    /// Starts the incarnation: announces progress, asks all peers for missing entries, and finds out with a read how
    /// far the log may reach. Without the read, a learner that starts last would not learn of the final CHOSEN, which
    /// was sent before it started.
    fn start(&mut self, out: &mut Output<Self>) {
        self.divergence.begin_anew(self.applied, self.machine.digest());
        out.notify(LearnerNotification::Durable { slot: self.past.durable() });
        // The pins of the last incarnation are gone.
        out.notify(LearnerNotification::Pinned { peers: self.fetching });
        self.send_progress(out);
        out.send(self.quorums.others(self.me), Message::CatchUp { from: self.applied.next() });
        self.reads.ask_for_itself(self.ticks);
    }

    /// ACCEPT, which the acceptor receives too: keeps the value of the highest ballot.
    fn handle_accept(&mut self, ballot: Ballot, first: Slot, values: Vec<Value>, out: &mut Output<Self>) {
        for (slot, value) in first.to(Slot::LAST).zip(values) {
            let Some(open) = self.unapplied_slot(slot) else { continue };
            match &open.proposed_value {
                // One ballot carries one value per slot. A lower ballot's value is not needed: if it is chosen, the
                // higher ballot carries the same value (PMS P2b).
                Some((held, before)) if *held >= ballot => assert!(
                    *held > ballot || *before == value,
                    "ballot {ballot} carries two values for {slot:?}: {before:?} and {value:?}"
                ),
                _ => open.proposed_value = Some((ballot, value)),
            }
        }
        self.advance(out);
    }

    /// ACCEPTED: counts, for each ballot of this server, the distinct acceptors that have voted. At a majority a slot
    /// is chosen, which is announced once.
    fn handle_accepted(&mut self, acceptor: ServerId, ballot: Ballot, slots: SlotRange, out: &mut Output<Self>) {
        // Only the ballot owner's learner counts: acceptors send it all votes, so it needs no other learner.
        if ballot.server != self.me || !self.quorums.servers().contains(acceptor) {
            return;
        }
        let chosen: Vec<Slot> = self.in_window(slots).filter(|slot| self.count(acceptor, ballot, *slot, out)).collect();
        for slots in SlotRange::runs(chosen) {
            // A chosen value never changes (PMS P2b), so the other learners can use this at any time.
            out.send(self.quorums.others(self.me), Message::Chosen { ballot, slots });
            self.handle_chosen(ballot, slots, out);
        }
    }

    /// Counts one vote; returns true if the slot is now chosen.
    fn count(&mut self, acceptor: ServerId, ballot: Ballot, slot: Slot, out: &mut Output<Self>) -> bool {
        let quorums = self.quorums;
        let Some(open) = self.unapplied_slot(slot) else { return false };
        if open.quorum.is_some() {
            return false;
        }
        // Votes are kept for each ballot: votes at different ballots may be for different values and choose nothing
        // together (PMS 2.2).
        let at = open.votes.partition_point(|(before, _)| *before < ballot);
        if open.votes.get(at).is_none_or(|(before, _)| *before != ballot) {
            open.votes.insert(at, (ballot, ServerSet::NONE));
        }
        // A set, not a number: a vote that arrives twice must count once.
        let votes = &mut open.votes[at].1;
        let before = std::mem::replace(votes, rules::with_vote(*votes, acceptor, quorums.servers()));
        let (quorum, is_more) = (*votes, before != *votes);
        if open.votes.len() > BALLOTS_COUNTED {
            open.votes.remove(0);
        }
        if !rules::is_chosen(&quorums, quorum) {
            self.has_counted |= is_more;
            return false;
        }
        assert!(
            quorum.without(quorums.servers()).is_empty(),
            "only servers of the cluster may vote, and the voters are {quorum}"
        );
        open.quorum = Some(quorum);
        let value = open.proposed_value.as_ref().filter(|(heard, _)| *heard == ballot).map(|(_, value)| value);
        out.emit_step(|| LearnerTraceEvent::Chosen { slot, ballot, quorum, value: value.cloned() });
        true
    }

    /// CHOSEN: in each of these slots, the value of this ballot is chosen. By P2b every higher ballot carries the same
    /// value.
    fn handle_chosen(&mut self, ballot: Ballot, slots: SlotRange, out: &mut Output<Self>) {
        self.catch_up.note_chosen(slots.last);
        for slot in self.in_window(slots) {
            if let Some(open) = self.unapplied_slot(slot) {
                // The lowest such ballot: a value held at that ballot or above is the chosen one, so the slot can be
                // applied soonest.
                open.chosen = Some(open.chosen.map_or(ballot, |before| before.min(ballot)));
            }
        }
        self.advance(out);
        self.check_for_gap(out);
    }

    /// PROGRESS: a peer reports its applied slot.
    fn handle_progress(&mut self, peer: ServerId, applied: Slot, digest: u64, out: &mut Output<Self>) {
        if !self.quorums.others(self.me).contains(peer) {
            return;
        }
        self.divergence.on_progress(peer, applied, digest, self.ticks);
        self.catch_up.on_progress(peer, applied, self.ticks);
        self.past.on_progress(peer, applied);
        self.check_for_gap(out);
    }

    /// CATCHUP: sends the log from that slot on, as much as one message takes. A peer that has fetched a snapshot is
    /// far behind. It gets two such messages in flight, so that neither of the two servers waits for the other.
    fn handle_catch_up(&mut self, peer: ServerId, from: Slot, out: &mut Output<Self>) {
        if from < self.past.log_begins() {
            return self.send_first_chunk(peer, from, out);
        }
        let sent = self.past.on_catch_up_request(peer, from);
        let first = sent.unwrap_or(from);
        let end = self.send_entries(peer, first, out);
        if sent.is_some() {
            self.past.pins_mut().sent_ahead(peer, first, end);
        } else if end <= self.applied && self.past.pins().has(peer) {
            let behind = self.send_entries(peer, end, out);
            self.past.pins_mut().sent_ahead(peer, end, behind);
        }
    }

    /// Sends a piece of the log from this slot on; returns the slot after it.
    fn send_entries(&self, peer: ServerId, from: Slot, out: &mut Output<Self>) -> Slot {
        let mut entries = Vec::new();
        let mut room = self.part_bytes;
        for (slot, (ballot, value)) in self.past.entries(from).take(ENTRIES_MAX) {
            let size = ENTRY_OVERHEAD_BYTES + value.size();
            if size > room && !entries.is_empty() {
                break;
            }
            room = room.saturating_sub(size);
            entries.push(Entry { slot, ballot: *ballot, value: value.clone() });
        }
        let end = from.plus(entries.len() as u64);
        out.send(ServerSet::only(peer), Message::Entries { entries, applied: self.applied });
        end
    }

    /// FETCHSNAPSHOT: a peer requests a chunk of a snapshot.
    fn handle_fetch(&mut self, peer: ServerId, part: ChunkRequest, out: &mut Output<Self>) {
        self.past.on_chunk_request(peer, part.slot);
        out.notify(LearnerNotification::SnapshotRequested { to: peer, part: Some(part) });
    }

    /// CATCHUP for slots that the log no longer has: sends the checkpoint if it is new enough. It is too old if the log
    /// has outgrown its limit meanwhile. Then a new one is made, and the peer asks again.
    fn send_first_chunk(&mut self, peer: ServerId, from: Slot, out: &mut Output<Self>) {
        if self.past.durable() >= from {
            self.past.on_chunk_request(peer, self.past.durable());
            out.notify(LearnerNotification::SnapshotRequested { to: peer, part: None });
        } else {
            self.want_checkpoint(out);
            out.send(ServerSet::only(peer), Message::Entries { entries: Vec::new(), applied: self.applied });
        }
    }

    /// ENTRIES: applies the entries that come next, and requests more if the peer has more. No votes are counted: a
    /// peer sends only slots that it has applied, so they are chosen.
    fn handle_entries(&mut self, peer: ServerId, entries: Vec<Entry>, applied: Slot, out: &mut Output<Self>) {
        self.catch_up.note_chosen(applied);
        let (before, last) = (self.applied, entries.last().map(|entry| entry.slot));
        for entry in entries {
            if entry.slot == self.applied.next() {
                self.apply(entry.slot, (entry.ballot, ServerSet::NONE), entry.value, out);
            }
        }
        self.advance(out);
        if !self.snapshots.is_coming() {
            let has_more = self.applied > before && self.applied < applied;
            let next = self.catch_up.answered(peer, last, has_more, self.applied);
            self.go_after(next, out);
        }
    }

    /// SNAPSHOT: a chunk of a snapshot.
    fn handle_snapshot(&mut self, peer: ServerId, part: SnapshotChunk, out: &mut Output<Self>) {
        if self.catch_up.catch_up_peer().is_some_and(|asked| asked != peer) {
            // From a peer that this learner no longer asks: the chunk comes too late.
            return;
        }
        let slot = part.slot;
        match self.snapshots.take(peer, part, self.applied, || self.machine.empty()) {
            ChunkResult::Nothing => {}
            ChunkResult::Fetch(part) => {
                self.catch_up.wait_for(peer);
                self.request_chunk(peer, part, out);
            }
            ChunkResult::Whole(state) => self.install(peer, slot, state, out),
            ChunkResult::Useless => {
                self.catch_up.give_up();
                self.check_for_gap(out);
            }
        }
    }

    /// Requests the next chunk of the snapshot that this peer is sending.
    fn request_chunk(&self, peer: ServerId, part: ChunkRequest, out: &mut Output<Self>) {
        out.send(ServerSet::only(peer), Message::FetchSnapshot(part));
        out.arm(LearnerTimer::CatchUp { unanswered: self.catch_up.unanswered() });
    }

    /// Installs a snapshot that is newer than the current state, so that nothing applied is undone.
    fn install(&mut self, from: ServerId, slot: Slot, state: M, out: &mut Output<Self>) {
        assert!(rules::may_install(slot, self.applied), "the state of {slot:?} would undo {:?}", self.applied);
        (self.machine, self.applied) = (state, slot);
        let digest = self.machine.digest();
        self.unapplied.drop_below(slot.next());
        self.past.begin_anew(slot);
        self.divergence.begin_anew(slot, digest);
        self.catch_up.note_chosen(slot);
        self.catch_up.cancel_requests();
        out.emit_step(|| LearnerTraceEvent::Installed { slot, digest, from });
        out.notify(LearnerNotification::Installed { slot, digest, from });
        // The installed state is not durable yet: write a checkpoint of it.
        self.want_checkpoint(out);
        self.advance(out);
        self.answer_reads(out);
        if self.applied < self.catch_up.highest_chosen() {
            let next = self.catch_up.ask(from, self.applied);
            self.go_after(next, out);
        }
    }

    /// Applies every next slot whose chosen value is held.
    fn advance(&mut self, out: &mut Output<Self>) {
        // Commands depend on the state before them, so a hole stops the loop even if later slots are chosen.
        while let Some(open @ UnappliedSlot { chosen: Some(chosen), proposed_value: Some((heard, _)), .. }) =
            self.unapplied.front()
        {
            // PMS P2b: a value at the chosen ballot or above is the chosen value. A value below it may be another, so
            // wait for the entry from a peer.
            if !rules::holds_chosen(*heard, *chosen) {
                break;
            }
            let (chosen, accepted_by) = (*chosen, open.quorum.unwrap_or(ServerSet::NONE));
            let open = self.unapplied.pop_first().and_then(|open| open.proposed_value);
            let Some((_, value)) = open else { unreachable!("the value was present one line above") };
            self.apply(self.applied.next(), (chosen, accepted_by), value, out);
        }
    }

    /// Applies the next slot, reports the outcome, and answers the reads that waited for the slot.
    fn apply(&mut self, slot: Slot, (ballot, accepted_by): (Ballot, ServerSet), value: Value, out: &mut Output<Self>) {
        assert_eq!(slot, self.applied.next(), "slots are applied in order");
        let outcome = self.machine.apply(slot, &value);
        self.applied = slot;
        self.catch_up.note_chosen(slot);
        self.unapplied.drop_below(slot.next());
        self.divergence.applied(slot, self.machine.digest(), self.ticks);
        out.emit_step(|| LearnerTraceEvent::Learned { slot, ballot, value: value.clone(), outcome: outcome.clone() });
        out.notify(LearnerNotification::Applied { slot, id: value.id(), accepted_by, outcome });
        self.advanced.get_or_insert_default().extend(value.id());
        if self.past.is_broken(slot) {
            out.notify(LearnerNotification::Repaired { entries: vec![Entry { slot, ballot, value: value.clone() }] });
        }
        self.past.append_to_log(ballot, value, self.machine.size());
        self.begin_checkpoint(out);
        self.answer_reads(out);
    }

    /// The part of the range that lies inside the learner's window.
    fn in_window(&self, SlotRange { first, last }: SlotRange) -> impl Iterator<Item = Slot> + use<M> {
        first.max(self.applied.next()).to(last.min(self.applied.plus(WINDOW)))
    }

    /// The entry of a slot inside the learner's window: not applied yet, and not too far ahead.
    fn unapplied_slot(&mut self, slot: Slot) -> Option<&mut UnappliedSlot> {
        let ahead = slot.ahead_of(self.applied);
        if ahead <= WINDOW { self.unapplied.get_or_extend(slot) } else { None }
    }

    /// If there is a gap, waits a moment for the missing slots to arrive.
    fn check_for_gap(&mut self, out: &mut Output<Self>) {
        let next = self.catch_up.look(self.applied);
        self.go_after(next, out);
    }

    /// Carries out a step of catching up.
    fn go_after(&self, next: CatchUpStep, out: &mut Output<Self>) {
        match next {
            CatchUpStep::Nothing => {}
            CatchUpStep::Wait => out.arm(LearnerTimer::Gap),
            CatchUpStep::Ask(peer) => {
                let (from, known) = (self.applied.next(), self.catch_up.highest_chosen());
                out.emit_step(|| LearnerTraceEvent::CatchUpRequested { from, to: peer, known });
                out.send(ServerSet::only(peer), Message::CatchUp { from });
                out.arm(LearnerTimer::CatchUp { unanswered: self.catch_up.unanswered() });
            }
        }
    }

    /// The peer that was asked for entries or a chunk has not answered in time.
    fn not_answered(&mut self, out: &mut Output<Self>) {
        if self.catch_up.catch_up_peer().is_none() {
            // The timer is stale: the answer has arrived, and no request is open.
            return;
        }
        self.catch_up.not_answered();
        let was_coming = self.snapshots.is_coming();
        match self.snapshots.fetch_again() {
            Some((peer, part)) => self.request_chunk(peer, part, out),
            None => {
                if was_coming {
                    self.catch_up.give_up();
                }
                let next = self.catch_up.request_from_a_peer(self.applied, self.ticks);
                self.go_after(next, out);
            }
        }
    }

    /// One tick: sends PROGRESS to all servers, also to the own proposer, and checks the time limits.
    fn send_progress(&mut self, out: &mut Output<Self>) {
        self.ticks += 1;
        out.arm(LearnerTimer::Progress);
        let (applied, digest) = (self.applied, self.machine.digest());
        out.send(self.quorums.servers(), Message::Progress { applied, digest });
        let old = self.reads.fail_old(self.ticks);
        Self::fail_reads(old, out);
        if let Some(DivergenceVerdict { slot, equal, against }) = self.divergence.evaluate(self.ticks) {
            out.notify(LearnerNotification::Fenced { slot, equal, against });
            Self::fail_reads(self.reads.fail_all(), out);
        }
        self.past.tick(self.ticks);
        for left in self.past.take_left_behind() {
            out.notify(LearnerNotification::LeftBehind(left));
        }
        self.begin_checkpoint(out);
        if self.past.becomes_late() {
            out.notify(LearnerNotification::CheckpointLate { bytes: self.past.unwritten_bytes() });
        }
    }

    /// Starts a checkpoint of the changes since the last one, if one is due.
    fn begin_checkpoint(&mut self, out: &mut Output<Self>) {
        if self.past.begin_checkpoint(self.applied, self.ticks) {
            let (slot, digest) = (self.applied, self.machine.digest());
            out.notify(LearnerNotification::Checkpoint { slot, digest, changes: self.machine.take_delta() });
        }
    }

    /// The checkpoint as of `slot` is durable, or could not be written.
    fn end_checkpoint(&mut self, slot: Slot, is_durable: bool, out: &mut Output<Self>) {
        if !self.past.end_checkpoint(slot, is_durable, self.ticks) {
            return;
        }
        if is_durable {
            self.machine.delta_saved();
            out.notify(LearnerNotification::Durable { slot });
        } else {
            self.machine.delta_failed();
        }
        self.begin_checkpoint(out);
    }

    /// Makes a checkpoint due, whatever has changed.
    fn want_checkpoint(&mut self, out: &mut Output<Self>) {
        self.past.want_checkpoint();
        self.begin_checkpoint(out);
    }

    /// The own acceptor has corrupt slots: reports the values chosen in them, now or when they are applied here.
    fn mend(&mut self, slots: Vec<SlotRange>, out: &mut Output<Self>) {
        let entries = self.past.mend(slots);
        if !entries.is_empty() {
            out.notify(LearnerNotification::Repaired { entries });
        }
    }

    /// A read arrived: it waits for the next round.
    fn read(&mut self, token: u64, query: M::Query, out: &mut Output<Self>) {
        if let Err(answered) = self.reads.ask(token, query, self.ticks) {
            out.notify(LearnerNotification::ReadFailed { token, answered });
        }
    }

    /// READREPLY: an acceptor names its highest accepted slot. A majority of answers determines the slot for which the
    /// reads of the round wait.
    fn handle_read_reply(&mut self, acceptor: ServerId, id: u128, slot: Slot, out: &mut Output<Self>) {
        if self.reads.take_answer(acceptor, id, slot, &self.quorums) {
            self.answer_reads(out);
        }
    }

    /// Answers every read whose slot is applied. For the other reads, starts a timer; when it runs out, a
    /// proposer is asked to fill their slot.
    fn answer_reads(&mut self, out: &mut Output<Self>) {
        let slot = self.applied;
        for (token, query) in self.reads.ready(slot) {
            out.notify(LearnerNotification::Answer { token, slot, answer: self.machine.query(&query) });
        }
        if self.reads.starts_to_fill(slot) {
            out.arm(LearnerTimer::Fill { tries: 0 });
        }
    }

    /// A slot that reads wait for is still not applied: asks a proposer to fill the log up to it. In Multi-Paxos the
    /// leader fills: this server's proposer knows the leader and passes FILL on. In Basic Paxos the live server with the
    /// lowest number fills; that may be this one.
    fn fill(&mut self, tries: u32, out: &mut Output<Self>) {
        let Some(Fill { slot, is_urgent }) = self.reads.fill(self.applied, tries) else { return };
        let mut to: ServerSet = if self.policy.keeps_ballot() {
            ServerSet::only(self.me)
        } else {
            self.catch_up.live_peers(self.ticks).iter().take(1).collect()
        };
        if is_urgent {
            to.insert(self.me);
        }
        out.emit_step(|| LearnerTraceEvent::FillRequested { slot, to });
        out.send(to, Message::Fill { slot });
        out.arm(LearnerTimer::Fill { tries: tries + 1 });
    }

    fn fail_reads(Failed { tokens, answered }: Failed, out: &mut Output<Self>) {
        tokens.into_iter().for_each(|token| out.notify(LearnerNotification::ReadFailed { token, answered }));
    }

    /// Reports the results of commands that were applied earlier, as far as the state still has them.
    fn find_results(&self, ids: Vec<CommandId>, out: &mut Output<Self>) {
        for id in ids {
            if let Some(outcome) = self.machine.result_of(id) {
                out.notify(LearnerNotification::ResultsFound { slot: self.applied, id, outcome });
            }
        }
    }
}

impl<M: StateMachine> Role for Learner<M> {
    type Message = Message;
    type Record = NoRecord;
    type Timer = LearnerTimer;
    type Request = LearnerRequest<M::Query>;
    type Notification = LearnerNotification<M>;
    type TraceEvent = LearnerTraceEvent<M::Outcome>;

    fn replay(&mut self, record: NoRecord) {
        match record {}
    }

    fn step(&mut self, input: Input<Self>, out: &mut Output<Self>) {
        if self.fenced().is_some() {
            // The state is divergent, so nothing of it may leave this server.
            if let Input::Request(LearnerRequest::Read { token, .. }) = input {
                out.notify(LearnerNotification::ReadFailed { token, answered: ServerSet::NONE });
            }
            return;
        }
        match input {
            Input::Start => self.start(out),
            Input::Message { from, message } => match message {
                Message::Accept { ballot, first, values } => self.handle_accept(ballot, first, values, out),
                Message::Accepted { ballot, slots } => self.handle_accepted(from, ballot, slots, out),
                Message::Chosen { ballot, slots } => self.handle_chosen(ballot, slots, out),
                Message::Progress { applied, digest } => self.handle_progress(from, applied, digest, out),
                Message::CatchUp { from: slot } => self.handle_catch_up(from, slot, out),
                Message::Entries { entries, applied } => self.handle_entries(from, entries, applied, out),
                Message::Snapshot(part) => self.handle_snapshot(from, part, out),
                Message::FetchSnapshot(part) => self.handle_fetch(from, part, out),
                Message::ReadReply { id, slot } => self.handle_read_reply(from, id, slot, out),
                other => debug_assert!(!other.is_for(RoleKind::Learner), "the learner does not handle {other:?}"),
            },
            Input::Timeout(timer) => match timer {
                LearnerTimer::Progress => self.send_progress(out),
                LearnerTimer::Gap => {
                    let next = self.catch_up.waited(self.applied, self.ticks);
                    self.go_after(next, out);
                }
                LearnerTimer::CatchUp { .. } => self.not_answered(out),
                LearnerTimer::Read { id } => self.reads.retry(id),
                LearnerTimer::Fill { tries } => self.fill(tries, out),
            },
            Input::Request(request) => match request {
                LearnerRequest::Read { token, query } => self.read(token, query, out),
                LearnerRequest::CheckpointDone { slot, is_durable } => self.end_checkpoint(slot, is_durable, out),
                LearnerRequest::RequestCheckpoint => self.want_checkpoint(out),
                LearnerRequest::FindResults(ids) => self.find_results(ids, out),
                LearnerRequest::Repair(slots) => self.mend(slots, out),
            },
        }
    }

    /// Starts one round for all reads that arrived in the batch, and notifies the proposer once of all applied slots.
    /// The notification comes last: the proposer may then send at once, and the READ leaves with its messages.
    fn end_batch(&mut self, out: &mut Output<Self>) {
        if self.fetching != self.past.pins().fetching() {
            self.fetching = self.past.pins().fetching();
            out.notify(LearnerNotification::Pinned { peers: self.fetching });
        }
        if let Some(id) = self.reads.begin_round() {
            out.send(self.quorums.servers(), Message::Read { id });
            out.arm(LearnerTimer::Read { id });
        }
        let has_counted = std::mem::take(&mut self.has_counted);
        if let Some(ids) = self.advanced.take() {
            out.notify(LearnerNotification::Advanced { applied: self.applied, ids });
        } else if has_counted {
            out.notify(LearnerNotification::Counted);
        }
    }
}
