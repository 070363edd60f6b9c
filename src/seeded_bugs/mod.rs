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
        #[allow(missing_docs, reason = "each is described by its text")]
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
    SaidBeforeSynced: "a group of records is announced before it is synced: the journal writes and does not sync", seen "etcd #14370";
    PromiseNotWritten: "a promise is not made durable", seen "PySyncObj #201, nodedb #161, robustmq #2039";
    AcceptedNotWritten: "an accepted value is not made durable", seen "student Paxos labs";
    RestartReusesBallots: "a proposer that restarts uses its ballots again", seen "phxpaxos #145";
    RetryReusesBallot: "a new attempt reuses the ballot of the previous one", seen "two leaders of one term after a step-down";
    AcceptDoesNotPromise: "accepting does not raise the promise", seen "mistakes in textbooks; found by model checkers";
    OneBallotVariable: "one variable for the promised and the accepted ballot", seen "EPaxos, Sutra 2019";
    FirstValueAdopted: "the first reported value is adopted, not that of the highest ballot", seen "student Paxos labs";
    StalePromisesCount: "promises for an older ballot are counted", seen "vote counting in many first implementations";
    VotesOfAllBallotsCount: "votes at different ballots are added up", seen "vote counting in many first implementations";
    RepeatedVotesCount: "a vote that arrives twice counts twice", seen "votes kept as a number; student Paxos labs";
    FirstPageIsWhole: "the first page of a promise is treated as the whole promise", seen "frame limits with large logs";
    ForgottenIsFree: "truncated slots in a promise are treated as slots without an accepted value", seen "logs that are truncated while a server is down";
    HolesStayOpen: "holes are not filled", seen "DSLabs test 24";
    ReadsAnsweredLocally: "a read is answered from the local replica", seen "Redis-Raft #18, etcd #7331, published coursework";
    OldReadAnswersCount: "a read uses replies to a quorum read that began before the read arrived", seen "etcd #20418";
    ForgetfulAcceptorVotes: "a restarted acceptor has lost everything and votes", seen "published coursework; diskless recovery, DISC 2017";
    DamagedEndIsUnwritten: "a corrupt end of the journal is treated as a torn tail", seen "8 of 8 systems in CORDS, FAST 2017";
    SyncErrorIgnored: "an error of fsync is ignored", seen "fsyncgate; RocksDB #2495";
    RereadIsDurable: "a restarted process treats everything that it reads as durable", seen "Rebello et al., ATC 2020; this project's own journal";
    SegmentReused: "an unneeded journal file is reused without erasing its old records", seen "logs with recycled segments";
    SegmentNameNotSynced: "the directory entry of a new journal file is not synced", seen "ALICE, OSDI 2014";
    CheckpointSlotWrong: "the slot of a checkpoint is not the slot of its data", seen "etcd 3.5 post-mortem, #13766, #14685";
    RetryAppliedTwice: "a retried write is applied twice", seen "retries after a fail-over";
    ProposedCalledNotApplied: "a proposed command is reported as not applied when it takes too long", seen "Redis-Raft, aborted reads";
    ReplyToLongestWaiting: "a reply goes to the client that has waited longest, not to the one that sent the request", seen "published coursework: the proposer sends its own client the result of another client's value";
    AcceptedNamesLaterBallot: "an acceptor's replies wait in a batch, and name the ballot that is promised when they are sent", seen "SwiftPaxos #2; completion handlers that look up their ballot again";
    OlderSnapshotInstalled: "a snapshot that is older than the replica is installed", seen "etcd #18055";
    SnapshotWithoutSessions: "a snapshot does not contain the sessions", seen "session tables that are not part of the state";
    LogCutBeforeCheckpoint: "the log is truncated before its checkpoint is durable", seen "snapshots without a sync";
    LogTrimmedDuringTransfer: "the log after a snapshot is trimmed while a peer still fetches the snapshot", seen "an earlier version of this project's retention";
    UnansweredLeaderGoesOn: "a leader without heartbeat replies does not step down", seen "leaders that can send but not receive";
    RandomSessionForgotten: "the session to evict is the first of a hash map", seen "replicas that diverge";
    ChosenWithoutBallot: "a learner treats any value that it received as the chosen one", seen "a CHOSEN message that names only the slot";
    AcceptBelowFrom: "a proposer proposes in a slot that its promises do not cover", seen "logs with one ballot for all slots";
    PromiseWithoutValue: "a promise never reports what was accepted", seen "published coursework";
    BallotWithoutServer: "a ballot does not contain its server", seen "published coursework";
    LostDiskBelieved: "peers accept a server that has lost its disk", seen "TigerBeetle's warning of a reformatted replica; DISC 2017";
    RememberBeforeProof: "a caller's storage id is recorded before it is proved", seen "an earlier version of this project's handshake";
    CandidateOverCandidate: "a pending storage id replaces another pending one in the peers' records", seen "invented together with the rule that forbids it";
    NewDiskVotes: "a server with a new disk is admitted at once", seen "diskless recovery, DISC 2017; replicas that are formatted again";
    LeavesItselfOut: "a proposer sends PREPARE to every acceptor except its own", seen "published coursework: a quorum of three of the other four";
    AcceptedIsCleared: "an acceptor drops its accepted value when the next slot is used", seen "published coursework: LEARN clears the accepted value";
    OwnValueAlways: "a proposer proposes its own value and ignores what promises report", seen "published coursework";
    PromiseClears: "a promise clears the accepted values", seen "published coursework";
    EqualBallotRefused: "an ACCEPT at the promised ballot is refused", seen "student Paxos labs";
    HalfIsEnough: "half of the servers are a majority", seen "student Paxos labs";
    LearnFromAccept: "a learner treats a proposed value as chosen", seen "published coursework: learn without quorum";
    NobodyTriesAgain: "a proposer's timers never fire", seen "published coursework: failures are ignored";
    AcceptBelowPromise: "an acceptor accepts below its promise", seen "published coursework: the ballot decreases";
    LearnWithoutQuorum: "one vote is enough", seen "published coursework";
    NackedLeaderGoesOn: "a leader that is refused does not step down", seen "leases and terms that are checked late";
    ForwardedTwice: "a leader proposes a command again when it is forwarded again while in flight", seen "retries under load";
    NoCatchUp: "a learner with a gap never requests entries", seen "published coursework";
    SessionWithoutNonce: "a session is identified by its number alone", seen "the first version of this project's sessions";
    WaitersWithoutNonce: "a pending request is identified by session and sequence alone", seen "the first version of this project's client listener";
    ExpiredIsAlwaysCertain: "an expired session is reported as not applied, even after a snapshot was installed", seen "a rule that was tried in this project, and refuted by review";
    DecisionBeforeDurable: "two-phase commit: the decision is sent before it is durable", seen "student databases; the textbook's first warning";
    PreparedAbortsAlone: "two-phase commit: a prepared participant aborts after a long wait", seen "heuristic decisions of XA resource managers";
    VoteNotWritten: "two-phase commit: a vote is lost in a crash", seen "student databases";
    MajorityOfVotesCommits: "two-phase commit: a majority of the votes is enough", seen "Paxos and two-phase commit, mixed";
    GivenUpNotWritten: "two-phase commit: a participant that answers that it has not voted does not record this", seen "cooperative termination without a record";
    LocksLostInCrash: "two-phase commit: a participant that restarts has lost its locks", seen "locks that are kept only in memory";
    ReadIgnoresLocks: "two-phase commit: a read does not wait for a lock", seen "reads of undecided data";
    LateRequestVotedAgain: "two-phase commit: a participant votes again on a late vote request", seen "messages that overtake each other";
    TransactionNumbersReused: "two-phase commit: a coordinator that restarts reuses its transaction numbers", seen "counters in memory";
    CommitForgottenEarly: "two-phase commit: the coordinator drops a commit when the first participant has acknowledged it", seen "presumed abort without waiting for every acknowledgment";
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
        found.ok_or_else(|| format!("'{name}' is not a seeded bug; the seeded bugs are {}", known()))
    }
}
