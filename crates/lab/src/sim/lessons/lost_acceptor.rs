//! The lesson on majorities: what happens when acceptors crash.

use super::{Lesson, LessonAction, LessonTime, MS};
use paxos_kv::protocol::Protocol;
use paxos_kv::role::RoleKind::Acceptor;

pub(super) const LESSON: Lesson = Lesson {
    name: "lost-acceptor",
    title: "A lost acceptor",
    says: "Two of five acceptors crash, and a write succeeds as if nothing had happened: three are a majority. A third \
           one crashes, and now no value can be chosen: server 1 sends PREPARE again and again, and proposes nothing. One \
           acceptor restarts with the promise and the values on its disk, and the waiting write is done.",
    look: &[
        ("The first acceptor crashes: its column is hatched", "acceptor CRASH"),
        ("The three remaining acceptors choose the value", "learner  CHOSEN   req=c2-2"),
        (
            "Without a majority of promises server 1 proposes nothing and gives up the ballot",
            "proposer RETRY    req=c3-",
        ),
        ("One acceptor restarts with the promise on its disk", "acceptor RESTART"),
        ("The waiting write is done", "learner  CHOSEN   req=c3-2"),
    ],
    question: "Five servers tolerate two crashed ones. How many would six tolerate?",
    answer: "Two: a majority of six is four. The sixth server adds no tolerance. See src/paxos/quorum.rs.",
    servers: 5,
    protocol: Protocol::BasicPaxos,
    loses_storage: false,
    script: &[
        (LessonTime::At(30 * MS), LessonAction::Put(1, &[("color", "blue")])),
        (LessonTime::At(80 * MS), LessonAction::Crash(4, Acceptor)),
        (LessonTime::At(85 * MS), LessonAction::Crash(5, Acceptor)),
        (LessonTime::At(90 * MS), LessonAction::Put(1, &[("color", "green")])),
        (LessonTime::At(150 * MS), LessonAction::Crash(3, Acceptor)),
        (LessonTime::At(160 * MS), LessonAction::Put(1, &[("color", "red")])),
        (LessonTime::At(500 * MS), LessonAction::Restart(4, Acceptor)),
    ],
    end: 900 * MS,
};
