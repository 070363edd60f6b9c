//! The learner: finds out what was chosen, and applies it in slot order.
//!
//! The learner of a ballot's owner counts that ballot's `ACCEPTED`; when a majority of distinct acceptors has accepted
//! a slot at that one ballot, the slot is chosen, and the learner says so to all (Paxos Made Simple, section 2.3).
//! Every learner keeps the value of the highest ballot that it heard in an `ACCEPT`, so `CHOSEN` need not carry it: if
//! that ballot is at least the chosen one, its value is the chosen one (P2b: no higher proposal carries another).
//!
//! What else it does stands in a file each, as a struct of its own that knows nothing of the learner. The learner tells
//! each what happens, and carries out what it returns: [`CatchUp`] says whom to ask for what was missed,
//! [`SnapshotFetch`] puts together a whole state that comes in, [`CheckpointSchedule`] keeps the end of the log and
//! says when a checkpoint is due (with [`Pins`](super::pins::Pins), which says what is kept for peers that fetch the
//! state), [`QuorumReads`] knows when a read may be answered, and [`Divergence`] finds out a wrong state.

mod types;

pub use self::types::{LearnerNotification, LearnerRequest, LearnerTimer, LearnerTraceEvent};

use super::catch_up::{CatchUp, CatchUpStep};
use super::divergence::{Divergence, DivergenceVerdict};
use super::quorum_reads::{Failed, Fill, QuorumReads};
use super::retention::{CheckpointSchedule, Retention};
use super::slot_window::SlotWindow;
use super::snapshot_fetch::{ChunkResult, SnapshotFetch};
use super::{
    Ballot, ChunkRequest, CommandId, Entry, Incarnation, Message, Policy, Quorums, Slot, SlotRange, SnapshotChunk,
    StateMachine, Value, rules,
};
use crate::role::{Input, NoRecord, Output, Role, RoleKind, ServerId, ServerSet};

/// How far beyond the applied slot a learner keeps what it hears; what lies beyond, it asks for later.
pub const WINDOW: u64 = 1_024;
/// The values of one ENTRIES take about this many bytes at most, unless a single one is larger.
pub const ENTRIES_BYTES: usize = 1 << 20;
/// One ENTRIES holds at most so many slots.
pub const ENTRIES_MAX: usize = 1_024;
/// Votes are counted for at most so many ballots a slot, the highest: a proposal that is so many attempts old is chosen
/// again by a later one.
const BALLOTS_COUNTED: usize = 16;

/// What is known of a slot that is not applied yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct UnappliedSlot {
    /// The value of the highest ballot heard in an ACCEPT.
    proposed_value: Option<(Ballot, Value)>,
    /// A ballot at which the slot is known to be chosen.
    chosen: Option<Ballot>,
    /// Who accepted it at which ballot of this server's; the lowest ballot first.
    votes: Vec<(Ballot, ServerSet)>,
    /// CHOSEN was said.
    reported: bool,
}

/// The learner of one server. See the head of its file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Learner<M: StateMachine> {
    me: ServerId,
    quorums: Quorums,
    policy: Policy,
    /// The last slot applied; rises by exactly one at a time, but where a whole state is taken.
    applied: Slot,
    machine: M,
    /// Slots above `applied`, at most [`WINDOW`] ahead.
    unapplied: SlotWindow<UnappliedSlot>,
    /// The commands applied in this turn; None between two turns, and if nothing was applied.
    advanced: Option<Vec<CommandId>>,
    /// A vote was counted in this turn, for a slot that is not chosen yet.
    has_counted: bool,
    /// Beats of one's own so far: the learner's clock.
    ticks: u64,
    catch_up: CatchUp,
    snapshots: SnapshotFetch<M>,
    past: CheckpointSchedule,
    reads: QuorumReads<M::Query>,
    divergence: Divergence,
    /// The peers with a pin, as the server was told of them.
    fetching: ServerSet,
    /// The values of one ENTRIES take about so many bytes at most; at least 1.
    part_bytes: usize,
}

impl<M: StateMachine> Learner<M> {
    /// A learner whose state machine has applied everything up to `applied`, and whose disk has it. It keeps everything
    /// that it learns; see [`with_retention`](Learner::with_retention).
    pub fn new(me: ServerId, quorums: Quorums, life: Incarnation, applied: Slot, machine: M) -> Learner<M> {
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
            reads: QuorumReads::new(life),
            divergence: Divergence::new(applied),
            fetching: ServerSet::NONE,
            part_bytes: ENTRIES_BYTES,
        }
    }

    /// The same under this policy: it says whose proposer fills slots that nobody finishes.
    pub fn with_policy(self, policy: Policy) -> Learner<M> {
        Learner { policy, ..self }
    }

    /// The same with smaller parts: a simulation of a few commands meets ENTRIES that are not all as well.
    pub fn with_part_bytes(self, part_bytes: usize) -> Learner<M> {
        Learner { part_bytes, ..self }
    }

    /// The same learner, but it does not keep everything.
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

    /// A durable checkpoint holds every slot up to this one.
    pub fn durable(&self) -> Slot {
        self.past.durable()
    }

    /// Bytes of values applied that no durable checkpoint holds.
    pub fn unwritten_bytes(&self) -> u64 {
        self.past.unwritten_bytes()
    }

    /// Whether they are so many that its server should take no more writes.
    pub fn is_full(&self) -> bool {
        self.past.is_full()
    }

    /// Bytes of the values in its log.
    pub fn log_bytes(&self) -> u64 {
        self.past.log_bytes()
    }

    /// The first slot of the log; the next one to come if there is none.
    pub fn log_begins(&self) -> Slot {
        self.past.log_begins()
    }

    /// From which slot on it keeps the log for peers that fetch the state; None if no peer does.
    pub fn log_pinned_from(&self) -> Option<Slot> {
        self.past.pins().from()
    }

    /// How many slots it knows something of that are not applied yet.
    pub fn unapplied_slots(&self) -> usize {
        self.unapplied.len()
    }

    /// The number of the round of reads under way; while there is one, no read has an effect before it is over.
    pub fn round(&self) -> Option<u128> {
        self.reads.round()
    }

    /// The slot after which its state was found to be wrong, if it was.
    pub fn fenced(&self) -> Option<Slot> {
        self.divergence.fenced()
    }

    /// A life begins: beat, ask somebody what was missed, and find out by a read how far the log may reach. Nothing
    /// tells a learner that starts last that the final CHOSEN was said before it lived.
    fn start(&mut self, out: &mut Output<Self>) {
        self.divergence.begin_anew(self.applied, self.machine.digest());
        out.notify(LearnerNotification::Durable { slot: self.past.durable() });
        // The pins of the life before are gone with it.
        out.notify(LearnerNotification::Pinned { peers: self.fetching });
        self.send_progress(out);
        out.send(self.quorums.others(self.me), Message::CatchUp { from: self.applied.next() });
        self.reads.ask_for_itself(self.ticks);
    }

    /// ACCEPT, heard beside the acceptor: keep the value of the highest ballot.
    fn handle_accept(&mut self, ballot: Ballot, first: Slot, values: Vec<Value>, out: &mut Output<Self>) {
        for (slot, value) in first.to(Slot::LAST).zip(values) {
            let Some(open) = self.unapplied_slot(slot) else { continue };
            match &open.proposed_value {
                // A ballot carries one value for a slot; a lower one's is of no interest.
                Some((held, before)) if *held >= ballot => assert!(
                    *held > ballot || *before == value,
                    "ballot {ballot} carries two values for {slot:?}: {before:?} and {value:?}"
                ),
                _ => open.proposed_value = Some((ballot, value)),
            }
        }
        self.advance(out);
    }

    /// ACCEPTED: count distinct acceptors of one ballot of our own; at a majority a slot is chosen, which is said once.
    fn handle_accepted(&mut self, acceptor: ServerId, ballot: Ballot, slots: SlotRange, out: &mut Output<Self>) {
        if ballot.server != self.me || !self.quorums.servers().contains(acceptor) {
            return;
        }
        let chosen: Vec<Slot> = self.in_window(slots).filter(|slot| self.count(acceptor, ballot, *slot, out)).collect();
        for slots in SlotRange::runs(chosen) {
            out.send(self.quorums.others(self.me), Message::Chosen { ballot, slots });
            self.handle_chosen(ballot, slots, out);
        }
    }

    /// Counts one vote; true if with it the slot is chosen.
    fn count(&mut self, acceptor: ServerId, ballot: Ballot, slot: Slot, out: &mut Output<Self>) -> bool {
        let quorums = self.quorums;
        let Some(open) = self.unapplied_slot(slot) else { return false };
        if open.reported {
            return false;
        }
        let at = open.votes.partition_point(|(before, _)| *before < ballot);
        if open.votes.get(at).is_none_or(|(before, _)| *before != ballot) {
            open.votes.insert(at, (ballot, ServerSet::NONE));
        }
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
        assert!(quorum.without(quorums.servers()).is_empty(), "only servers of the cluster vote, and {quorum} did");
        open.reported = true;
        let value = open.proposed_value.as_ref().filter(|(heard, _)| *heard == ballot).map(|(_, value)| value);
        out.emit_step(|| LearnerTraceEvent::Chosen { slot, ballot, quorum, value: value.cloned() });
        true
    }

    /// CHOSEN: each slot holds what any proposal at this ballot, or above, carries.
    fn handle_chosen(&mut self, ballot: Ballot, slots: SlotRange, out: &mut Output<Self>) {
        self.catch_up.hear_of(slots.last);
        for slot in self.in_window(slots) {
            if let Some(open) = self.unapplied_slot(slot) {
                // The lowest such ballot makes the value heard count soonest.
                open.chosen = Some(open.chosen.map_or(ballot, |before| before.min(ballot)));
            }
        }
        self.advance(out);
        self.check_for_gap(out);
    }

    /// BEAT: somebody says how far it is.
    fn handle_progress(&mut self, peer: ServerId, applied: Slot, digest: u64, out: &mut Output<Self>) {
        if !self.quorums.others(self.me).contains(peer) {
            return;
        }
        self.divergence.hear(peer, applied, digest, self.ticks);
        self.catch_up.hear(peer, applied, self.ticks);
        self.past.hear(peer, applied);
        self.check_for_gap(out);
    }

    /// CATCHUP: send what was applied here from that slot on, as much as a frame takes. A peer that has fetched a state
    /// is far behind: it has two such parts under way, so that none of the two servers waits for the other.
    fn handle_catch_up(&mut self, peer: ServerId, from: Slot, out: &mut Output<Self>) {
        if from < self.past.log_begins() {
            return self.send_first_chunk(peer, from, out);
        }
        let sent = self.past.entries_asked(peer, from);
        let first = sent.unwrap_or(from);
        let end = self.send_entries(peer, first, out);
        if sent.is_some() {
            self.past.pins_mut().sent_ahead(peer, first, end);
        } else if end <= self.applied && self.past.pins().has(peer) {
            let behind = self.send_entries(peer, end, out);
            self.past.pins_mut().sent_ahead(peer, end, behind);
        }
    }

    /// Sends a part of the log, from this slot on; says where it ends.
    fn send_entries(&self, peer: ServerId, from: Slot, out: &mut Output<Self>) -> Slot {
        let mut entries = Vec::new();
        let mut room = self.part_bytes;
        for (slot, (ballot, value)) in self.past.entries(from).take(ENTRIES_MAX) {
            let size = 24 + value.size();
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

    /// FETCH: a peer is to get a part of a state.
    fn handle_fetch(&mut self, peer: ServerId, part: ChunkRequest, out: &mut Output<Self>) {
        self.past.part_asked(peer, part.slot);
        out.notify(LearnerNotification::SnapshotRequested { to: peer, part: Some(part) });
    }

    /// CATCHUP for slots that the log no longer has: the checkpoint is sent, if it is of any use. If it is too old,
    /// since the log has outgrown its limit meanwhile, a new one is made for whoever asks again.
    fn send_first_chunk(&mut self, peer: ServerId, from: Slot, out: &mut Output<Self>) {
        if self.past.durable() >= from {
            self.past.part_asked(peer, self.past.durable());
            out.notify(LearnerNotification::SnapshotRequested { to: peer, part: None });
        } else {
            self.want_checkpoint(out);
            out.send(ServerSet::only(peer), Message::Entries { entries: Vec::new(), applied: self.applied });
        }
    }

    /// ENTRIES: apply those that come next; ask for more if there is more.
    fn handle_entries(&mut self, peer: ServerId, entries: Vec<Entry>, applied: Slot, out: &mut Output<Self>) {
        self.catch_up.hear_of(applied);
        let (before, last) = (self.applied, entries.last().map(|entry| entry.slot));
        for entry in entries {
            if entry.slot == self.applied.next() {
                self.apply(entry.slot, entry.ballot, entry.value, out);
            }
        }
        self.advance(out);
        if !self.snapshots.is_coming() {
            let has_more = self.applied > before && self.applied < applied;
            let next = self.catch_up.answered(peer, last, has_more, self.applied);
            self.go_after(next, out);
        }
    }

    /// SNAPSHOT: a part of a state.
    fn handle_snapshot(&mut self, peer: ServerId, part: SnapshotChunk, out: &mut Output<Self>) {
        if self.catch_up.catch_up_peer().is_some_and(|asked| asked != peer) {
            // Of somebody who was given up: it comes too late.
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

    /// Asks for a part of a state.
    fn request_chunk(&self, peer: ServerId, part: ChunkRequest, out: &mut Output<Self>) {
        out.send(ServerSet::only(peer), Message::FetchSnapshot(part));
        out.arm(LearnerTimer::CatchUp { unanswered: self.catch_up.unanswered() });
    }

    /// The new state takes the place of the old one.
    fn install(&mut self, from: ServerId, slot: Slot, state: M, out: &mut Output<Self>) {
        assert!(rules::may_install(slot, self.applied), "the state of {slot:?} would undo {:?}", self.applied);
        (self.machine, self.applied) = (state, slot);
        let digest = self.machine.digest();
        self.unapplied.drop_below(slot.next());
        self.past.begin_anew(slot);
        self.divergence.begin_anew(slot, digest);
        self.catch_up.hear_of(slot);
        self.catch_up.wait_for_nobody();
        out.emit_step(|| LearnerTraceEvent::Installed { slot, digest, from });
        out.notify(LearnerNotification::Installed { slot, digest, from });
        // It is not durable here before it is in the own checkpoint.
        self.want_checkpoint(out);
        self.advance(out);
        self.answer_reads(out);
        if self.applied < self.catch_up.highest_chosen() {
            let next = self.catch_up.ask(from, self.applied);
            self.go_after(next, out);
        }
    }

    /// Applies every slot that is next and whose chosen value is held.
    fn advance(&mut self, out: &mut Output<Self>) {
        while let Some(UnappliedSlot { chosen: Some(chosen), proposed_value: Some((heard, _)), .. }) =
            self.unapplied.front()
        {
            if !rules::holds_chosen(*heard, *chosen) {
                break;
            }
            let chosen = *chosen;
            let open = self.unapplied.pop_first().and_then(|open| open.proposed_value);
            let Some((_, value)) = open else { unreachable!("the value was there a line ago") };
            self.apply(self.applied.next(), chosen, value, out);
        }
    }

    /// Applies the next slot, says what came of it, and answers the reads that waited for it.
    fn apply(&mut self, slot: Slot, ballot: Ballot, value: Value, out: &mut Output<Self>) {
        assert_eq!(slot, self.applied.next(), "slots are applied one after the other");
        let outcome = self.machine.apply(slot, &value);
        self.applied = slot;
        self.catch_up.hear_of(slot);
        self.unapplied.drop_below(slot.next());
        self.divergence.applied(slot, self.machine.digest(), self.ticks);
        out.emit_step(|| LearnerTraceEvent::Learned { slot, ballot, value: value.clone(), outcome: outcome.clone() });
        out.notify(LearnerNotification::Applied { slot, id: value.id(), outcome });
        self.advanced.get_or_insert_default().extend(value.id());
        if self.past.is_broken(slot) {
            out.notify(LearnerNotification::Repaired { entries: vec![Entry { slot, ballot, value: value.clone() }] });
        }
        self.past.append_to_log(ballot, value, self.machine.size());
        self.begin_checkpoint(out);
        self.answer_reads(out);
    }

    /// Those of these slots that may have a record.
    fn in_window(&self, SlotRange { first, last }: SlotRange) -> impl Iterator<Item = Slot> + use<M> {
        first.max(self.applied.next()).to(last.min(self.applied.plus(WINDOW)))
    }

    /// The record of a slot that is still of interest: not applied yet, and not too far ahead.
    fn unapplied_slot(&mut self, slot: Slot) -> Option<&mut UnappliedSlot> {
        let ahead = slot.ahead_of(self.applied);
        if ahead <= WINDOW { self.unapplied.get_or_extend(slot) } else { None }
    }

    /// If something chosen is missing, waits a moment for it to arrive by itself.
    fn check_for_gap(&mut self, out: &mut Output<Self>) {
        let next = self.catch_up.look(self.applied);
        self.go_after(next, out);
    }

    /// Does what is to be done about what is missing.
    fn go_after(&self, next: CatchUpStep, out: &mut Output<Self>) {
        match next {
            CatchUpStep::Nothing => {}
            CatchUpStep::Wait => out.arm(LearnerTimer::Gap),
            CatchUpStep::Ask(peer) => {
                let (from, known) = (self.applied.next(), self.catch_up.highest_chosen());
                out.emit_step(|| LearnerTraceEvent::CaughtUp { from, to: peer, known });
                out.send(ServerSet::only(peer), Message::CatchUp { from });
                out.arm(LearnerTimer::CatchUp { unanswered: self.catch_up.unanswered() });
            }
        }
    }

    /// Whoever was asked, for entries or for a part of a state, has not answered in time.
    fn not_answered(&mut self, out: &mut Output<Self>) {
        if self.catch_up.catch_up_peer().is_none() {
            // Late: the answer has come, and nothing is asked of anybody.
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
                let next = self.catch_up.ask_somebody(self.applied, self.ticks);
                self.go_after(next, out);
            }
        }
    }

    /// Says how far it is, to its own proposer too.
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
        self.past.beat(self.ticks);
        for left in self.past.take_left_behind() {
            out.notify(LearnerNotification::LeftBehind(left));
        }
        self.begin_checkpoint(out);
        if self.past.becomes_late() {
            out.notify(LearnerNotification::CheckpointLate { bytes: self.past.unwritten_bytes() });
        }
    }

    /// Has the state written down if it is time to: what has changed, as of this slot.
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

    /// Somebody wants a durable state.
    fn want_checkpoint(&mut self, out: &mut Output<Self>) {
        self.past.want_checkpoint();
        self.begin_checkpoint(out);
    }

    /// The own acceptor cannot read these slots: it hears what was chosen in them, now or when it is known here.
    fn mend(&mut self, slots: Vec<SlotRange>, out: &mut Output<Self>) {
        let entries = self.past.mend(slots);
        if !entries.is_empty() {
            out.notify(LearnerNotification::Repaired { entries });
        }
    }

    /// A read arrived: it waits for the next round of questions.
    fn read(&mut self, token: u64, query: M::Query, out: &mut Output<Self>) {
        if let Err(answered) = self.reads.ask(token, query, self.ticks) {
            out.notify(LearnerNotification::ReadFailed { token, answered });
        }
    }

    /// READANSWER: an acceptor says how far it is; with a majority it is known for what the reads of the round wait.
    fn handle_read_answer(&mut self, acceptor: ServerId, id: u128, slot: Slot, out: &mut Output<Self>) {
        if self.reads.take_answer(acceptor, id, slot, &self.quorums) {
            self.answer_reads(out);
        }
    }

    /// Answers every read whose slot is applied; makes sure that somebody works on the others'.
    fn answer_reads(&mut self, out: &mut Output<Self>) {
        let slot = self.applied;
        for (token, query) in self.reads.ready(slot) {
            out.notify(LearnerNotification::Answer { token, slot, answer: self.machine.query(&query) });
        }
        if self.reads.starts_to_fill(slot) {
            out.arm(LearnerTimer::Fill { tries: 0 });
        }
    }

    /// A slot that reads wait for is still not applied: ask for the log to be filled up to it. That is the leader's
    /// work, whom the own proposer knows; without leaders the lowest-numbered living server's.
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
        out.emit_step(|| LearnerTraceEvent::Filled { slot, to });
        out.send(to, Message::Fill { slot });
        out.arm(LearnerTimer::Fill { tries: tries + 1 });
    }

    fn fail_reads(Failed { tokens, answered }: Failed, out: &mut Output<Self>) {
        tokens.into_iter().for_each(|token| out.notify(LearnerNotification::ReadFailed { token, answered }));
    }

    /// What commands came to that were applied some time ago, as far as the state remembers.
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
            // What it holds is wrong: nobody hears of it any more.
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
                Message::ReadReply { id, slot } => self.handle_read_answer(from, id, slot, out),
                other => debug_assert!(!other.is_for(RoleKind::Learner), "nobody takes {other:?}"),
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

    /// One round of questions serves the reads that came in a turn, and the proposer hears once what the whole turn has
    /// applied. That comes last: a proposer that waited for it writes to the peers at once, and takes the questions
    /// along.
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
