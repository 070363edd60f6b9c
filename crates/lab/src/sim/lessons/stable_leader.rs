//! The lesson on leaders: what a stable leader saves.

use super::{Lesson, LessonAction, LessonTime, MS, Point, SECOND};
use paxos_kv::protocol::Protocol;
use paxos_kv::role::RoleKind::Proposer;

pub(super) const LESSON: Lesson = Lesson {
    name: "stable-leader",
    title: "A stable leader skips phase 1",
    says: "Five servers run Multi-Paxos, and server 5 leads: it proposes the writes of all clients. Its proposer crashes, and a \
           while later a client asks server 2 to write blue.",
    points: &[
        Point::first("The proposer of server 5 crashes, and with it the leader", "s5.*proposer CRASH"),
        Point::after(
            "Server 3 notices that no leader is left. What does it ask the acceptors for?",
            &["Promises for one slot", "Promises for all slots from here on"],
            1,
            "Server 3 asks for promises once, for all slots from here on",
            "s3.*proposer PREPARE",
        ),
        Point::after(
            "When does server 3 lead?",
            &["When a majority has promised", "When all have promised"],
            0,
            "Server 3 leads: a majority has promised its ballot",
            "s3.*proposer LEAD",
        ),
        Point::after(
            "A client asks server 2 to write blue. What does server 2 do?",
            &["It asks for promises", "It passes the write on to server 3"],
            1,
            "Server 2 forwards the write to server 3, which leads",
            "s2.*proposer FORWARD  req=c1-2",
        ),
        Point::after(
            "What does server 3 send next?",
            &["A request for promises", "The proposal"],
            1,
            "Server 3 proposes blue at once: the promises are there already",
            "s3.*proposer ACCEPT   req=c1-2",
        ),
        Point::after(
            "How many rounds of messages does it take until blue is chosen?",
            &["One", "Two"],
            0,
            "Blue is chosen after one round: the learner of server 3 has counted a majority",
            "s3.*learner  CHOSEN   req=c1-2",
        ),
    ],
    moral: "A stable leader pays for phase 1 once. Compare the second write with the first lesson: the hollow marks, phase 1, are \
            gone.",
    question: "Why may the leader use promises for slots that no server knew of when they were made?",
    answer: "A promise is not about a slot: it says that the acceptor accepts nothing below this ballot, in any slot from the \
             requested one on. See the head of src/paxos/mod.rs, and src/paxos/policy.rs.",
    servers: 5,
    protocol: Protocol::MultiPaxos,
    loses_storage: false,
    patience: 10 * SECOND,
    script: &[
        (LessonTime::At(0), LessonAction::Crash(5, Proposer)),
        (LessonTime::At(300 * MS), LessonAction::Put(2, &[("color", "blue"), ("shape", "circle")])),
    ],
    end: 400 * MS,
};
