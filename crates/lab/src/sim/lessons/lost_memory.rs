//! The lesson on stable storage: why an acceptor must not lose its state.

use super::{Lesson, LessonAction, LessonTime, MS, Point, SECOND};
use paxos_kv::protocol::Protocol;
use paxos_kv::role::RoleKind::Acceptor;

pub(super) const LESSON: Lesson = Lesson {
    name: "lost-memory",
    title: "A lost memory breaks Paxos",
    says: "Three servers, and two are a majority. Server 3 is cut off. In this scene a rule is broken: an acceptor that crashes \
           restarts with an empty disk. Server 1 writes blue, and later server 3 writes red.",
    points: &[
        Point::first("Blue is chosen by servers 1 and 2: server 1 has counted both", "s1.*learner  CHOSEN   req=c1-2"),
        Point::after(
            "Server 2's acceptor crashes. What does it know after its restart?",
            &["Its promise and blue", "Nothing"],
            1,
            "Server 2's acceptor restarts with an empty disk",
            "s2.*acceptor RESTART",
        ),
        Point::after(
            "Now server 3 reaches server 2, but not server 1. What does server 2 answer to its PREPARE?",
            &["A promise that reports blue", "A promise that reports no value", "A refusal"],
            1,
            "Server 2 promises, and reports no value: it has forgotten what it accepted",
            "s2.*acceptor PROMISE  req=c2-2",
        ),
        Point::after(
            "Which value does server 3 propose?",
            &["blue", "red"],
            1,
            "Server 3 proposes red: two promises are a majority, and none reports a value",
            "s3.*proposer ACCEPT   req=c2-2",
        ),
        Point::after(
            "Servers 2 and 3 accept it. What is wrong?",
            &["Nothing: two of three are a majority", "One slot has two chosen values"],
            1,
            "Red is chosen too, in the slot that blue had: server 3 has counted servers 2 and 3",
            "s3.*learner  CHOSEN   req=c2-2",
        ),
    ],
    moral: "Both clients are told OK, and the replicas differ for ever. Server 2 was in both majorities. Every step followed the \
            protocol; only one disk was empty.",
    question: "Would it help if the acceptor restarted with its promise, but without the values that it accepted?",
    answer: "No: the promise keeps old ballots away, and server 3's is new. Both must be durable before the acceptor \
             sends a message about them. See src/paxos/acceptor.rs and src/role.rs: the types do not let a role send earlier.",
    servers: 3,
    protocol: Protocol::BasicPaxos,
    loses_storage: true,
    patience: 10 * SECOND,
    script: &[
        (LessonTime::At(0), LessonAction::Cut(3, &[1, 2])),
        (LessonTime::At(0), LessonAction::Put(1, &[("color", "blue")])),
        (LessonTime::At(50 * MS), LessonAction::Crash(2, Acceptor)),
        (LessonTime::At(55 * MS), LessonAction::Cut(1, &[2])),
        (LessonTime::At(60 * MS), LessonAction::Restart(2, Acceptor)),
        (LessonTime::At(65 * MS), LessonAction::Join(3, &[2])),
        (LessonTime::At(65 * MS), LessonAction::Put(3, &[("color", "red")])),
    ],
    end: 200 * MS,
};
