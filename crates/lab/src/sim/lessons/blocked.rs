//! The lesson on two-phase commit: it blocks where Paxos makes progress.

use super::{Lesson, LessonAction, LessonTime, MS};
use paxos_kv::protocol::Protocol;
use paxos_kv::role::RoleKind::{Coordinator, Participant};

pub(super) const LESSON: Lesson = Lesson {
    name: "two-phase-commit",
    title: "Two-phase commit blocks",
    says: "No Paxos here: every server must vote, and one coordinator counts. A first write goes well. Then server 5's \
           participant dies, so the second write has four votes of five; and while its coordinator waits for the fifth, the \
           coordinator dies, too. Four servers have promised to do the write or to drop it, as they are told, and nobody is \
           left to tell them. They ask each other, and nobody knows. The key stays locked, and a read waits for nothing, until \
           the coordinator comes back. It has no record of a commit, so there was none.",
    look: &[
        ("A write that goes well: all vote yes", "coordinator DECIDE   req=c1-2 tx=2.1 decision=COMMIT"),
        ("The participant of server 5 dies", "participant CRASH"),
        ("A promise that only the decision ends", "s2.*participant VOTE     req=c1-3"),
        ("Now nobody is left who knows the decision", "coordinator CRASH"),
        ("The servers ask each other", "participant INQUIRE  req=c1-3"),
        ("Blocked: everybody who answers is in doubt as well", "participant BLOCKED"),
        ("A read of the key waits", "participant WAIT"),
        ("And gets nothing", "status=NOTAPPLIED"),
        ("The coordinator is back, and has no record of a commit", "reason=presumed"),
        ("The key is free again", "participant ABORTED"),
    ],
    question: "While four servers were blocked all of them were up, and a majority. Why may they not agree on aborting, as a \
               majority of acceptors may agree on a value?",
    answer: "docs/two-phase-commit.md, \"Why no participant may decide\"",
    servers: 5,
    protocol: Protocol::TwoPhaseCommit,
    forgets: false,
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
