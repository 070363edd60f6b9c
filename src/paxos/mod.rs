//! The Paxos protocol: three roles and their messages, without clock, socket, file, thread or randomness.
//!
//! # The problem
//!
//! Five servers keep copies of one store. A client may ask any of them. Any server may crash, restart or be slow, and
//! the others cannot tell which of these has happened. Messages are lost, duplicated and delayed. Still, all servers
//! must apply the same commands in the same order. Then their stores are equal, because applying is deterministic
//! (Schneider, *Implementing Fault-Tolerant Services Using the State Machine Approach*, 1990). So the servers must
//! agree on a *log*: which command is in slot 1, which is in slot 2, and so on.
//!
//! Two-phase commit also reaches agreement, but one crashed coordinator blocks it. Paxos (Lamport, *The Part-Time
//! Parliament*, 1998; *Paxos Made Simple*, 2001) makes progress as long as a majority is up, and is correct however
//! many servers are down. No protocol can promise more. No deterministic protocol is certain to terminate if even one
//! server may crash and messages may take any time (Fischer, Lynch, Paterson 1985). Paxos gives up the certainty of
//! termination, never agreement.
//!
//! # One slot
//!
//! A value is *chosen* when a majority of *acceptors* has accepted it at one [`Ballot`]. Any two majorities share an
//! acceptor. Everything in Paxos rests on this shared acceptor.
//!
//! A ballot is the number of one proposal. Its owner, a *proposer*, goes through two phases:
//!
//! 1. `PREPARE(b)` asks each acceptor to promise that it takes part in nothing below `b`, and to report what it has
//!    accepted. An acceptor that has promised a higher ballot answers `NACK`; it never stays silent.
//! 2. Promises from a majority determine the *safe value*. If any promise reports an accepted value, the proposer must
//!    propose the reported value with the highest ballot. If none does, it may propose its own value.
//!    `ACCEPT(b, value)` asks all acceptors to accept that value.
//!
//! Why the highest? Suppose that `v` was chosen at ballot 3. Majorities intersect, so ballot 4 has a promise from at
//! least one acceptor that accepted `v` at 3. That acceptor accepted before it promised 4, because after the promise it
//! refuses ballot 3. So it reports `v`, and ballot 4 proposes `v`. Ballot 5 does the same: the highest ballot that it
//! hears of is 3 or 4. Once a value is chosen, every higher ballot carries that value (*Paxos Made Simple*, P2b and
//! P2c). It does not matter whether any server knows that the value is chosen. It also does not matter which value most
//! acceptors hold, or which arrived last: only the ballot counts.
//!
//! # The log
//!
//! Each slot is a Paxos instance of its own, but all slots share the ballots. An acceptor has *one* promise for all
//! slots, and `PREPARE` asks about every slot from `from` on. The answer reports everything accepted there, chosen or
//! not. An answer that is too long for one message comes in pages, which the ballot's owner requests. The owner then
//! proposes the safe value in each reported slot, a *no-op* in each hole between them, and its own command behind them.
//!
//! One promise for all slots lets a leader skip phase 1 (see *Leadership*). Without a leader it has a price: a rival's
//! `PREPARE` for slot 8 also stops an `ACCEPT` in flight for slot 7. [`Policy::BasicPaxos`] pays this price: every
//! command goes through both phases, and every server may propose at any time.
//!
//! # The roles
//!
//! Each server has three roles, one module each. A role does not know which roles share its machine. A proposer sends
//! messages to its own acceptor as to every other, and that acceptor counts like every other.
//!
//! - The [`Proposer`] gets commands chosen. Its only durable record is a round: it never uses a round below it again.
//! - The [`Acceptor`] promises and accepts. It is the memory of the protocol: promises and accepted values are durable
//!   before any message reports them (the types of [`role`](crate::role) enforce this order).
//! - The [`Learner`] finds out what was chosen, applies it in slot order, and answers reads. From time to time it has a
//!   checkpoint of its state written; a majority of acceptors holds everything after it.
//!
//! | message | from | receiving role |
//! |---|---|---|
//! | `PREPARE` | proposer | acceptor |
//! | `PROMISE`, `NACK`, `TRUNCATED` | acceptor | proposer |
//! | `ACCEPT` (the values travel here) | proposer | acceptor and learner |
//! | `ACCEPTED` | acceptor | learner of the ballot's owner |
//! | `CHOSEN` | that learner | learners |
//! | `PROGRESS` | learner, every 100 ms | learners and proposers |
//! | `CATCHUP`, `ENTRIES`, `SNAPSHOT`, `FETCHSNAPSHOT` | learner | learner |
//! | `READ` | learner | acceptor |
//! | `READREPLY` | acceptor | learner |
//! | `FILL` | learner; a follower's proposer passes it on | proposer |
//! | `FORWARD`, `FORWARDREFUSED` | proposer | proposer |
//! | `HEARTBEAT`, `HEARTBEATREPLY`, `LEADERHINT` | proposer | proposer |
//! | `PREVOTE`, `PREVOTEREPLY` | proposer | proposer |
//!
//! `ACCEPT`, `ACCEPTED` and `CHOSEN` each cover a run of slots. A leader has many slots in flight, and one message with
//! sixty values costs hardly more than a message with one value.
//!
//! A vote (`ACCEPTED`) names a slot and a ballot, not the value: every learner gets the value from the proposer itself.
//! Only the learner of the ballot's owner counts votes; it informs the other learners with `CHOSEN`. A learner that
//! holds the value of that ballot *or a higher one* holds the chosen value, by P2b. A value of a lower ballot may be
//! another one, so the learner requests the entry from a peer. No proposer receives `CHOSEN`, because a slot can be
//! chosen while no learner holds its value. So a proposal is finished only when the proposer's own learner has
//! *applied* the slot. The learner reports that inside the server ([`ProposerRequest::Applied`]) and in each
//! `PROGRESS`.
//!
//! # One attempt
//!
//! A proposer with work prepares a new ballot from its learner's applied slot + 1 and proposes as above. The attempt is
//! done when its learner has applied all of these slots. If another command took the slot, the proposer tries a later
//! one. It keeps the command until its outcome is applied, whichever proposer got it chosen. An attempt fails when a
//! majority refuses, 20 ms after the first refusal, or after a time without progress. A majority of refusals to a first
//! `PREPARE` only means that the round was stale. The proposer then prepares again at once, above that round, but only
//! once.
//!
//! A new ballot is above every ballot that its server has seen: in refusals, in messages of leaders, and in the promise
//! of its own acceptor, whose round comes with each command. A ballot below that promise is certain to be refused. The
//! round is a hint about another role, so it may be old, and safety does not rest on it. A proposer only never uses a
//! ballot twice, and reserves its rounds durably before it uses them.
//!
//! Two proposers can preempt each other forever. A random wait of 0 to 40 ms before the loser's next attempt ends this
//! duel. The wait does not grow with a proposer's own losses, because a loser that backs off longer each time would
//! starve. It grows only while its learner applies nothing at all.
//!
//! # Leadership
//!
//! [`Policy::MultiPaxos`] uses the same proposer, but the proposer keeps its ballot after its command is chosen (*Paxos
//! Made Simple*, section 3). A ballot that a majority has promised is good for every later slot. So phase 1 is done
//! once. After that, each command costs one round of messages instead of two, and one disk write on each acceptor
//! instead of two. While no other proposer prepares, no ballot is refused, so the duel of the last section does not
//! happen.
//!
//! For that, the servers must agree which of them proposes, but not as strictly as they agree on commands. A wrong
//! opinion costs time and never changes a value. If two proposers both act as leader, they have two ballots, and the
//! acceptors know which is higher. So no durable record says which server leads. Heartbeats, time-outs and chance
//! decide it (`election.rs` explains how, and how a cluster with partial connectivity still finds a leader).
//!
//! *A new leader* prepares from its learner's applied slot + 1. The promises report the remains of the last tenure.
//! Some slots are chosen but not yet known to be, some were accepted by a single acceptor, and between them are holes.
//! The new leader proposes all of them again at its ballot, with a no-op in each hole. Then it continues at the same
//! ballot.
//!
//! *While it leads* it has a window of slots in flight and does not wait for one slot before it proposes in the next.
//! The learners apply the slots in order. All commands that have arrived since the last batch form the next batch. A
//! slot that stays in flight is proposed again with the same ballot and value, which is always allowed.
//!
//! *A client* may still talk to any server. That server's proposer keeps the command and forwards it to the leader,
//! repeatedly, until the outcome is applied (`forwarding.rs`). So the crash of a leader loses no command that a client
//! waits for.
//!
//! *A deposed leader* may not know that it is deposed. It finds out by an acceptor's refusal, by heartbeats without
//! replies, or by its successor's heartbeats, and becomes a follower. Its slots in flight may be chosen or not; its
//! successor finds out which. Nothing that it does meanwhile is unsafe, because no majority accepts anything more at
//! its ballot. Reads do not depend on a leader, so a deposed leader cannot give an old answer.
//!
//! The price: one server does most of the work. When it crashes, nothing is chosen until the others notice its silence
//! and one of them has prepared, which takes some tenths of a second. Basic Paxos has no such pause, but is always
//! slower.
//!
//! # Reads
//!
//! A server's store may be old, because its learner may not have received the last `CHOSEN`. A read answered from it at
//! once could miss a write that another client knows to be done. *Paxos Quorum Reads* (Charapko, Ailijiang, Demirbas,
//! HotStorage 2019) ask a majority of acceptors for their highest accepted slot, wait until that slot is applied, and
//! then answer. Every value chosen before the read began has a vote in every majority. So reads need no leader, no
//! lease and no clock. If that slot was left unfinished, the learner asks a proposer to `FILL` the log up to it.
//! `quorum_reads.rs` explains why a round never serves a read that arrived after it began.
//!
//! # Exactly once
//!
//! A client without an answer asks again, perhaps at another server, and two proposers may get one command into two
//! slots. The protocol does not prevent that. The [state machine](StateMachine) recognizes a repeated command by its
//! [`CommandId`] and returns the first result again. A proposer may report "certainly not applied" only for a command
//! that it never put into an `ACCEPT` or a `FORWARD`. After that, only the log knows.
//!
//! # Failures
//!
//! A role fails by losing its volatile memory between any two steps. Its next incarnation replays its records and
//! continues.
//!
//! - *Acceptor*: a crash looks like slowness. But an acceptor that restarts **without** its records breaks safety. Say
//!   that `A` is chosen by s1 and s2 of three. Then s2 loses its records and promises s3 a new ballot, reporting
//!   nothing; s2 and s3 choose `B` in the same slot, and two learners disagree forever. The scenario
//!   `cluster/lost_memory_is_unsafe` shows it step by step.
//! - *Proposer*: what it proposed may be chosen or not; the next proposer that prepares finishes it. A restarted
//!   proposer must never use an old ballot again. Promises and votes for the old incarnation's ballot may still arrive,
//!   and would be counted for other values.
//! - *Learner*: it starts with its last checkpoint, asks its peers, and does one read for itself to know how far it
//!   must get. Even if all learners restart at once, a `FILL` makes a proposer collect the log again from the
//!   acceptors.
//! - *An acceptor with an unreadable slot* reports it as corrupt, which is not "nothing accepted". A proposer may
//!   choose a value freely only if a majority of definite answers reports nothing.
//!
//! # Truncation
//!
//! A log that only grows fills every disk. So a learner has its state written to a checkpoint. When the checkpoint is
//! durable, the acceptor of the *same* server forgets the slots in it (*Moderately Complex*, section 4.2). No other
//! server need agree: a request for a forgotten slot gets an answer that says so. A `PROMISE` names the first slot that
//! its acceptor still knows. The proposer proposes at or above the highest such slot, because every forgotten slot was
//! chosen. An `ACCEPT` below it is answered with `TRUNCATED`, which is no refusal. A learner that needs a forgotten
//! slot gets a snapshot instead of the log, in chunks (see `snapshot_fetch.rs`), and never goes back to an older state.
//! While a peer fetches a snapshot, the log behind it is kept for that peer (see `pins.rs`). So one snapshot is enough,
//! unless the peer is much slower than the writes.
//!
//! # What is left out
//!
//! - Membership changes (*Paxos Made Simple*, section 3, at its end).
//! - Leases (*Moderately Complex*, section 4, on read-only commands): a read needs a majority, and nothing depends on a
//!   clock.
//! - Byzantine faults. A server follows the protocol or is silent; *The Part-Time Parliament*'s priests are honest too.
//!
//! # Where to go on
//!
//! First `message.rs` and `acceptor.rs` (the shortest role). Then `proposer/mod.rs` with `promises.rs` and its
//! directory: `attempt.rs` is phase 1, `phase2.rs` is phase 2, and `election.rs` and `forwarding.rs` make it
//! Multi-Paxos. Then `learner/mod.rs` with `quorum_reads.rs`, `catch_up.rs`, `retention.rs`, `pins.rs`,
//! `snapshot_fetch.rs` and `divergence.rs`. Last `tests/scenarios`, from `cluster/write` on, which show each rule at
//! work.
//!
//! `rules.rs` names the rules that safety rests on, each with its source; the roles call it to decide. It is also the
//! one file of this module that contains seeded bugs, which show that the simulator notices when a rule is broken.
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

/// The number of one run of a role on one data directory: no two incarnations of one role have the same. The code that
/// assigns the numbers reports when none is left; every `u32` is valid here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u32);

impl Incarnation {
    /// The `n`-th id of this incarnation: no other incarnation of the role has it.
    pub fn unique_id(self, n: u64) -> u128 {
        u128::from(self.0) << 64 | u128::from(n)
    }
}

/// What the log feeds: a deterministic machine that applies one value after the other (Schneider 1990).
pub trait StateMachine: Clone + Debug + Eq + Hash + 'static {
    /// The result of applying a value.
    type Outcome: Clone + Debug + Eq + Hash;
    /// A read-only request.
    type Query: Clone + Debug + Eq + Hash;
    /// The result of a query.
    type Answer: Clone + Debug + Eq + Hash;
    /// The changes that a checkpoint has to write.
    type Changes: Clone + Debug + Eq + Hash;

    /// Applies the value of the next slot.
    fn apply(&mut self, slot: Slot, value: &Value) -> Self::Outcome;

    /// Answers a query from the current state.
    fn query(&self, query: &Self::Query) -> Self::Answer;

    /// A fingerprint of the state: equal states have equal digests.
    fn digest(&self) -> u64;

    /// Approximate size of the state in bytes.
    fn size(&self) -> u64;

    /// A machine of the same kind that has applied nothing, to [load](StateMachine::load_chunk) a snapshot into.
    /// Everything loaded into it counts as changed.
    fn empty(&self) -> Self;

    /// Loads one chunk of a snapshot that another machine of this kind has written. Returns an error if the bytes are
    /// not a valid chunk.
    fn load_chunk(&mut self, part: &[u8]) -> Result<(), String>;

    /// Takes the changes since the last call, to be written to a checkpoint. Before the next call, one of the next two
    /// functions must be called.
    fn take_delta(&mut self) -> Self::Changes;

    /// The taken changes are durable.
    fn delta_saved(&mut self);

    /// The taken changes could not be written: they count as changed again.
    fn delta_failed(&mut self);

    /// The result of a command that was applied earlier, if the state still has it.
    fn result_of(&self, id: CommandId) -> Option<Self::Outcome>;
}

#[cfg(test)]
mod tests {
    use super::Incarnation;

    #[test]
    fn ids_of_two_incarnations_are_never_equal() {
        let numbers =
            [0, 1, 1 << 24, u32::MAX].map(|life| [0, 1, 1 << 40, u64::MAX].map(|n| Incarnation(life).unique_id(n)));
        let numbers = numbers.as_flattened();
        assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    }
}
