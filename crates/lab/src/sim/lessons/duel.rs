//! The lesson on two proposers that compete.

use super::{Lesson, LessonAction, LessonTime, MS, Point, SECOND};
use paxos_kv::protocol::Protocol;

pub(super) const LESSON: Lesson = Lesson {
    name: "duel",
    title: "Duelling proposers",
    says: "Two clients write the same key at the same moment: blue through server 1, red through server 5. Both servers want \
           the same slot.",
    points: &[
        Point::first("Server 1 asks for promises, for blue", "s1.*proposer PREPARE  req=c1-2"),
        Point::after(
            "Server 5 has red to write. Does it wait until server 1 is done?",
            &["Yes", "No, it asks at a ballot of its own"],
            1,
            "Server 5 asks for promises too, at a ballot of its own, for red",
            "s5.*proposer PREPARE  req=c2-2",
        ),
        Point::after(
            "Server 1 has three promises and proposes blue. But its own acceptor has just promised the higher ballot of server \
             5. What does this acceptor do?",
            &["It accepts blue: it is server 1's own", "It refuses blue"],
            1,
            "The acceptor of server 1 refuses the proposal of its own server: it has promised a higher ballot",
            "s1.*acceptor NACK     req=c1-2",
        ),
        Point::after(
            "What does server 1 do about blue?",
            &["It gives up the write", "It tries again at a higher ballot, after a random pause"],
            1,
            "Server 1 gives up this ballot, and will retry with a higher round after a random pause",
            "s1.*proposer RETRY    req=c1-2",
        ),
        Point::after(
            "Which value is chosen in the slot?",
            &["blue: it was proposed first", "red: its ballot is higher"],
            1,
            "Red is chosen: the learner of server 5 has counted a majority",
            "s5.*learner  CHOSEN   req=c2-2",
        ),
        Point::after(
            "And blue?",
            &["It is lost", "It is chosen in the next slot"],
            1,
            "Blue is chosen in the next slot: server 1 has tried again",
            "s1.*learner  CHOSEN   req=c1-2",
        ),
    ],
    moral: "Two proposers can refuse each other for ever; a random pause ends it. It costs time and is never wrong: both \
            values are applied in the same order on every server.",
    question: "Why does the pause not grow each time that a proposer loses?",
    answer: "A pause that grows with each loss starves the loser: the winner begins its next write while the loser still \
             waits. See src/paxos/proposer/mod.rs, and rule 11 in docs/rules.md.",
    servers: 5,
    protocol: Protocol::BasicPaxos,
    loses_storage: false,
    patience: 10 * SECOND,
    script: &[
        (LessonTime::At(0), LessonAction::Put(1, &[("color", "blue")])),
        (LessonTime::At(0), LessonAction::Put(5, &[("color", "red")])),
    ],
    end: 400 * MS,
};
