//! The lesson on adopted values: why a proposer may not always propose its own value.

use super::{Lesson, LessonAction, LessonTime, MS, Point, SECOND};
use paxos_kv::protocol::Protocol;

pub(super) const LESSON: Lesson = Lesson {
    name: "adopt",
    title: "The value a proposer must adopt",
    says: "Server 5 cannot be reached. Server 1 has three promises and proposes color = blue. At this moment its network fails: \
           only server 2 still receives the proposal, and then server 1 is cut off. Later a client of server 3 wants red.",
    points: &[
        Point::first("Server 1 proposes blue", "s1.*proposer ACCEPT   req=c1-2"),
        Point::after(
            "The proposal reaches server 2, but not servers 3, 4 and 5. Is blue chosen?",
            &["Yes", "No: two of five have accepted it"],
            1,
            "Server 2 accepts blue. With server 1 these are two of five, and three are needed",
            "s2.*acceptor ACCEPTED req=c1-2",
        ),
        Point::after(
            "A client asks server 3 to write red. Which acceptors can it reach?",
            &["2, 3 and 4: a majority", "3 and 4: too few"],
            0,
            "Server 3 asks for promises, for red; servers 1 and 5 are cut off",
            "s3.*proposer PREPARE  req=c2-2",
        ),
        Point::after(
            "What does server 2 answer?",
            &["It promises", "It promises, and reports that it has accepted blue", "It refuses"],
            1,
            "Server 2 promises, and reports that it has accepted blue",
            "s2.*acceptor PROMISE  req=c2-2",
        ),
        Point::after(
            "Which value does server 3 propose in this slot?",
            &["red: its own client's", "blue: the one reported"],
            1,
            "Server 3 proposes blue. The silent server 5 may have accepted it, so it may be chosen already",
            "s3.*proposer ACCEPT   req=c1-2",
        ),
        Point::after(
            "What becomes of blue?",
            &["It is chosen, without server 1", "It waits until server 1 is back"],
            0,
            "Blue is chosen: server 3 has counted a majority, without server 1",
            "s3.*learner  CHOSEN   req=c1-2",
        ),
        Point::after(
            "And red?",
            &["It is lost", "Server 3 proposes it in the next slot"],
            1,
            "Red is chosen in the next slot: server 3 has counted a majority",
            "s3.*learner  CHOSEN   req=c2-2",
        ),
    ],
    moral: "This is the core of Paxos. A proposer cannot tell which value was chosen, so it finishes the one that may have \
            been chosen. Acceptor 2, which both groups share, carries it over.",
    question: "What would happen if server 2 were silent instead of server 5?",
    answer: "No acceptor in the majority would have accepted blue. So blue cannot have been chosen, and red would take the \
             slot. Blue would be lost, but no client was told that it was written. See src/paxos/promises.rs.",
    servers: 5,
    protocol: Protocol::BasicPaxos,
    loses_storage: false,
    patience: 10 * SECOND,
    script: &[
        (LessonTime::At(0), LessonAction::Cut(5, &[1, 2, 3, 4])),
        (LessonTime::At(0), LessonAction::Put(1, &[("color", "blue")])),
        (LessonTime::Seen(1, "proposer ACCEPT   req=c1-2"), LessonAction::Cut(1, &[3, 4])),
        (LessonTime::Seen(2, "acceptor ACCEPTED req=c1-2"), LessonAction::Cut(1, &[2])),
        (LessonTime::At(60 * MS), LessonAction::Put(3, &[("color", "red")])),
    ],
    end: 200 * MS,
};
