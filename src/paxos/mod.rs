//! The Paxos protocol: three roles and their messages. They use no clock, socket, file, thread or source of randomness;
//! the host of a role runs its timers and draws its random waits.
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
//! Parliament*, 1998; *Paxos Made Simple*, 2001) never breaks agreement, however many servers are down. It makes
//! progress while a majority is up, messages arrive in time, and no rival preempts the proposer again and again.
//! Conditions like these cannot be avoided: no deterministic protocol is certain to terminate if even one server may
//! crash and messages may take any time (Fischer, Lynch, Paterson 1985).
//!
//! # One command in five lines
//!
//! These lines are from the logs of a run, shortened. A client has sent a `DELETE` to server 1. The acceptors of servers
//! 2 and 4 are down. `s1.93` is line 93 of server 1, and `re=` names the line that caused this one.
//!
//! ```text
//! s1.93  proposer PREPARE  slot=17+ ballot=17.1 to=s1,s2,s3,s4,s5 re=s1.92
//! s3.84  acceptor PROMISE  slot=17+ ballot=17.1 accepted=none to=s1 re=s1.93
//! s1.96  proposer ACCEPT   slot=17 ballot=17.1 op=DELETE key=shape adopted=none quorum=s1,s3,s5 to=s1,s2,s3,s4,s5 re=s3.84
//! s5.72  acceptor ACCEPTED slot=17 ballot=17.1 to=s1 re=s1.96
//! s1.98  learner  CHOSEN   slot=17 ballot=17.1 quorum=s1,s3,s5 to=s1,s2,s3,s4,s5 re=s5.72
//! ```
//!
//! Server 1 asks all acceptors to promise its ballot. Servers 1, 3 and 5 promise and report no value, so server 1 may
//! propose its own. They write the value to their disks and vote for it. Three of five is a majority: the value is
//! chosen without servers 2 and 4.
//!
//! What if server 2 proposes in the same slot later? It needs promises from a majority too, and two majorities of five
//! share at least one acceptor:
//!
//! ```text
//!                                 s1    s2    s3    s4    s5
//! ballot 17.1 is accepted by      [*]         [*]         [*]     chosen: DELETE shape
//! ballot 18.2 is promised by            [*]   [*]   [*]
//!                                              |
//!                                              s3 is in both. It reports what it accepted at 17.1,
//!                                              so server 2 must propose DELETE shape as well.
//! ```
//!
//! # One slot
//!
//! A *ballot* is a pair of a round and a server, and each proposer uses its own ballots only once. Ballots are ordered
//! by round, then by server ([`Ballot`]). A value is *chosen* when a majority of *acceptors* has accepted it at one
//! ballot; a slot is chosen when a value is chosen in it. Any two majorities share an acceptor. Everything in Paxos
//! rests on this shared acceptor.
//!
//! In one slot, a ballot is the number of one proposal. Its owner, a *proposer*, goes through two phases:
//!
//! 1. `PREPARE(b)` asks each acceptor to promise that it takes part in nothing below `b`, and to report what it has
//!    accepted. An acceptor that has promised a higher ballot answers `NACK`; it never stays silent.
//! 2. Promises from a majority determine the *safe value*. If any promise reports an accepted value, the proposer must
//!    propose the reported value with the highest ballot. If none does, it may propose its own value. `ACCEPT` asks all
//!    acceptors to accept that value at `b`. An acceptor accepts unless it has promised a higher ballot; then it
//!    answers `NACK`. Accepting at `b` also promises `b`. The acceptor sends its vote, `ACCEPTED`, to the learner of
//!    the ballot's owner, which counts the votes.
//!
//! Why the highest? Let 2, 3, 4 and 5 stand for four ballots in this order, and suppose that `v` was chosen at 3.
//! Majorities intersect, so ballot 4 has a promise from at least one acceptor that accepted `v` at 3. That acceptor
//! accepted before it promised 4, because after the promise it refuses ballot 3. So it reports `v` at 3. Another
//! acceptor may report `w` at 2, but no report to ballot 4 can name a ballot between 3 and 4. So 3 is the highest, and
//! ballot 4 proposes `v`. Ballot 5 does the same: the highest ballot reported to it is 3 or 4. Once a value is chosen,
//! every higher ballot carries that value (*Paxos Made Simple*, P2b and P2c). It does not matter whether any server
//! knows that the value is chosen. It also does not matter which value most acceptors hold, or which arrived last: only
//! the ballot counts.
//!
//! # The log
//!
//! Each slot is a Paxos instance of its own, but all slots share the ballots. An acceptor has *one* promise, for all
//! slots. `PREPARE` names the first slot that the proposer needs, and the answer reports everything accepted from there
//! on, chosen or not. An answer that is too long for one message comes in pages, which the ballot's owner requests. The
//! owner then proposes the safe value in each reported slot, and its own command after them. A slot between them in
//! which a majority reports nothing is a *hole*. The owner proposes a *no-op* in it, because learners apply the slots
//! in order and a hole would stop them.
//!
//! One promise for all slots lets a leader skip phase 1 (see *Leadership*). Without a leader it has a price: a rival's
//! higher `PREPARE`, sent for a command in slot 8, also stops an `ACCEPT` on its way to slot 7. [`Policy::BasicPaxos`]
//! pays this price: every command goes through both phases, and every server may propose at any time.
//!
//! # The roles
//!
//! Each server has three roles, one module each. Messages make no difference between the roles of the own server and of
//! another: a proposer sends `PREPARE` to its own server's acceptor as to every other, and its answer counts like every
//! other. In addition, the roles of one server give each other requests and notifications ([`ProposerRequest`],
//! [`AcceptorRequest`], [`LearnerRequest`]).
//!
//! - The [`Proposer`] gets commands chosen. Its only durable record is a reserved round. After a restart it uses no
//!   round below that one.
//! - The [`Acceptor`] promises and accepts. It is the memory of the protocol: promises and accepted values are durable
//!   before any message reports them (the types of [`role`](crate::role) enforce this order).
//! - The [`Learner`] finds out what was chosen, applies it in slot order, and answers reads. It writes no record for
//!   each slot. From time to time it asks its server to write a checkpoint of its state. What came after the checkpoint
//!   it gets from the other servers: entries of the log, or a snapshot of their state.
//!
//! | message | from | to |
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
//! `ACCEPT`, `ACCEPTED` and `CHOSEN` each cover a range of consecutive slots. A leader has many slots *in flight*
//! (proposed, not yet applied), and one message with many small values costs little more than a message with one.
//!
//! A vote (`ACCEPTED`) names a slot and a ballot, not the value: every learner gets the value from the proposer itself.
//! Only the learner of the ballot's owner counts votes; it informs the other learners with `CHOSEN`. A learner whose
//! value has the ballot of `CHOSEN` or a higher one holds the chosen value (P2b). A value at a lower ballot may differ,
//! so the learner requests the entry from a peer. `CHOSEN` does not end a proposer's work: if every learner missed the
//! `ACCEPT`, the slot is chosen but no learner can apply it. So a proposer continues until its own server's learner has
//! *applied* the slot. That learner tells its own proposer directly ([`ProposerRequest::Applied`]), and the other
//! servers in each `PROGRESS`.
//!
//! # One attempt
//!
//! A proposer with work prepares a new ballot from the first slot that it does not know to be chosen, and proposes as
//! above. The attempt is done when its learner has applied every slot that it proposed in. If another command was
//! chosen in its command's slot, the proposer tries again in a later slot. It keeps the command until its learner has
//! applied it, whichever proposer got it chosen. An attempt fails in three cases: a majority refuses; 20 ms pass after
//! the first refusal; or a time-out passes without progress. If a majority refuses the first `PREPARE` of an attempt,
//! its round was probably old. So the proposer first prepares again at once, above that round, but only once.
//!
//! A new ballot is above every ballot that the proposer knows of: from refusals and from messages of leaders. The
//! server also passes its own acceptor's promised round along with each command, because a ballot below it would be
//! refused there. That round may be old; this costs time only. Safety needs just one thing: a proposer never uses a
//! ballot twice. So it reserves its rounds durably before it uses them.
//!
//! Two proposers can preempt each other forever, which is called live-lock or a duel (*Paxos Made Simple*, section
//! 2.4). A random wait before the loser's next attempt, 0 to 40 ms, makes it very likely that one of them gets through.
//! The wait does not grow with a proposer's own losses, because a loser that backs off longer each time would starve.
//! It grows only while its learner applies nothing at all.
//!
//! # Leadership
//!
//! [`Policy::MultiPaxos`] uses the same proposer, but the proposer keeps its ballot after its command is chosen (*Paxos
//! Made Simple*, section 3). A ballot that a majority has promised is good for every later slot, until a majority
//! promises a higher one. So phase 1 is done once. After that, each command costs one exchange of messages instead of
//! two, and one disk write on each acceptor instead of two. While no other proposer prepares, no ballot is refused, so
//! the duel of the last section does not happen.
//!
//! To profit from this, the servers should agree on which of them proposes. A wrong opinion costs time and never
//! changes a value. If two proposers both act as leader, they have two ballots, and the acceptors know which is higher.
//! So no durable record says which server leads. Heartbeats, time-outs and chance decide it (`election.rs` explains
//! how, and how a cluster with partial connectivity still finds a leader).
//!
//! *A new leader* prepares from the first slot that it does not know to be chosen. The time during which one ballot
//! leads is its *tenure*. The promises report what earlier tenures left unfinished: slots chosen without any learner
//! knowing it, slots accepted by a single acceptor, and holes between them. The new leader proposes all of them again
//! at its ballot, with a no-op in each hole. Then it continues at the same ballot.
//!
//! *While it leads* it has a window of slots in flight and does not wait for one slot before it proposes in the next.
//! The learners apply the slots in order. All commands that have arrived since its last `ACCEPT` go into the next one,
//! each in a slot of its own. A slot that stays in flight is proposed again with the same ballot and value, which is
//! always allowed.
//!
//! *A client* may still talk to any server. That server's proposer keeps the command and forwards it to the leader,
//! repeatedly, until its own learner has applied the command (`forwarding.rs`). So the crash of a leader loses no
//! command that a client waits for.
//!
//! *A deposed leader* may not know that it is deposed. It finds out by an acceptor's refusal, by heartbeats without
//! replies, or by its successor's heartbeats, and becomes a follower. Its slots in flight may be chosen or not; its
//! successor finds out which. Nothing that it does meanwhile is unsafe: either a majority refuses its ballot, or every
//! higher ballot must adopt what it got chosen. Reads do not depend on a leader, so a deposed leader cannot give an old
//! answer.
//!
//! The price: one server does most of the work, and its crash stops all writes for a while. The others see a crash when
//! its connections close, and a leader that only falls silent after 150 to 300 ms; then one of them prepares
//! (`docs/performance.md` has the measurements). Basic Paxos has no such pause, but needs two phases for each command.
//!
//! # Reads
//!
//! A server's store may be old, because its learner may not have received the last `CHOSEN`. If it answered a read at
//! once, the read could miss a write that another client knows to be done. So the learner asks a majority of acceptors
//! for their highest accepted slot, waits until it has applied that slot itself, and then answers (*Paxos Quorum
//! Reads*: Charapko, Ailijiang, Demirbas, HotStorage 2019). Every majority contains an acceptor that accepted what was
//! chosen before the read began. So reads need no leader, no lease and no clock. If a slot up to that one is not chosen
//! yet, the learner asks a proposer to `FILL` the log up to it. `quorum_reads.rs` explains why one exchange with the
//! acceptors never serves a read that arrived after it began.
//!
//! # Exactly once
//!
//! A client without an answer asks again, perhaps at another server, and two proposers may get one command into two
//! slots. The protocol does not prevent that. The [state machine](StateMachine) recognizes a repeated command by its
//! [`CommandId`] and returns the first result again. (Its table of results is bounded: a client that lost its place in
//! it is told that the outcome is unknown.) A proposer may report "certainly not applied" only for a command that it
//! never put into an `ACCEPT` or a `FORWARD`. Once it was sent, it may be chosen at any later time.
//!
//! # Failures
//!
//! A role fails by losing its volatile memory between any two steps. After a restart, the next *incarnation* of the
//! role replays its records and continues.
//!
//! - *Acceptor*: a crash looks like slowness. But an acceptor that restarts **without** its records breaks safety. Say
//!   that `A` is chosen by s1 and s2 of three. Then s2 loses its records and promises s3 a new ballot, reporting
//!   nothing; s2 and s3 choose `B` in the same slot, and two learners disagree forever. The text file
//!   `tests/scenarios/cluster/lost_memory_is_unsafe` shows it step by step.
//! - *Proposer*: what it proposed may be chosen or not; the next proposer that prepares finishes it. A restarted
//!   proposer must never use an old ballot again. Promises and votes for the old incarnation's ballot may still arrive,
//!   and would be counted for other values.
//! - *Learner*: it starts with its last checkpoint, asks its peers for the rest, and does one quorum read to learn how
//!   far the log reaches. Even if all learners restart at once, a `FILL` makes a proposer collect the log again from
//!   the acceptors.
//! - *An acceptor with an unreadable slot* reports it as corrupt, which is not "nothing accepted". A proposer may
//!   propose its own value only if a majority of acceptors, not counting those whose slot is corrupt, report that they
//!   accepted nothing there.
//!
//! # Truncation
//!
//! A log that only grows fills every disk. So a learner has a checkpoint of its state written. When the checkpoint is
//! durable, the acceptor of the *same* server forgets the slots in it (van Renesse and Altinbuken, *Paxos Made
//! Moderately Complex*, 2015, section 4.2). It need not ask another server, because its answers say which slots it has
//! forgotten. A `PROMISE` names the first slot that its acceptor still knows. The proposer proposes at or above the
//! highest such slot of its promises, because every forgotten slot was chosen. An acceptor answers `TRUNCATED` to an
//! `ACCEPT` for a slot that it has forgotten; this does not count as a refusal. A learner that needs a forgotten slot
//! gets a snapshot instead of the log, in chunks (see `snapshot_fetch.rs`), and never goes back to an older state.
//! While a peer fetches a snapshot, its source keeps the log after the snapshot for it (see `retention/pins.rs`). So one snapshot
//! is enough, unless the peer is much slower than the writes.
//!
//! # What is left out
//!
//! - Membership changes (*Paxos Made Simple*, section 3, at its end).
//! - Leases (*Paxos Made Moderately Complex*, section 4, on read-only commands): a read needs a majority, and no
//!   argument for correctness rests on a clock.
//! - Byzantine faults: a server follows the protocol or is silent.
//!
//! # Where to go on
//!
//! First `rules.rs`, one page: it names the rules that safety rests on, each with its source, and the roles call it to
//! decide. It also holds switches for seeded bugs, which test the simulator; normal builds compile them out
//! (`seeded_bugs::is_enabled` is then always false). Next `message.rs` and `acceptor.rs`, the shortest role. Then
//! `proposer/mod.rs` with `promises.rs`, the heart of phase 1 (P2c), and the other files of `proposer/`: `attempt.rs`
//! holds one ballot and the acceptors that refused it, `phase2.rs` is phase 2, and `election.rs` and `forwarding.rs`
//! make it Multi-Paxos. Then `learner/mod.rs` and its parts, `quorum_reads.rs`, `catch_up.rs`, `retention/`,
//! `snapshot_fetch.rs` and `divergence.rs`. Last `tests/scenarios`: text files, from `cluster/write` on, that show each
//! rule at work.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod acceptor;
mod ballot;
mod learner;
mod message;
mod policy;
mod promises;
mod proposer;
mod quorum;
mod rules;
mod slot_window;

use std::fmt::Debug;
use std::hash::Hash;

pub use acceptor::{
    Acceptor, AcceptorNotification, AcceptorRecord, AcceptorRequest, AcceptorTimer, AcceptorTraceEvent, PAGE_BYTES,
};
pub use ballot::{Ballot, Slot};
pub use learner::retention::pins::{LeftBehind, pinned_log_max_bytes as most_pinned_bytes};
pub use learner::retention::{FULL_FACTOR, HARD_FACTOR, LATE_FACTOR, Retention};
pub use learner::{
    Learner, LearnerNotification, LearnerRequest, LearnerTimer, LearnerTraceEvent, WINDOW as LEARNER_WINDOW,
};
pub use message::{
    ChunkRequest, Command, CommandId, Entry, Message, NackedRequest, Page, PartToken, SlotRange, SnapshotChunk, Value,
};
pub use policy::Policy;
pub use proposer::{
    IN_FLIGHT_MAX as OPEN_SLOTS_MAX, IN_FLIGHT_MAX_BYTES as OPEN_BYTES_MAX, LeaderEvidence, NotApplied, Proposer,
    ProposerNotification, ProposerPhase, ProposerRecord, ProposerRequest, ProposerTimer, ProposerTraceEvent,
    RetryReason, StepDownReason, in_place_of_proposer,
};
pub use quorum::Quorums;

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
    fn empty(&self) -> Self;

    /// Loads one chunk of a snapshot that another machine of this kind has written. Returns an error if the bytes are
    /// not a valid chunk. A loaded chunk does not count as changed: the server writes it itself.
    fn load_chunk(&mut self, part: &[u8]) -> Result<(), String>;

    /// Takes the changes since the last call, to be written to a checkpoint. Before the next call, one of the next two
    /// functions must be called.
    fn take_delta(&mut self) -> Self::Changes;

    /// The taken changes are durable.
    fn delta_saved(&mut self);

    /// The taken changes could not be written: they count as changed again. If the disk may lack chunks that were loaded
    /// before, everything does.
    fn delta_failed(&mut self);

    /// The result of a command that was applied earlier, if the state still has it.
    fn result_of(&self, id: CommandId) -> Option<Self::Outcome>;
}

#[cfg(test)]
mod tests {
    use super::Incarnation;

    #[test]
    fn ids_of_two_incarnations_are_never_equal() {
        let numbers = [0, 1, 1 << 24, u32::MAX]
            .map(|incarnation| [0, 1, 1 << 40, u64::MAX].map(|n| Incarnation(incarnation).unique_id(n)));
        let numbers = numbers.as_flattened();
        assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    }
}
