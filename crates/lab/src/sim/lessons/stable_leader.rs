//! The lesson on leaders: what a stable leader saves.

use super::{Lesson, LessonAction, LessonTime, MS};
use paxos_kv::protocol::Protocol;

pub(super) const LESSON: Lesson = Lesson {
    name: "stable-leader",
    title: "A stable leader skips phase 1",
    says: "Five servers run Multi-Paxos. One of them asks for promises once, for all slots from here on, and leads. \
           From then on a write is one round: the leader proposes at the ballot that was promised already, whichever server \
           the client has asked. Compare the rows of a write here with those of the first lesson: the hollow marks, phase 1, \
           are gone.",
    look: &[
        ("Phase 1 happens once", "proposer PREPARE"),
        ("A majority has promised: this server leads", "proposer LEAD"),
        ("A write is proposed at once, without phase 1", "proposer ACCEPT   req=c1-2"),
        ("The write is chosen after one round", "learner  CHOSEN   req=c1-2"),
    ],
    question: "Why may the leader use promises for slots that no server knew of when they were made?",
    answer: "A promise is not about a slot: it says that the acceptor accepts nothing below this ballot, in any slot from the \
             requested one on. See the head of src/paxos/mod.rs, and src/paxos/policy.rs.",
    servers: 5,
    protocol: Protocol::MultiPaxos,
    loses_storage: false,
    script: &[(
        LessonTime::At(900 * MS),
        LessonAction::Put(2, &[("color", "blue"), ("shape", "circle"), ("city", "Lyon")]),
    )],
    end: 1_000 * MS,
};
