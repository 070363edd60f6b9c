//! Seeded bugs: bugs that real consensus systems have had, each as a small change of this code.
//!
//! A check that has never failed proves nothing. Each bug is switched on by name, and the simulator must find it
//! (`paxos-lab simulate --bug FirstValueAdopted`). A bug is in one of three places:
//!
//! - Around the unchanged role, whose inputs, records and actions it rewrites: see `wrapper.rs`, and one file for each
//!   role. Real servers and the simulator both have it.
//! - In the rule that it breaks, if a wrapper cannot change that rule: one switch in `rules.rs` of `paxos`,
//!   `two_phase_commit`, `kv` or `storage`.
//! - In a decision of the server: one switch at the place of that decision (`host/`). Real servers and the simulator
//!   both have it.
//!
//! Without the feature `seeded-bugs`, [`is_enabled`] is the constant `false` and [`step`] is the role's own step. So no
//! build for production has a bug.

#[cfg(any(test, feature = "seeded-bugs"))]
mod acceptor;
#[cfg(any(test, feature = "seeded-bugs"))]
mod coordinator;
#[cfg(any(test, feature = "seeded-bugs"))]
mod learner;
#[cfg(any(test, feature = "seeded-bugs"))]
mod participant;
#[cfg(any(test, feature = "seeded-bugs"))]
mod proposer;
#[cfg(any(test, feature = "seeded-bugs"))]
mod wrapper;

use crate::protocol::Protocol;

#[cfg(all(feature = "seeded-bugs", not(debug_assertions)))]
compile_error!("seeded bugs must never be in a release build: use --profile seeded-bugs");

macro_rules! seeded_bugs {
    ($($name:ident: $why:literal, seen $seen:literal;)+) => {
        /// A seeded bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[allow(missing_docs, reason = "each tells what it is")]
        pub enum Bug { $($name),+ }

        impl Bug {
            /// All bugs.
            pub const ALL: &[Bug] = &[$(Bug::$name),+];

            /// The name on the command line.
            pub fn name(self) -> &'static str {
                match self { $(Bug::$name => stringify!($name)),+ }
            }

            /// What the bug changes.
            pub fn says(self) -> &'static str {
                match self { $(Bug::$name => $why),+ }
            }

            /// Where the bug was seen.
            pub fn seen(self) -> &'static str {
                match self { $(Bug::$name => $seen),+ }
            }
        }
    };
}

seeded_bugs! {
    SaidBeforeSynced: "a group is said before it is synced: the journal writes and does not sync", seen "etcd #14370";
    PromiseNotWritten: "a promise is not written down", seen "PySyncObj #201, nodedb #161, robustmq #2039";
    AcceptedNotWritten: "an accepted value is not written down", seen "student Paxos labs";
    RestartReusesBallots: "a proposer that restarts uses its ballots again", seen "phxpaxos #145";
    RetryReusesBallot: "a new attempt takes the ballot of the one before", seen "two leaders of one term after a step-down";
    AcceptDoesNotPromise: "accepting does not raise the promise", seen "textbook slips; found by model checkers";
    OneBallotVariable: "one variable for the promised and the accepted ballot", seen "EPaxos, Sutra 2019";
    FirstValueAdopted: "the first value reported is adopted, and not that of the highest ballot", seen "student Paxos labs";
    StalePromisesCount: "promises for an older ballot are counted", seen "vote counting in many first versions";
    VotesOfAllBallotsCount: "votes of different ballots are added up", seen "vote counting in many first versions";
    RepeatedVotesCount: "a vote that comes twice counts twice", seen "votes kept as a number; student Paxos labs";
    FirstPageIsWhole: "the first page of a promise is taken for all of it", seen "frame limits under large logs";
    ForgottenIsFree: "what a promise has forgotten is taken for nothing accepted", seen "logs that are cut while somebody is away";
    HolesStayOpen: "holes are not filled", seen "DSLabs test 24";
    ReadsAnsweredLocally: "a read is answered from the local map", seen "Redis-Raft #18, etcd #7331, published coursework";
    OldReadAnswersCount: "answers to a round of questions that has begun before a read came are taken for answers to its own", seen "etcd #20418";
    ForgetfulAcceptorVotes: "a restarted acceptor has forgotten everything and votes", seen "published coursework; diskless recovery, DISC 2017";
    DamagedEndIsUnwritten: "a damaged end of the journal is taken for one that was never written", seen "8 of 8 systems in CORDS, FAST 2017";
    SyncErrorIgnored: "an error of fsync is ignored", seen "fsyncgate; RocksDB #2495";
    RereadIsDurable: "what a new process has read is taken for durable", seen "Rebello et al., ATC 2020; this project's own journal";
    SegmentReused: "a journal file that nobody needs any more is used again, with its old records in it", seen "logs with recycled segments";
    SegmentNameNotSynced: "a new journal file's name is not synced", seen "ALICE, OSDI 2014";
    CheckpointSlotWrong: "a checkpoint's slot is not that of its data", seen "etcd 3.5 post-mortem, #13766, #14685";
    RetryAppliedTwice: "a retried write is done twice", seen "retries after a fail-over";
    ProposedCalledNotApplied: "a command that was proposed is called not applied when it takes too long", seen "Redis-Raft, aborted reads";
    ReplyToLongestWaiting: "a reply goes to whoever has waited longest, and not to whoever asked", seen "published coursework: the proposer tells its own client what came of another's value";
    AcceptedNamesLaterBallot: "an acceptor's answers wait in a batch, and name the ballot that is promised when they leave", seen "SwiftPaxos #2; completion handlers that look their ballot up again";
    OlderSnapshotInstalled: "a snapshot is taken in also when it is older than what is there", seen "etcd #18055";
    SnapshotWithoutSessions: "a snapshot leaves the sessions out", seen "session tables that are not part of the state";
    LogCutBeforeCheckpoint: "the log is cut before its checkpoint is durable", seen "snapshots without a sync";
    LogTrimmedDuringTransfer: "the log behind a state is trimmed while a peer still fetches that state", seen "this project's own retention";
    UnansweredLeaderGoesOn: "a leader that nobody answers leads on", seen "leaders that can send and not hear";
    RandomSessionForgotten: "the session to forget is the first of a hash map", seen "replicas that differ";
    ChosenWithoutBallot: "a learner takes any value heard for the one that was chosen", seen "CHOSEN that names only the slot";
    AcceptBelowFrom: "a proposer proposes in a slot that its promises do not cover", seen "a log with one ballot for all slots";
    PromiseWithoutValue: "a promise says yes, and never what was accepted", seen "published coursework";
    BallotWithoutServer: "a ballot does not say whose it is", seen "published coursework";
    LostDiskBelieved: "peers believe a server that has lost its disk", seen "TigerBeetle's warning of a reformatted replica; DISC 2017";
    RememberBeforeProof: "what a caller says of its disk is remembered before it is proved", seen "this project's own handshake";
    CandidateOverCandidate: "a new disk replaces another new one in its peers' memory", seen "thought out with the rule that forbids it";
    NewDiskVotes: "a server with a new disk takes part at once", seen "diskless recovery, DISC 2017; replicas that are formatted again";
    LeavesItselfOut: "a proposer asks everybody but its own acceptor", seen "published coursework: three of the other four";
    AcceptedIsCleared: "an acceptor forgets what it has accepted when the next slot comes", seen "published coursework: learning clears the accepted value";
    OwnValueAlways: "a proposer proposes its own value whatever was promised", seen "published coursework";
    PromiseClears: "a promise clears what was accepted", seen "published coursework";
    EqualBallotRefused: "an ACCEPT at the promised ballot is refused", seen "student Paxos labs";
    HalfIsEnough: "half of the servers are a majority", seen "student Paxos labs";
    LearnFromAccept: "a learner takes a proposed value for a chosen one", seen "published coursework: learn without quorum";
    NobodyTriesAgain: "a proposer's timers never ring", seen "published coursework: failures swallowed";
    AcceptBelowPromise: "an acceptor accepts below its promise", seen "published coursework: the ballot goes backwards";
    LearnWithoutQuorum: "one vote is enough", seen "published coursework";
    NackedLeaderGoesOn: "a leader that was refused leads on at its ballot", seen "leases and terms that are checked late";
    ForwardedTwice: "a leader proposes a command again that is handed over again while it is open", seen "retries under load";
    NoCatchUp: "a learner that missed something never asks", seen "published coursework";
    SessionWithoutNonce: "a session is known by its number alone", seen "this project's own first sessions";
    WaitersWithoutNonce: "who waits for a command is known by session and sequence alone", seen "this project's own first front desk";
    ExpiredIsAlwaysCertain: "an expired session is told as not applied also when a snapshot came in between", seen "a rule that was tried for this project, and refuted by reading";
    DecisionBeforeDurable: "two-phase commit: the decision is sent before it is durable", seen "student databases; the textbook's first warning";
    PreparedAbortsAlone: "two-phase commit: a participant that is prepared aborts when it has waited for long", seen "heuristic decisions of XA resource managers";
    VoteNotWritten: "two-phase commit: a vote is lost in a crash", seen "student databases";
    MajorityOfVotesCommits: "two-phase commit: a majority of the votes is enough", seen "Paxos and two-phase commit, mixed";
    GivenUpNotWritten: "two-phase commit: whoever tells another that it has not voted forgets that it said so", seen "cooperative termination without a record";
    LocksLostInCrash: "two-phase commit: a participant that restarts has lost its locks", seen "locks that are kept in memory alone";
    ReadIgnoresLocks: "two-phase commit: a read does not wait for a lock", seen "reads of what is not decided";
    LateRequestVotedAgain: "two-phase commit: a vote request is voted on again when it comes late", seen "messages that overtake each other";
    TransactionNumbersReused: "two-phase commit: a coordinator that restarts uses its numbers again", seen "counters in memory";
    CommitForgottenEarly: "two-phase commit: the coordinator forgets a commit when the first has acknowledged it", seen "presumed abort, half understood";
}

#[cfg(any(test, feature = "seeded-bugs"))]
mod selector {
    use std::cell::Cell;
    use std::sync::OnceLock;

    use super::Bug;

    thread_local! {
        static ON: Cell<Option<Bug>> = const { Cell::new(None) };
    }
    /// The bug of the whole process.
    static EVERYWHERE: OnceLock<Bug> = OnceLock::new();

    /// Whether this bug is on in this thread.
    pub fn is_enabled(bug: Bug) -> bool {
        on() == Some(bug)
    }

    /// Switches a bug on in all threads, until the process ends.
    pub fn switch_everywhere(bug: Bug) {
        let _ = EVERYWHERE.set(bug);
    }

    /// Switches a bug on in this thread; None switches all off.
    pub fn switch(bug: Option<Bug>) {
        ON.set(bug);
    }

    /// The bug that is on in this thread.
    pub fn on() -> Option<Bug> {
        ON.get().or_else(|| EVERYWHERE.get().copied())
    }
}

#[cfg(not(any(test, feature = "seeded-bugs")))]
mod selector {
    use super::Bug;

    /// No bug can be switched on in this build.
    #[inline(always)]
    pub const fn is_enabled(_bug: Bug) -> bool {
        false
    }

    /// The bug that is on in this thread: none.
    pub const fn on() -> Option<Bug> {
        None
    }
}

/// In this build no bug wraps a role.
#[cfg(not(any(test, feature = "seeded-bugs")))]
mod wrapper {
    use crate::role::{Actions, Input, Output, Role};

    /// Steps the role.
    #[inline(always)]
    pub fn step<R: Role>(role: &mut R, input: Input<R>, out: &mut Output<R>) {
        role.step(input, out);
    }

    /// Changes nothing.
    #[inline(always)]
    pub fn rewrite<C, R: Role>(_role: &R, _records: &mut Vec<R::Record>, _actions: &mut Actions<C, R>) {}
}

pub use selector::{is_enabled, on};
#[cfg(any(test, feature = "seeded-bugs"))]
pub use selector::{switch, switch_everywhere};
pub(crate) use wrapper::{rewrite, step};

/// The first of these in the order of a hash map, which differs each time: for RandomSessionForgotten.
pub fn first_of_a_hash_map(numbers: impl Iterator<Item = u64>) -> Option<u64> {
    use std::hash::{BuildHasher, RandomState};
    let order = RandomState::new();
    numbers.min_by_key(|number| order.hash_one(number))
}

/// Whether this build has seeded bugs.
pub const AVAILABLE: bool = cfg!(any(test, feature = "seeded-bugs"));

impl Bug {
    /// The protocol with this bug; None means Paxos, both kinds.
    pub fn protocol(self) -> Option<Protocol> {
        (Bug::DecisionBeforeDurable..=Bug::CommitForgottenEarly).contains(&self).then_some(Protocol::TwoPhaseCommit)
    }
}

impl std::str::FromStr for Bug {
    type Err = String;

    fn from_str(name: &str) -> Result<Bug, String> {
        let known = || Bug::ALL.iter().map(|bug| bug.name()).collect::<Vec<_>>().join(", ");
        let found = Bug::ALL.iter().copied().find(|bug| bug.name().eq_ignore_ascii_case(name));
        found.ok_or_else(|| format!("'{name}' is no seeded bug; there are {}", known()))
    }
}
