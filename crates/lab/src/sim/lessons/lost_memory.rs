//! The lesson on stable storage: why an acceptor must not lose its state.

use super::{Lesson, LessonAction, LessonTime, MS};
use paxos_kv::protocol::Protocol;
use paxos_kv::role::RoleKind::Acceptor;

pub(super) const LESSON: Lesson = Lesson {
    name: "lost-memory",
    title: "A lost memory breaks Paxos",
    says: "Three servers; in this scene an acceptor that crashes restarts with an empty disk. Server 3 is cut off. Server 1 \
           writes color = blue, chosen by servers 1 and 2, and replies OK. Server 2's acceptor crashes and restarts: it has \
           lost what it accepted. Now server 1 is cut off, and server 3 writes red with the promise of server 2, which \
           reports nothing. Two values are chosen in one slot, both clients received OK, and the replicas differ for ever. \
           Every step followed the protocol; only one disk was empty.",
    look: &[
        ("Blue is chosen by servers 1 and 2", "s1.*learner  CHOSEN   req=c1-2"),
        ("Server 2's acceptor restarts with an empty disk", "s2.*acceptor RESTART"),
        ("It promises server 3's ballot, and reports no value", "s2.*acceptor PROMISE  req=c2-1"),
        ("So server 3 proposes its own value, red", "s3.*proposer ACCEPT   req=c2-1"),
        ("Red is chosen too, in the slot that blue had", "s3.*learner  CHOSEN   req=c2-2"),
    ],
    question: "Would it help if the acceptor restarted with its promise, but without the values that it accepted?",
    answer: "No: the promise keeps old ballots away, and server 3's is new. Both must be durable before the acceptor \
             sends a message about them. See src/paxos/acceptor.rs and src/role.rs: the types do not let a role send earlier.",
    servers: 3,
    protocol: Protocol::BasicPaxos,
    loses_storage: true,
    script: &[
        (LessonTime::At(10 * MS), LessonAction::Cut(1, 3)),
        (LessonTime::At(10 * MS), LessonAction::Cut(2, 3)),
        (LessonTime::At(30 * MS), LessonAction::Put(1, &[("color", "blue")])),
        (LessonTime::At(90 * MS), LessonAction::Crash(2, Acceptor)),
        (LessonTime::At(95 * MS), LessonAction::Cut(1, 2)),
        (LessonTime::At(100 * MS), LessonAction::Restart(2, Acceptor)),
        (LessonTime::At(105 * MS), LessonAction::Join(2, 3)),
        (LessonTime::At(105 * MS), LessonAction::Put(3, &[("color", "red")])),
    ],
    end: 300 * MS,
};
