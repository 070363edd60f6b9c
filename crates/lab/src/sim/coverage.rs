//! Coverage points: situations that a batch of runs must reach to be a useful test.
//!
//! A simulator that never fills a hole proves nothing about holes. So a batch of seeds that misses a coverage point has
//! failed, even if all its runs were clean.

use paxos_kv::protocol::Protocol;

macro_rules! coverage {
    ($($name:ident = $says:literal),+ $(,)?) => {
        /// A situation that a run has reached.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[allow(missing_docs, reason = "each is told in its sentence")]
        pub enum CoveragePoint { $($name),+ }

        impl CoveragePoint {
            /// All coverage points.
            pub const ALL: &[CoveragePoint] = &[$(CoveragePoint::$name),+];

            /// One line for the reader that says what was reached.
            pub fn says(self) -> &'static str {
                match self { $(CoveragePoint::$name => $says),+ }
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
    LearnerFromNothing = "a learner began from nothing in a log that was not empty",
    ReadFilled = "a read waited for a FILL",
    ReadFailed = "a read failed",
    Duplicate = "a duplicate was answered with the first result",
    Superseded = "a late copy of a write was superseded",
    ToldNotApplied = "a proposer said that a command is certainly not applied",
    ToldUnknown = "a client was told that the outcome is unknown",
    FailedOver = "a client asked the next server",
    Mismatch = "a conditional write met another version",
    Outrun = "a proposer gave a command up because rivals were faster",
    // Leaders.
    LeaderChanged = "another server led",
    LeaderRefused = "a leader was refused and stepped down",
    LeaderHeardRival = "a leader heard of a later one and stepped down",
    LeaderUnheard = "a leader was not answered and stepped down",
    LeaderStalled = "a leader saw nothing applied and stepped down",
    DeposedWithOpenSlots = "a leader stepped down with open slots",
    DeposedWithFullWindow = "a leader stepped down with a full window",
    GroupOfMany = "several values went out in one ACCEPT",
    Resent = "open slots were proposed again at the same ballot",
    Forwarded = "a command was handed to a leader",
    ForwardedAgain = "a command was handed over again",
    ForwardRefused = "a server that does not lead was handed a command",
    Relayed = "a server heard of a leader from others",
    PreVoteRefused = "a candidate heard that others have a leader",
    PromiseInPages = "a promise came in pages",
    EntriesInParts = "a learner got a part of what it asked for, and asked for more",
    Expired = "a session had expired",
    WentOnInNewSession = "a write whose session had ended went on in a new one",
    MailboxFull = "a mailbox was full",
    PartOfASend = "a role crashed with a part of its messages sent",
    ClientReset = "a client's connection was reset",
    AllUnderWay = "a client had as many requests under way as it may have",
    BegunAnew = "a new history began under living clients",
    OtherHistory = "a client was told that the servers' data are of another history",
    NotBelieved = "a client did not believe what was read from empty data",
    StrangerRefused = "a stranger's write in another client's session was refused",
    // The network.
    FrameLost = "a frame was lost",
    LaneFull = "a frame found no room among the bytes of its link's lane",
    LanePassed = "a control message passed what was bulk",
    FrameLate = "a frame was late by seconds",
    FrameDoubled = "a frame was sent twice",
    FrameReplayed = "an old frame came once more",
    FrameCorrupt = "a damaged frame was refused",
    HelloLost = "a greeting was lost",
    HelloReplayed = "an old greeting came once more",
    AnswerLost = "the answer to a greeting was lost",
    AnswerTooLate = "an answer came when the caller had hung up",
    Cut = "links were cut both ways",
    CutOneWay = "a link was cut one way",
    CutSome = "two servers could not talk while a third heard both",
    Flapped = "links flapped",
    Reset = "a connection was reset, and what was under way was lost",
    ResetAndLate = "a connection was reset, and what was under way came behind what the next one brought",
    Slow = "links were slow and had little room",
    // Crashes.
    CrashBeforeStep = "a role crashed before a step",
    CrashBeforeSync = "a role crashed between step and sync",
    CrashBeforeSend = "a role crashed between sync and send",
    AcceptorCrashed = "an acceptor alone crashed",
    ProposerCrashed = "a proposer alone crashed",
    LearnerCrashed = "a learner alone crashed",
    Killed = "a process was killed",
    KilledInCommit = "a process was killed in the middle of a commit",
    KilledInRecovery = "a process was killed while it started",
    AllKilled = "all processes were killed at once",
    PowerLost = "a server lost its power",
    AllPowerLost = "all servers lost their power at once",
    GroupSurvived = "a group survived a crash though nobody was told",
    GroupLost = "a group was lost in a crash before anybody was told",
    TornTail = "a torn tail was cut",
    Paused = "a server was paused",
    SlowServer = "a server was slow",
    TimersUpset = "timers ran out long before their time, or long after it",
    WallClockJumped = "a wall clock jumped",
    // The past.
    CheckpointWritten = "a checkpoint was written",
    CheckpointLoaded = "a learner began with a checkpoint",
    CheckpointShed = "a checkpoint found no room on the disk",
    CheckpointRebuilt = "a damaged checkpoint was put aside",
    KilledInCheckpoint = "a process was killed in the middle of a checkpoint",
    Truncated = "an acceptor forgot what was in a checkpoint",
    PromiseTruncated = "a promise said that slots from its first on are forgotten",
    ToldTruncated = "a proposal met a slot that was forgotten",
    SnapshotOffered = "a learner was offered a snapshot",
    SnapshotInParts = "a snapshot was fetched in parts",
    SnapshotInstalled = "a learner took a snapshot in place of its state",
    SnapshotTwice = "a learner took two snapshots in one life",
    SnapshotOvertaken = "a snapshot came too late to be of use",
    Recalled = "a write was answered from the session table of a snapshot",
    SlotDamaged = "an acceptor began with slots that it could not read",
    SlotMended = "an acceptor got back what its disk had lost",
    // Two-phase commit.
    Committed = "a transaction was committed",
    AbortedByNo = "a transaction was aborted because somebody voted no",
    AbortedBySilence = "a transaction was aborted because somebody did not vote in time",
    LockRefused = "two transactions wanted one key",
    LateVoteRequest = "a vote was asked for too late",
    PresumedAbort = "a coordinator without a record said that it was an abort",
    ToldAgain = "a coordinator told a commit again",
    RecoveredInDoubt = "a participant began its life in doubt",
    Blocked = "a participant was blocked",
    Unblocked = "a participant that was blocked heard the decision",
    GaveUp = "a participant that had not voted gave a transaction up for others",
    CooperativeCommit = "a participant in doubt heard of the commit from another one",
    CooperativeAbort = "a participant in doubt heard of the abort from another one",
    ReadWaited = "a read waited for a lock",
    ReadLocked = "a read gave up waiting for a lock",
    TransactionNotApplied = "a coordinator said that a command is certainly not applied",
    CoordinatorCrashed = "a coordinator alone crashed",
    ParticipantCrashed = "a participant alone crashed",
    SessionEvicted = "a session went for another one",
    // Disks.
    CheckpointHarmed = "a bit of a checkpoint flipped, or its file was lost",
    DiskRecovered = "a server whose disk was damaged knows all again",
    BitRot = "a bit of synced data flipped",
    BitRotWhileUp = "a bit of synced data flipped while its server was running",
    Misdirected = "a sector turned up in the place of another",
    FilesUpset = "a file was missing, cut short, copied or another server's",
    FileUnreadable = "a file could not be read, and its server waited",
    RefusedDamaged = "a server refused to start from a damaged disk",
    FolderLost = "a server lost its memory and refused to start",
    Stranger = "a server with a new disk was refused by its peers",
    StrangerWelcomed = "a server with a new disk was taken for a new one by a peer that never met it",
    CalledBack = "a server called another one back before it believed its greeting",
    GreetedAgain = "a server greeted the others again, to say that it takes part",
    LiarCalledBack = "a stranger greeted in a server's name",
    FolderMisplaced = "a server was started on another folder than its own",
    DiskFailed = "a write or sync failed and the process stopped",
    DiskFull = "a disk was full and values were shed",
    DiskLimited = "a disk had room for a few more files of the journal, and no more",
    WaitedForRoom = "a server or a role waited for room on its disk before it began",
    JournalFull = "an acceptor had no room left for a promise, and fell silent",
    SlowSync = "syncs were slow",
    AllSyncsSlow = "the syncs of all servers were slow at once",
    HungSync = "a sync hung",
}

impl CoveragePoint {
    /// Whether a run under this protocol can reach the point.
    pub fn is_of(self, protocol: Protocol) -> bool {
        let is_of_leaders = (CoveragePoint::LeaderChanged..=CoveragePoint::PreVoteRefused).contains(&self);
        let is_of_commit = (CoveragePoint::Committed..=CoveragePoint::SessionEvicted).contains(&self);
        match protocol {
            Protocol::BasicPaxos => !is_of_leaders && !is_of_commit,
            Protocol::MultiPaxos => self != CoveragePoint::Outrun && !is_of_commit,
            Protocol::TwoPhaseCommit => is_of_commit || self.is_of_any(),
        }
    }
}

impl CoveragePoint {
    /// Whether the point is about networks, processes, disks or clients, and not about a protocol's reaction to them.
    fn is_of_any(self) -> bool {
        use CoveragePoint::{
            BegunAnew, ClientReset, Duplicate, Expired, FailedOver, FileUnreadable, FrameLost, MailboxFull, Mismatch,
            PartOfASend, StrangerRefused, ToldUnknown, WentOnInNewSession,
        };
        let others = [
            BegunAnew,
            ClientReset,
            Duplicate,
            Expired,
            FailedOver,
            FileUnreadable,
            MailboxFull,
            Mismatch,
            PartOfASend,
            StrangerRefused,
            ToldUnknown,
            WentOnInNewSession,
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
    pub fn reach(&mut self, mark: CoveragePoint) {
        self.0[mark as usize] = self.0[mark as usize].saturating_add(1);
    }

    /// How often a coverage point was reached.
    pub fn count(&self, mark: CoveragePoint) -> u32 {
        self.0[mark as usize]
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
