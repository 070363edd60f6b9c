//! The lesson on one value: the protocol without faults.

use super::{Lesson, LessonAction, LessonTime, MS};
use paxos_kv::protocol::Protocol;

pub(super) const LESSON: Lesson = Lesson {
    name: "one-value",
    title: "One value",
    says: "A client asks server 1 to put color = blue. Server 1 knows nothing of the others, and does not trust that it is \
           alone: first it asks all five acceptors to promise its ballot, and hears from them whether anything was accepted \
           before (phase 1). Three promises are enough. Then it proposes (phase 2), and once three have accepted at that \
           ballot the value is chosen: from now on nothing can change it, whoever dies.",
    look: &[
        ("The first question: a session is opened, which is a value like any other", "proposer PREPARE  req=c1-1"),
        ("Promises: this acceptor will take part in nothing older", "acceptor PROMISE  req=c1-1"),
        ("A majority has promised and reported nothing: the proposer is free", "proposer ACCEPT   req=c1-2"),
        ("The moment of choice: a majority has accepted at one ballot", "learner  CHOSEN   req=c1-2"),
        ("Every server applies the slot, the same everywhere", "learner  LEARN    req=c1-2"),
    ],
    question: "The value is chosen before anybody knows it. At which line exactly, and who could know?",
    answer: "At the third ACCEPTED of the slot, whichever acceptor wrote it. Only the three together know; the learner that \
             counts them finds out later. See the head of src/paxos/mod.rs, \"chosen\", and src/paxos/learner/mod.rs.",
    servers: 5,
    protocol: Protocol::BasicPaxos,
    forgets: false,
    script: &[
        (LessonTime::At(30 * MS), LessonAction::Put(1, &[("color", "blue")])),
        (LessonTime::At(80 * MS), LessonAction::Get(4, "color")),
    ],
    end: 120 * MS,
};
