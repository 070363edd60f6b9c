//! Coverage points: situations that a batch of runs must reach to be a useful test.
//!
//! A simulator that never fills a hole proves nothing about holes. So a batch of seeds that misses a coverage point has
//! failed, even if all its runs were clean.

use paxos_kv::protocol::Protocol;

macro_rules! coverage {
    ($($name:ident = $description:literal),+ $(,)?) => {
        /// A situation that a run has reached.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[allow(missing_docs, reason = "each is described by its text")]
        pub enum CoveragePoint { $($name),+ }

        impl CoveragePoint {
            /// All coverage points.
            pub const ALL: &[CoveragePoint] = &[$(CoveragePoint::$name),+];

            /// One line for the reader that says what was reached.
            pub fn description(self) -> &'static str {
                match self { $(CoveragePoint::$name => $description),+ }
            }
        }
    };
}

coverage! {
    // The protocol.
    HoleFilled = "a hole was filled with a no-op",
    Adopted = "a value was adopted from a promise",
    AdoptedOfMany = "the highest of several ballots was adopted",
    Nacked = "a proposal was refused",
    PreparedAgain = "a stale round was prepared again",
    LostSlot = "a command lost its slot and was proposed again in another",
    LearnedByEntries = "a learner caught up by ENTRIES",
    LearnerFromNothing = "a learner started without a state while the log was not empty",
    ReadFilled = "a read waited for a FILL",
    ReadFailed = "a read failed",
    Duplicate = "a duplicate write got the result of the first one",
    Superseded = "a late copy of a write was reported as superseded",
    ReportedNotApplied = "a proposer reported a command as not applied",
    OutcomeUnknown = "a client received the result: outcome unknown",
    FailedOver = "a client failed over to the next server",
    Mismatch = "a conditional write found another version",
    Preempted = "a proposer gave up a command because it was preempted",
    // Leaders.
    LeaderChanged = "the leader changed",
    LeaderRefused = "a leader was refused and stepped down",
    LeaderSawLaterLeader = "a leader learned of a later leader and stepped down",
    LeaderWithoutReplies = "a leader got no heartbeat replies from a majority and stepped down",
    LeaderStalled = "a leader without progress stepped down",
    DeposedWithSlotsInFlight = "a leader stepped down with slots in flight",
    DeposedWithFullWindow = "a leader stepped down with a full window",
    BatchOfSeveral = "several values went out in one ACCEPT",
    Resent = "slots in flight were proposed again at the same ballot",
    Forwarded = "a command was forwarded to the leader",
    ForwardedAgain = "a command was forwarded again",
    ForwardRefused = "a command was forwarded to a server that does not lead",
    LeaderHintReceived = "a server learned of the leader from a leader hint",
    PreVoteRefused = "a pre-vote was refused because another server has a leader",
    PromiseInPages = "a promise came in pages",
    EntriesPartial = "a learner got a part of the requested entries, and requested the rest",
    Expired = "a client's session had expired",
    ContinuedInNewSession = "a write whose session had expired continued in a new one",
    MailboxFull = "a mailbox was full",
    PartOfASend = "a role crashed after it sent a part of its messages",
    ClientReset = "a client's connection was reset",
    MaxInFlight = "a client had its maximum number of requests in flight",
    NewHistory = "a new history began while clients were running",
    OtherHistory = "a client was told that the servers' data is of another history",
    NotBelieved = "a client rejected what was read from empty data",
    ForeignSessionRefused = "a write in another client's session was refused",
    // The network.
    FrameLost = "a frame was lost",
    LaneFull = "a frame was dropped because its link's lane was full",
    LanePassed = "a control message overtook bulk data",
    FrameLate = "a frame was delayed by seconds",
    FrameDuplicated = "a frame was sent twice",
    FrameReplayed = "an old frame arrived again",
    FrameCorrupt = "a corrupt frame was refused",
    HelloLost = "a HELLO was lost",
    HelloReplayed = "an old HELLO arrived again",
    AnswerLost = "the answer to a HELLO was lost",
    AnswerTooLate = "an answer to a HELLO arrived after the caller had hung up",
    Cut = "links were cut both ways",
    CutOneWay = "a link was cut one way",
    CutSome = "two servers could not communicate while a third one could reach both",
    Flapped = "links flapped",
    Reset = "a connection was reset, and its frames in flight were lost",
    ResetAndLate = "a connection was reset, and its frames arrived after those of the next connection",
    Slow = "links were slow and their buffers small",
    // Crashes.
    CrashBeforeStep = "a role crashed before a step",
    CrashBeforeSync = "a role crashed between step and sync",
    CrashBeforeSend = "a role crashed between sync and send",
    AcceptorCrashed = "an acceptor alone crashed",
    ProposerCrashed = "a proposer alone crashed",
    LearnerCrashed = "a learner alone crashed",
    Killed = "a process was killed",
    KilledInCommit = "a process was killed in the middle of a commit",
    KilledInRecovery = "a process was killed during its recovery",
    AllKilled = "all processes were killed at once",
    PowerLost = "a server lost power",
    AllPowerLost = "all servers lost power at once",
    GroupSurvived = "a group of records survived a crash that came before its messages were sent",
    GroupLost = "a group of records was lost in a crash before its messages were sent",
    TornTail = "a torn tail was cut",
    Paused = "a server was paused",
    SlowServer = "a server was slow",
    TimersUpset = "timers fired much too early or much too late",
    WallClockJumped = "a wall clock jumped",
    // The past.
    CheckpointWritten = "a checkpoint was written",
    CheckpointLoaded = "a learner started from a checkpoint",
    CheckpointShed = "a checkpoint was not written because the disk was full",
    CheckpointRebuilt = "a corrupt checkpoint was quarantined",
    CheckpointMerged = "files of a checkpoint were merged",
    KilledInCheckpoint = "a process was killed in the middle of a checkpoint",
    KilledInMerge = "a process was killed while it merged files of a checkpoint",
    Truncated = "an acceptor truncated slots that are in a checkpoint",
    PromiseTruncated = "a promise reported truncated slots",
    AnsweredTruncated = "a proposal was for a truncated slot",
    SnapshotOffered = "a learner was offered a snapshot",
    SnapshotInChunks = "a snapshot was fetched in chunks",
    SnapshotInstalled = "a learner installed a snapshot",
    SnapshotTwice = "a learner installed two snapshots in one incarnation",
    SnapshotOvertaken = "a snapshot arrived too late to be used",
    Recalled = "a write got its result from the session table of a snapshot",
    SlotCorrupt = "an acceptor started with corrupt slots",
    SlotRepaired = "an acceptor repaired a corrupt slot",
    // Two-phase commit.
    Committed = "a transaction was committed",
    AbortedByNo = "a transaction was aborted because a participant voted no",
    AbortedBySilence = "a transaction was aborted because a participant did not vote in time",
    LockRefused = "two transactions needed the same key",
    LateVoteRequest = "a vote request arrived too late",
    PresumedAbort = "a coordinator without a record answered with a presumed abort",
    CommitResent = "a coordinator sent a commit again",
    RecoveredInDoubt = "a participant started in doubt",
    Blocked = "a participant was blocked",
    Unblocked = "a blocked participant received the decision",
    GaveUp = "a participant that had not voted aborted a transaction that others asked about",
    CooperativeCommit = "a participant in doubt learned the commit from another participant",
    CooperativeAbort = "a participant in doubt learned the abort from another participant",
    ReadWaited = "a read waited for a lock",
    ReadLocked = "a read gave up waiting for a lock",
    TransactionNotApplied = "a coordinator reported a command as not applied",
    CoordinatorCrashed = "a coordinator alone crashed",
    ParticipantCrashed = "a participant alone crashed",
    SessionEvicted = "a session was evicted to make room for another one",
    // Disks.
    CheckpointCorrupted = "a bit of a checkpoint flipped, or its file was lost",
    DiskRecovered = "a server whose disk was corrupt has all its data again",
    BitRot = "a bit of synced data flipped",
    BitRotWhileUp = "a bit of synced data flipped while its server was running",
    Misdirected = "a sector was written in the place of another one",
    FilesUpset = "a file was missing, truncated, copied or another server's",
    FileUnreadable = "a file could not be read, and its server waited",
    RefusedCorruptDisk = "a server refused to start from a corrupt disk",
    DataDirLost = "a server lost its files and refused to start",
    NewDiskRefused = "a server with a new disk was refused by its peers",
    NewDiskAccepted = "a server with a new disk was accepted by a peer that had not recorded the old one",
    CalledBack = "a server called another one back before it accepted its HELLO",
    HelloRepeated = "a server sent HELLO again to announce its admission",
    ImpostorCalledBack = "an impostor sent HELLO in a server's name",
    WrongDataDir = "a server was started on a directory that is not its own",
    DiskFailed = "a write or sync failed and the process ended",
    DiskFull = "a disk was full and values were refused",
    DiskLimited = "a disk had room for only a few more journal files",
    WaitedForRoom = "a server or role waited for free disk space before it started",
    JournalFull = "an acceptor had no disk space left for a promise and stopped answering",
    SlowSync = "syncs were slow",
    AllSyncsSlow = "syncs were slow on all servers at once",
    HungSync = "a sync hung",
}

impl CoveragePoint {
    /// Whether a run under this protocol can reach the point.
    pub fn is_of(self, protocol: Protocol) -> bool {
        let is_of_leaders = (CoveragePoint::LeaderChanged..=CoveragePoint::PreVoteRefused).contains(&self);
        let is_of_commit = (CoveragePoint::Committed..=CoveragePoint::SessionEvicted).contains(&self);
        match protocol {
            Protocol::BasicPaxos => !is_of_leaders && !is_of_commit,
            Protocol::MultiPaxos => self != CoveragePoint::Preempted && !is_of_commit,
            Protocol::TwoPhaseCommit => is_of_commit || self.is_of_any(),
        }
    }
}

impl CoveragePoint {
    /// Whether the point is about networks, processes, disks or clients, and not about a protocol's reaction to them.
    fn is_of_any(self) -> bool {
        use CoveragePoint::{
            ClientReset, ContinuedInNewSession, Duplicate, Expired, FailedOver, FileUnreadable, ForeignSessionRefused,
            FrameLost, MailboxFull, Mismatch, NewHistory, OutcomeUnknown, PartOfASend,
        };
        let others = [
            NewHistory,
            ClientReset,
            Duplicate,
            Expired,
            FailedOver,
            FileUnreadable,
            MailboxFull,
            Mismatch,
            PartOfASend,
            ForeignSessionRefused,
            OutcomeUnknown,
            ContinuedInNewSession,
        ];
        // Two-phase commit cannot survive a disk that loses its data: no other server knows what one has promised.
        let is_of_crashes = (CoveragePoint::Killed..=CoveragePoint::WallClockJumped).contains(&self);
        let is_of_turns = (CoveragePoint::CrashBeforeStep..=CoveragePoint::CrashBeforeSend).contains(&self);
        let is_of_network = (FrameLost..=CoveragePoint::Slow).contains(&self);
        let is_of_disks = (CoveragePoint::DiskFailed..=CoveragePoint::HungSync).contains(&self)
            && ![CoveragePoint::JournalFull, CoveragePoint::DiskLimited].contains(&self);
        others.contains(&self) || is_of_crashes || is_of_turns || is_of_network || is_of_disks
    }
}

/// How often each coverage point was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage([u32; CoveragePoint::ALL.len()]);

impl Default for Coverage {
    fn default() -> Coverage {
        Coverage([0; CoveragePoint::ALL.len()])
    }
}

impl Coverage {
    /// Counts a coverage point once more.
    pub fn reach(&mut self, point: CoveragePoint) {
        self.0[point as usize] = self.0[point as usize].saturating_add(1);
    }

    /// How often a coverage point was reached.
    pub fn count(&self, point: CoveragePoint) -> u32 {
        self.0[point as usize]
    }

    /// Adds the counts of another run.
    pub fn merge(&mut self, other: &Coverage) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine = mine.saturating_add(theirs);
        }
    }

    /// The points with count 0 that a run under this protocol can reach; None stands for both kinds of Paxos.
    pub fn missing(&self, protocol: Option<Protocol>) -> Vec<CoveragePoint> {
        let both = [Protocol::BasicPaxos, Protocol::MultiPaxos];
        let can = |mark: &CoveragePoint| match protocol {
            Some(protocol) => mark.is_of(protocol),
            None => both.into_iter().any(|protocol| mark.is_of(protocol)),
        };
        CoveragePoint::ALL.iter().copied().filter(|mark| can(mark) && self.count(*mark) == 0).collect()
    }
}
