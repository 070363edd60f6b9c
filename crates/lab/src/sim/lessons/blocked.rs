//! The lesson on two-phase commit: it blocks where Paxos makes progress.

use super::{Lesson, LessonAction, LessonTime, MS, Point};
use paxos_kv::protocol::Protocol;
use paxos_kv::role::RoleKind::{Coordinator, Participant};

pub(super) const LESSON: Lesson = Lesson {
    name: "two-phase-commit",
    title: "Two-phase commit blocks",
    says: "This is not Paxos: every server must vote, and one coordinator, here at server 1, counts the votes. A client writes \
           blue, and then red. Between the two, the participant of server 5 crashes.",
    points: &[
        Point::first(
            "Server 1 decides to commit blue: all five servers have voted yes",
            "s1.*coordinator DECIDE   req=c1-2",
        ),
        Point::after(
            "Then the participant of server 5 crashes. Are four votes of five enough to write red?",
            &["Yes, they are a majority", "No, every server must vote"],
            1,
            "Server 2 votes yes on red, and is bound by its vote. The vote of server 5 will not come",
            "s2.*participant VOTE     req=c1-3",
        ),
        Point::after(
            "The coordinator crashes too. Which server knows the decision now?",
            &["No server that runs", "Each of the four that voted"],
            0,
            "The coordinator of server 1 crashes: now no running server knows the decision",
            "s1.*coordinator CRASH",
        ),
        Point::after(
            "Server 2 has voted yes. What can it do?",
            &["Abort by itself", "Ask the other servers"],
            1,
            "Server 2 is in doubt, and asks the other servers",
            "s2.*participant INQUIRE  req=c1-3",
        ),
        Point::after(
            "Servers 1, 3 and 4 have voted yes, too. May the four agree to abort?",
            &["Yes, they are a majority", "No, they must wait for the coordinator"],
            1,
            "Server 2 is blocked: every server that answers is in doubt too, and only server 1 knows the decision",
            "s2.*participant BLOCKED  req=c1-3",
        ),
        Point::after(
            "Another client reads the key at server 2. What does it get?",
            &["blue", "red", "Nothing yet: it waits"],
            2,
            "Server 2 delays the read: the key is locked",
            "s2.*participant WAIT     req=c2-1",
        ),
        Point::after(
            "The coordinator restarts, without a record of this decision. What does it decide?",
            &["To commit", "To abort"],
            1,
            "Server 1 decides to abort red: it has no record of a commit",
            "s1.*coordinator DECIDE   req=c1-3",
        ),
        Point::after(
            "And what does the read return, now that the key is unlocked?",
            &["blue", "red"],
            0,
            "Server 2 replies to the read: blue",
            "s2.*server   RESPONSE req=c2-1",
        ),
    ],
    moral: "One crashed server stops every write, and a crashed coordinator leaves keys locked. Four running servers of five could \
            not help each other.",
    question: "The four blocked servers were up, and they are a majority. Why may they not agree to abort, as a majority of \
               acceptors may agree on a value?",
    answer: "docs/two-phase-commit.md, \"Why no participant may decide\"",
    servers: 5,
    protocol: Protocol::TwoPhaseCommit,
    loses_storage: false,
    patience: 30 * MS,
    script: &[
        (LessonTime::At(0), LessonAction::Put(1, &[("color", "blue"), ("color", "red")])),
        (LessonTime::Seen(5, "participant ACK      req=c1-2"), LessonAction::Crash(5, Participant)),
        (LessonTime::Seen(2, "participant VOTE     req=c1-3"), LessonAction::Nothing),
        (LessonTime::Seen(3, "participant VOTE     req=c1-3"), LessonAction::Nothing),
        (LessonTime::Seen(4, "participant VOTE     req=c1-3"), LessonAction::Crash(1, Coordinator)),
        (LessonTime::Seen(2, "participant BLOCKED"), LessonAction::Get(2, "color")),
        (LessonTime::At(700 * MS), LessonAction::Restart(1, Coordinator)),
    ],
    end: 1_000 * MS,
};
