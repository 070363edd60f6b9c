//! The lesson on majorities: what happens when acceptors crash.

use super::{Lesson, LessonAction, LessonTime, MS, Point, SECOND};
use paxos_kv::protocol::Protocol;
use paxos_kv::role::RoleKind::Acceptor;

pub(super) const LESSON: Lesson = Lesson {
    name: "lost-acceptor",
    title: "A lost acceptor",
    says: "Five servers, and three are a majority. Acceptors crash, first two of them, then a third. Each time a client asks \
           server 1 to write a value.",
    points: &[
        Point::first("The acceptor of server 4 crashes: its column is hatched", "s4.*acceptor CRASH"),
        Point::after(
            "The acceptor of server 5 crashes too, and a client writes green. Can it be chosen?",
            &["Yes, three acceptors are left", "No, a majority of them is missing"],
            0,
            "Green is chosen: the learner of server 1 counts the three acceptors that are left",
            "s1.*learner  CHOSEN   req=c1-2",
        ),
        Point::after(
            "A third acceptor crashes, and a client writes red. What does server 1 do?",
            &["It proposes red to the two that are left", "It proposes nothing, and asks again and again"],
            1,
            "Server 1 gives up its ballot without a proposal: two promises are no majority. It will ask at a higher ballot",
            "s1.*proposer RETRY    req=c2-2",
        ),
        Point::after(
            "What must an acceptor still know when it restarts?",
            &["Nothing, the others know it", "Its promise, and the values that it accepted"],
            1,
            "The acceptor of server 4 restarts with both, from its disk",
            "s4.*acceptor RESTART",
        ),
        Point::after(
            "Three acceptors are up again. What happens to the write that waits?",
            &["It is done", "It is lost"],
            0,
            "Red is chosen: the write of server 1 that waited is done",
            "s1.*learner  CHOSEN   req=c2-2",
        ),
    ],
    moral: "A write needs a majority of acceptors, not certain ones. Without a majority it waits, and no rule is broken.",
    question: "Five servers tolerate two crashed ones. How many would six tolerate?",
    answer: "Two: a majority of six is four. The sixth server adds no tolerance. See src/paxos/quorum.rs.",
    servers: 5,
    protocol: Protocol::BasicPaxos,
    loses_storage: false,
    patience: 10 * SECOND,
    script: &[
        (LessonTime::At(0), LessonAction::Crash(4, Acceptor)),
        (LessonTime::At(5 * MS), LessonAction::Crash(5, Acceptor)),
        (LessonTime::At(10 * MS), LessonAction::Put(1, &[("color", "green")])),
        (LessonTime::At(60 * MS), LessonAction::Crash(3, Acceptor)),
        (LessonTime::At(70 * MS), LessonAction::Put(1, &[("color", "red")])),
        (LessonTime::At(370 * MS), LessonAction::Restart(4, Acceptor)),
    ],
    end: 600 * MS,
};
