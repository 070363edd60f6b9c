//! The lesson on adopted values: why a proposer may not always propose its own value.

use super::{Lesson, LessonAction, LessonTime, MS};
use paxos_kv::protocol::Protocol;

pub(super) const LESSON: Lesson = Lesson {
    name: "adopt",
    title: "The value you must adopt",
    says: "Server 1 proposes color = blue, and its network fails in the middle: only server 2 and itself hear the proposal, \
           then nobody hears server 1 any more. Is blue chosen? Two of five have accepted: no. Might it have been? Server 3 cannot know: \
           server 5 is silent, and perhaps it has accepted too. Server 3's client wants red. Among the promises that server \
           3 gathers is that of server 2, which reports blue. So server 3 must propose blue first, and red in the next slot. \
           That is the whole art of Paxos: you cannot tell what was chosen, so you finish whatever may have been.",
    look: &[
        ("Blue is proposed by server 1", "s1.*proposer ACCEPT   req=c1-3"),
        ("Server 2 accepts it; the others hear nothing", "s2.*acceptor ACCEPTED req=c1-3"),
        ("Server 3 asks for promises, for red", "s3.*proposer PREPARE  req=c2-1"),
        ("Server 2 promises, and reports what it has accepted", "s2.*acceptor PROMISE  req=c2-1"),
        ("Server 3 is bound: it proposes blue at its own ballot", "s3.*proposer ACCEPT   req=c1-3"),
        ("Blue is chosen, though its proposer is out of reach", "learner  CHOSEN   req=c1-3"),
    ],
    question: "What if server 2 had been the silent one, instead of server 5?",
    answer: "Then nobody in the majority had accepted blue, so it cannot have been chosen, and red would take the slot. Blue \
             would be lost, and nobody was told that it was done. See src/paxos/promises.rs.",
    servers: 5,
    protocol: Protocol::BasicPaxos,
    forgets: false,
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
