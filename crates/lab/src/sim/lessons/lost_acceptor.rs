//! The lesson on majorities: what happens when acceptors crash.

use super::{Lesson, LessonAction, LessonTime, MS};
use paxos_kv::protocol::Protocol;
use paxos_kv::role::RoleKind::Acceptor;

pub(super) const LESSON: Lesson = Lesson {
    name: "lost-acceptor",
    title: "A lost acceptor",
    says: "Two of five acceptors die, and a write is done as if nothing had happened: three are a majority. A third one dies, \
           and now no value can be chosen: server 1 asks and asks, and proposes nothing. One acceptor comes back, with the \
           promise and the values that its disk knows, and the waiting write is done.",
    look: &[
        ("The first acceptor dies: its column is hatched", "acceptor CRASH"),
        ("Chosen by the three that are left", "learner  CHOSEN   req=c2-2"),
        ("Without a majority of promises nothing is proposed: the ballot is given up", "proposer RETRY    req=c3-"),
        ("One is back, and knows what it promised", "acceptor RESTART"),
        ("And the write that waited is done", "learner  CHOSEN   req=c3-2"),
    ],
    question: "Five servers tolerate two dead ones. What would six tolerate?",
    answer: "Two: a majority of six is four. An even number buys nothing. See src/paxos/quorum.rs.",
    servers: 5,
    protocol: Protocol::BasicPaxos,
    forgets: false,
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
