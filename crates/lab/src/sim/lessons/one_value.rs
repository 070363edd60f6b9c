//! The lesson on one value: the protocol without faults.

use super::{Lesson, LessonAction, LessonTime, MS, Point, SECOND};
use paxos_kv::protocol::Protocol;

pub(super) const LESSON: Lesson = Lesson {
    name: "one-value",
    title: "One value",
    says: "Five servers, and no failures. A client asks server 1 to put color = blue. Server 1 cannot know what other \
           proposers have done. So it works in two phases: it asks first, and then it proposes.",
    points: &[
        Point::first("The request for blue arrives at server 1", "s1.*server   REQUEST  req=c1-2"),
        Point::after(
            "What does server 1 send first?",
            &["The value blue", "A ballot, without any value"],
            1,
            "Server 1 asks all five acceptors to promise its ballot. It names no value yet",
            "s1.*proposer PREPARE  req=c1-2",
        ),
        Point::after(
            "What does an acceptor promise?",
            &["To accept nothing at a lower ballot", "To accept blue", "To answer no other server"],
            0,
            "Server 2 promises: from now on it accepts nothing at a lower ballot. It reports that it has accepted \
             nothing in this slot",
            "s2.*acceptor PROMISE  req=c1-2",
        ),
        Point::after(
            "How many promises does server 1 need before it proposes?",
            &["Two", "Three", "All five"],
            1,
            "Server 1 proposes its own value, blue: three acceptors, a majority, have promised, and none reported a value",
            "s1.*proposer ACCEPT   req=c1-2",
        ),
        Point::after(
            "When is blue chosen?",
            &["When server 1 proposes it", "When three acceptors have accepted it", "When the client is answered"],
            1,
            "Blue is chosen: the learner of server 1 has counted a majority that accepted it at one ballot",
            "s1.*learner  CHOSEN   req=c1-2",
        ),
        Point::after(
            "What does server 4 do when it learns this?",
            &["It votes again", "It applies blue, in the same slot as the others"],
            1,
            "Server 4 applies blue, in the same slot as all others",
            "s4.*learner  LEARN    req=c1-2",
        ),
    ],
    moral: "Nothing can change the value of this slot from now on, whichever servers crash: any other majority shares an \
            acceptor with this one.",
    question: "The value is chosen before any server knows it. At which line exactly, and which server could know?",
    answer: "At the third ACCEPTED of the slot, whichever acceptor wrote it. No single acceptor knows; the learner that \
             counts them finds out later. See the head of src/paxos/mod.rs, \"chosen\", and src/paxos/learner/mod.rs.",
    servers: 5,
    protocol: Protocol::BasicPaxos,
    loses_storage: false,
    patience: 10 * SECOND,
    script: &[(LessonTime::At(0), LessonAction::Put(1, &[("color", "blue")]))],
    end: 60 * MS,
};
