//! The lesson on one value: the protocol without faults.

use super::{Lesson, LessonAction, LessonTime, MS};
use paxos_kv::protocol::Protocol;

pub(super) const LESSON: Lesson = Lesson {
    name: "one-value",
    title: "One value",
    says: "A client asks server 1 to put color = blue. Server 1 cannot know what other proposers have done. So it first asks \
           all five acceptors to promise its ballot, and to report what they have accepted (phase 1). Three promises are \
           enough. Then it proposes (phase 2). Once three acceptors have accepted at that ballot, the value is chosen: nothing \
           can change it from now on, whichever servers crash.",
    look: &[
        (
            "PREPARE for the first command: it opens a session, and is a value like any other",
            "proposer PREPARE  req=c1-1",
        ),
        ("PROMISE: this acceptor accepts nothing at a lower ballot any more", "acceptor PROMISE  req=c1-1"),
        (
            "A majority has promised and reported no value, so the proposer proposes its own",
            "proposer ACCEPT   req=c1-2",
        ),
        ("The value is chosen: a majority has accepted it at one ballot", "learner  CHOSEN   req=c1-2"),
        ("Every server applies the same value in the slot", "learner  LEARN    req=c1-2"),
    ],
    question: "The value is chosen before any server knows it. At which line exactly, and which server could know?",
    answer: "At the third ACCEPTED of the slot, whichever acceptor wrote it. No single acceptor knows; the learner that \
             counts them finds out later. See the head of src/paxos/mod.rs, \"chosen\", and src/paxos/learner/mod.rs.",
    servers: 5,
    protocol: Protocol::BasicPaxos,
    loses_storage: false,
    script: &[
        (LessonTime::At(30 * MS), LessonAction::Put(1, &[("color", "blue")])),
        (LessonTime::At(80 * MS), LessonAction::Get(4, "color")),
    ],
    end: 120 * MS,
};
