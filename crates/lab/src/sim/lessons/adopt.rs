//! The lesson on adopted values: why a proposer may not always propose its own value.

use super::{Lesson, LessonAction, LessonTime, MS};
use paxos_kv::protocol::Protocol;

pub(super) const LESSON: Lesson = Lesson {
    name: "adopt",
    title: "The value a proposer must adopt",
    says: "Server 1 proposes color = blue, and its network fails in the middle: only servers 1 and 2 receive the proposal, \
           then server 1 is cut off. Is blue chosen? Two of five have accepted it: no. Could it be chosen? Server 3 cannot \
           know: server 5 is silent, and it may have accepted blue too. A client of server 3 wants red. The promise of server \
           2 reports blue to server 3. So server 3 must propose blue first, and red in the next slot. This is the core of \
           Paxos: a proposer cannot tell which value was chosen, so it finishes the value that may have been chosen.",
    look: &[
        ("Server 1 proposes blue", "s1.*proposer ACCEPT   req=c1-3"),
        ("Server 2 accepts blue; servers 3, 4 and 5 receive nothing", "s2.*acceptor ACCEPTED req=c1-3"),
        ("Server 3 asks for promises, for red", "s3.*proposer PREPARE  req=c2-1"),
        ("Server 2 promises, and reports the value that it accepted", "s2.*acceptor PROMISE  req=c2-1"),
        ("Server 3 must adopt blue, and proposes it at its own ballot", "s3.*proposer ACCEPT   req=c1-3"),
        ("Blue is chosen, although server 1 cannot be reached", "learner  CHOSEN   req=c1-3"),
    ],
    question: "What would happen if server 2 were silent instead of server 5?",
    answer: "No acceptor in the majority would have accepted blue. So blue cannot have been chosen, and red would take the \
             slot. Blue would be lost, but no client was told that it was written. See src/paxos/promises.rs.",
    servers: 5,
    protocol: Protocol::BasicPaxos,
    loses_storage: false,
    script: &[
        (LessonTime::At(30 * MS), LessonAction::Put(1, &[("sky", "grey"), ("color", "blue")])),
        (LessonTime::Seen(1, "proposer PREPARE  req=c1-3"), LessonAction::Cut(1, 5)),
        (LessonTime::Seen(1, "proposer PREPARE  req=c1-3"), LessonAction::Cut(3, 5)),
        (LessonTime::Seen(1, "proposer PREPARE  req=c1-3"), LessonAction::Cut(2, 5)),
        (LessonTime::Seen(1, "proposer PREPARE  req=c1-3"), LessonAction::Cut(4, 5)),
        (LessonTime::Seen(1, "proposer ACCEPT   req=c1-3"), LessonAction::Cut(1, 3)),
        (LessonTime::Seen(1, "proposer ACCEPT   req=c1-3"), LessonAction::Cut(1, 4)),
        (LessonTime::Seen(2, "acceptor ACCEPTED req=c1-3"), LessonAction::Cut(1, 2)),
        (LessonTime::At(120 * MS), LessonAction::Put(3, &[("color", "red")])),
    ],
    end: 500 * MS,
};
