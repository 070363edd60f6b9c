//! Paxos, and nothing else: no clock, socket, file, thread or randomness in this room.
//!
//! # The problem
//!
//! Five servers keep one store. A client may ask any of them, and any of them may crash, come back, or be slow without
//! anybody being able to tell which; messages are lost, doubled and late. Still all servers must apply the same
//! commands in the same order: then their stores are equal, since applying is deterministic (Schneider, *Implementing
//! Fault-Tolerant Services Using the State Machine Approach*, 1990). So what must be agreed on is a *log*: which
//! command stands in slot 1, which in slot 2, and so on.
//!
//! Two-phase commit agrees too, but one dead coordinator stops it. Paxos (Lamport, *The Part-Time Parliament*, 1998;
//! *Paxos Made Simple*, 2001) goes on as long as a majority lives, and is never wrong however many do not. Nothing can
//! promise more: no deterministic protocol is certain to end if even one server may crash and messages may take any
//! time (Fischer, Lynch, Paterson 1985). Paxos gives up the certainty to end, never the agreement.
//!
//! # One slot
//!
//! *Chosen* means: a majority of *acceptors* has accepted one value at one [`Ballot`]. Two majorities always share an
//! acceptor, and that one acceptor is what everything rests on.
//!
//! A ballot is the number of one proposal. Its owner, a *proposer*, goes through two phases:
//!
//! 1. `PREPARE(b)`: promise me to take part in nothing below `b`, and tell me what you have accepted so far. An
//!    acceptor that has promised more answers `NACK`, and never keeps silent.
//! 2. With promises of a majority the proposer knows enough. If any of them reports an accepted value, it must propose
//!    the one with the highest ballot; if none does, it is free. `ACCEPT(b, value)` asks everybody to accept it.
//!
//! Why the highest? Suppose `v` was chosen at ballot 3. Whoever prepares ballot 4 hears from at least one acceptor that
//! accepted `v` at 3, since majorities meet; or that acceptor had promised 4 before, and then `v` was not chosen at 3
//! with its vote. So 4 proposes `v`, and so does 5, for which the highest is 3 or 4. From the moment that a value is
//! chosen, every higher ballot carries that value (*Paxos Made Simple*, P2b and P2c). It does not matter whether
//! anybody knows that it is chosen. And it does not matter which value most acceptors hold, or which arrived last: only
//! the ballot does.
//!
//! # The log
//!
//! Each slot is a Paxos of its own, but all share the ballots: an acceptor has *one* promise for all slots, and
//! `PREPARE` asks about every slot from `from` on. The answer reports all that was accepted there, chosen or not; one
//! that is too long for a message comes in pages, which the owner asks for. The owner then proposes in each reported
//! slot what it must, a *no-op* in the holes between, and its own command behind them.
//!
//! One promise for all slots is what lets a leader skip phase 1 (see *Leadership*), and it has a price while there is
//! none: a rival's `PREPARE` for slot 8 kills an `ACCEPT` in flight for slot 7. [`Policy::BasicPaxos`] pays it: every
//! command goes through both phases, and every server proposes whenever it likes.
//!
//! # The roles
//!
//! Each server has three, in a file each, and a role does not know that it shares a machine with others: the proposer's
//! own acceptor is asked by message like everybody's, and counts like everybody's.
//!
//! - The [`Proposer`] gets commands chosen. It remembers one number: rounds below it are spent.
//! - The [`Acceptor`] promises and accepts. It is the memory of the protocol: both are durable before a word of them
//!   leaves (see [`role`](crate::role), whose types hold that order).
//! - The [`Learner`] finds out what was chosen, applies it in slot order, and answers reads. It has its state written
//!   down now and then; whatever came after stands with a majority of acceptors.
//!
//! | message | from | heard on the receiving server by |
//! |---|---|---|
//! | `PREPARE` | proposer | acceptor |
//! | `PROMISE`, `NACK`, `TRUNCATED` | acceptor | proposer |
//! | `ACCEPT` (the values travel here) | proposer | acceptor and learner |
//! | `ACCEPTED` | acceptor | learner of the ballot's owner |
//! | `CHOSEN` | that learner | learners |
//! | `BEAT` | learner, every 100 ms | learners, and the proposers |
//! | `CATCHUP`, `ENTRIES`, `SNAPSHOT`, `FETCH` | learner | learner |
//! | `READ` | learner | acceptor |
//! | `READANSWER` | acceptor | learner |
//! | `FILL` | learner | proposer |
//! | `FORWARD`, `REFUSED`, `HEARTBEAT` and its answer, `RELAY`, `PREVOTE` and its answer | proposer | proposer |
//!
//! `ACCEPT`, `ACCEPTED` and `CHOSEN` speak of a run of slots: a leader has many under way, and one message with sixty
//! values costs hardly more than one with one.
//!
//! A vote names a slot and a ballot, not the value: every learner has heard the value from the proposer itself. One
//! learner counts, the ballot owner's, and tells the others with `CHOSEN`. A learner that holds the value of that
//! ballot *or a higher one* holds the chosen value, by P2b; with a lower one it holds nothing, and asks a peer. No
//! proposer hears `CHOSEN`: a slot can be chosen while no learner holds its value, so a proposal is finished only when
//! the own learner has *applied* the slot, which it says in the house ([`ProposerRequest::Applied`]) and with each
//! `BEAT`.
//!
//! # One attempt
//!
//! A proposer with work to do prepares a new ballot from its learner's applied slot + 1, proposes as above, and is done
//! when its learner has applied all of it. If the slot that it wanted went to another command, it tries a later one:
//! the command stays until its outcome is applied, whoever got it there. The attempt is lost when a majority refuses,
//! 20 ms after the first refusal, or when nothing has moved for a while. A majority of refusals to a first `PREPARE`
//! only means that the round was stale: the proposer prepares again at once, above it, but once.
//!
//! Two proposers can beat each other for ever. What ends the duel is that the loser waits a random 0 to 40 ms. The wait
//! does not grow with the losses: a loser that backs off further each time would starve.
//!
//! # Leadership
//!
//! [`Policy::MultiPaxos`] is the same proposer, and it does not give the ballot up when its command is chosen (*Paxos
//! Made Simple*, section 3). A ballot that a majority has promised is good for every later slot: phase 1 is done once,
//! and then each command costs one round of messages and one write to disk on each acceptor instead of two. While
//! nobody else prepares, nobody is refused either, so the duel of the last section does not happen.
//!
//! For that, the servers must agree who it is that proposes; but not as they agree on commands. A wrong opinion costs
//! time and never a value: two proposers that both take themselves for leaders have two ballots, and the acceptors know
//! the higher one. So who leads is nowhere written down, and found by heartbeats, time-outs and chance (`election.rs`
//! tells how, and how a cluster in which not everybody hears everybody still finds one).
//!
//! *A new leader* prepares from its learner's applied slot + 1, and what it is told there are the remains of the reign
//! before: slots that are chosen and not yet known to be, slots that one acceptor has accepted, and holes between. It
//! proposes all of them again at its ballot, a no-op in each hole, and then goes on at the same ballot.
//!
//! *While it leads* it has a window of slots open at a time, and proposes in them without waiting for the ones before;
//! the learners apply them in order. All commands that have come since the last group went out make the next one. A
//! slot that stays open is proposed again at the same ballot, with the same value: that is always allowed.
//!
//! *A client* may still talk to any server. The server's own proposer keeps the command and hands it to the leader,
//! again and again until the outcome is applied (`forwarding.rs`). So the death of a leader loses nothing that anybody
//! waits for.
//!
//! *A deposed leader* may not know it. It finds out by the first acceptor that refuses it, by its heartbeats that are
//! no longer answered, or by those of its successor, and then it is a follower; what it had open may be chosen or not,
//! which its successor finds out. Nothing that it does meanwhile is wrong: at its ballot a majority accepts nothing
//! more. And reads never ask whether somebody leads, so a deposed leader cannot give an old answer.
//!
//! The price: one server does most of the work, and when it dies nothing is chosen until its silence has been noticed
//! and another one has prepared, some tenths of a second. Basic Paxos has no such gap, and is slower all the time.
//!
//! # Reads
//!
//! A server's store may be old: its learner may not have heard the last `CHOSEN`. A read that is answered from it at
//! once could miss a write that another client knows to be done. *Paxos Quorum Reads* (Charapko, Ailijiang, Demirbas,
//! HotStorage 2019) ask a majority of acceptors for their highest accepted slot, wait until it is applied, and answer
//! then: whatever was chosen before the question has a vote in every majority. No leader, no lease, no clock. If the
//! slot was left unfinished, the learner asks a proposer to `FILL` the log up to it. See `reads.rs` for why a round of
//! questions never serves a read that came later.
//!
//! # Exactly once
//!
//! A client that hears nothing asks again, perhaps elsewhere, and two proposers may get one command into two slots. The
//! protocol does not prevent that; the [state machine](StateMachine) takes a command that it knows for a duplicate, by
//! its [`CommandId`], and says what it came to the first time. A proposer may say "certainly not applied" only of a
//! command that it never put into an `ACCEPT` or a `FORWARD`: after that, only the log knows.
//!
//! # Failures
//!
//! A role fails by losing its memory, between any two steps; its next life replays its records and goes on.
//!
//! - *Acceptor*: as if it had been slow. But one that comes back **without** its records breaks everything: say `A` is
//!   chosen by s1 and s2 of three; s2 forgets, and promises s3 a new ballot reporting nothing; s2 and s3 choose `B` in
//!   the same slot, and two learners disagree for ever. The scenario `cluster/lost_memory_is_unsafe` shows it step by
//!   step.
//! - *Proposer*: what it proposed may be chosen or not; whoever prepares next finishes it. It must never use a ballot
//!   again: promises and votes to the old life's ballot may still arrive, and would be counted for other values.
//! - *Learner*: it starts with the state last written down, asks its peers, and reads once for itself to know how far
//!   it must get. Even if all learners start at once, a `FILL` makes a proposer collect the log again from the
//!   acceptors.
//! - *An acceptor that cannot read a slot* says "damaged", which is not "nothing accepted": a slot is free only with a
//!   majority of definite answers.
//!
//! # Forgetting
//!
//! A log that only grows fills every disk. So a learner has its state written to a checkpoint, and when that is durable
//! the acceptor of the *same* server forgets the slots in it (*Moderately Complex*, section 4.2). Nobody else need
//! agree: whoever asks for a forgotten slot gets an answer that says so. A `PROMISE` names the first slot that its
//! acceptor still knows, and its proposer proposes at or above the highest such slot: what is forgotten was chosen. An
//! `ACCEPT` below it is answered with `TRUNCATED`, which is no refusal. A learner that needs a forgotten slot gets the
//! state instead of the log, in parts (see `snapshots.rs`), and it must never go back. While a peer fetches a state,
//! the log behind that state is kept for it (see `pins.rs`): so one state is enough, unless the peer is much slower
//! than the writes.
//!
//! # What is left out
//!
//! - Changing who the servers are (*Paxos Made Simple*, section 3, at its end).
//! - Leases (*Moderately Complex*, section 4, on read-only commands): a read needs a majority, and no clock is trusted
//!   with anything.
//! - Liars. A server follows the protocol or is silent; *The Part-Time Parliament*'s priests are honest too.
//!
//! # Where to go on
//!
//! `message.rs`, `acceptor.rs` (the shortest role), `proposer.rs` with `promises.rs` and its folder (`attempt.rs` is
//! phase 1, `phase2.rs` phase 2, `election.rs` and `forwarding.rs` what makes it Multi-Paxos), `learner.rs` with
//! `reads.rs`, `catch_up.rs`, `retention.rs`, `pins.rs`, `snapshots.rs` and `divergence.rs`; then `tests/scenarios`,
//! from `cluster/write` on, which show each rule at work.
//!
//! `rules.rs` names the rules that safety stands on, each with its source; the roles ask there. It is also the one file
//! of this room that knows of seeded bugs, which show that the simulator notices when a rule is broken.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod acceptor;
mod ballot;
mod catch_up;
mod divergence;
mod learner;
#[cfg(test)]
mod learner_tests;
mod message;
mod pins;
mod policy;
mod promises;
mod proposer;
mod quorum;
mod quorum_reads;
mod retention;
mod rules;
mod slot_window;
mod snapshot_fetch;

use std::fmt::Debug;
use std::hash::Hash;

pub use acceptor::{
    Acceptor, AcceptorNotification, AcceptorRecord, AcceptorRequest, AcceptorTimer, AcceptorTraceEvent, PAGE_BYTES,
};
pub use ballot::{Ballot, Slot};
pub use learner::{
    Learner, LearnerNotification, LearnerRequest, LearnerTimer, LearnerTraceEvent, WINDOW as LEARNER_WINDOW,
};
pub use message::{
    ChunkRequest, Command, CommandId, Entry, Message, NackedRequest, Page, PartToken, SlotRange, SnapshotChunk, Value,
};
pub use pins::{LeftBehind, most_bytes as most_pinned_bytes};
pub use policy::Policy;
pub use proposer::{
    IN_FLIGHT_MAX as OPEN_SLOTS_MAX, LeaderEvidence, NotApplied, OPEN_BYTES as OPEN_BYTES_MAX, Proposer,
    ProposerNotification, ProposerRecord, ProposerRequest, ProposerTimer, ProposerTraceEvent, RetryReason,
    StepDownReason, in_place_of_proposer,
};
pub use quorum::Quorums;
pub use retention::{FULL_FACTOR, HARD_FACTOR, LATE_FACTOR, Retention};

/// Numbers the lives of a role on one data folder: no two lives of one role ever have the same. Whoever draws the
/// numbers says when there are no more; every number there is will do here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u32);

impl Incarnation {
    /// The n-th number of this life: no other life of the role has it.
    pub fn unique_id(self, n: u64) -> u128 {
        u128::from(self.0) << 64 | u128::from(n)
    }
}

/// What the log is for: a deterministic machine that applies one value after the other (Schneider 1990).
pub trait StateMachine: Clone + Debug + Eq + Hash + 'static {
    /// What applying a value says.
    type Outcome: Clone + Debug + Eq + Hash;
    /// A question that changes nothing.
    type Query: Clone + Debug + Eq + Hash;
    /// Its answer.
    type Answer: Clone + Debug + Eq + Hash;
    /// What a checkpoint has to write.
    type Changes: Clone + Debug + Eq + Hash;

    /// Applies the value of the next slot.
    fn apply(&mut self, slot: Slot, value: &Value) -> Self::Outcome;

    /// Answers from the state as it is.
    fn query(&self, query: &Self::Query) -> Self::Answer;

    /// A fingerprint of the state: equal states have equal digests.
    fn digest(&self) -> u64;

    /// About how many bytes the state has.
    fn size(&self) -> u64;

    /// A machine of the same kind that has applied nothing, to [`load`](StateMachine::load) a state into. All that it
    /// gets counts as changed.
    fn empty(&self) -> Self;

    /// Takes a part of a state that another machine of this kind has written. An error if the bytes are no such part.
    fn load_chunk(&mut self, part: &[u8]) -> Result<(), String>;

    /// What has changed since this was asked last, to be written to a checkpoint. To be followed by one of the next two
    /// before it is asked again.
    fn take_delta(&mut self) -> Self::Changes;

    /// What was taken is durable.
    fn delta_saved(&mut self);

    /// What was taken could not be written: it counts as changed again.
    fn delta_failed(&mut self);

    /// What a command came to that was applied some time ago, if the state still says so.
    fn result_of(&self, id: CommandId) -> Option<Self::Outcome>;
}

#[cfg(test)]
mod tests {
    use super::Incarnation;

    #[test]
    fn the_numbers_of_two_lives_are_never_the_same() {
        let numbers =
            [0, 1, 1 << 24, u32::MAX].map(|life| [0, 1, 1 << 40, u64::MAX].map(|n| Incarnation(life).unique_id(n)));
        let numbers = numbers.as_flattened();
        assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    }
}
