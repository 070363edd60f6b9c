//! The lesson on two-phase commit: it blocks where Paxos makes progress.

use super::{Lesson, LessonAction, LessonTime, MS};
use paxos_kv::protocol::Protocol;
use paxos_kv::role::RoleKind::{Coordinator, Participant};

pub(super) const LESSON: Lesson = Lesson {
    name: "two-phase-commit",
    title: "Two-phase commit blocks",
    says: "This is not Paxos: every server must vote, and one coordinator counts the votes. The first write succeeds. Then \
           server 5's participant crashes, so the second write gets four votes of five. While the coordinator waits for the \
           fifth vote, the coordinator crashes too. Four servers have promised to commit or abort as the coordinator decides, \
           and no server is left that can tell them. They ask each other, and none knows. The key stays locked, and a read of \
           it fails. Then the coordinator restarts. It has no record of a commit, so the transaction is aborted.",
    look: &[
        ("A write that succeeds: all servers vote yes", "coordinator DECIDE   req=c1-2 tx=2.1 decision=COMMIT"),
        ("The participant of server 5 crashes", "participant CRASH"),
        ("A yes vote, a promise that only the decision ends", "s2.*participant VOTE     req=c1-3"),
        ("Now no running server can know the decision", "coordinator CRASH"),
        ("The participants ask each other", "participant INQUIRE  req=c1-3"),
        ("Blocked: every server that answers is in doubt too", "participant BLOCKED"),
        ("A read of the key waits", "participant WAIT"),
        ("The read fails", "status=NOTAPPLIED"),
        ("The coordinator has restarted without a record of a commit", "reason=presumed"),
        ("The transaction is aborted and the key is unlocked", "participant ABORTED"),
    ],
    question: "The four blocked servers were up, and they are a majority. Why may they not agree to abort, as a majority of \
               acceptors may agree on a value?",
    answer: "docs/two-phase-commit.md, \"Why no participant may decide\"",
    servers: 5,
    protocol: Protocol::TwoPhaseCommit,
    loses_storage: false,
    script: &[
        (LessonTime::At(20 * MS), LessonAction::Put(1, &[("color", "blue"), ("color", "red")])),
        (LessonTime::Seen(5, "participant ACK      req=c1-2"), LessonAction::Crash(5, Participant)),
        (LessonTime::Seen(2, "participant VOTE     req=c1-3"), LessonAction::Nothing),
        (LessonTime::Seen(3, "participant VOTE     req=c1-3"), LessonAction::Nothing),
        (LessonTime::Seen(4, "participant VOTE     req=c1-3"), LessonAction::Crash(1, Coordinator)),
        (LessonTime::Seen(2, "participant BLOCKED"), LessonAction::Get(2, "color")),
        (LessonTime::At(1_550 * MS), LessonAction::Restart(1, Coordinator)),
        (LessonTime::Seen(2, "participant ABORTED"), LessonAction::Restart(5, Participant)),
    ],
    end: 2_000 * MS,
};
