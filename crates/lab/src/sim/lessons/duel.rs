//! The lesson on two proposers that compete.

use super::{Lesson, LessonAction, LessonTime, MS};
use paxos_kv::protocol::Protocol;

pub(super) const LESSON: Lesson = Lesson {
    name: "duel",
    title: "Duelling proposers",
    says: "Two clients write the same key at the same moment, one through server 1, the other through server 5. Each proposer \
           takes a ballot, and the higher one wins the acceptors' promises. The proposer with the lower ballot is refused, \
           learns the rival's ballot from the refusal, and tries a higher one. This could go on for ever; a random pause ends \
           it. Both writes are done, one after the other, in the same order on every server.",
    look: &[
        ("Server 1 asks for promises", "s1.*proposer PREPARE  req=c1-"),
        ("So does server 5, with another ballot", "s5.*proposer PREPARE  req=c2-"),
        ("An acceptor that promised the higher ballot refuses the lower one", "acceptor NACK"),
        ("The loser takes a higher round after a random pause", "proposer RETRY"),
        ("In the end both writes are done, each in its own slot", "learner  CHOSEN   req=c2-3"),
    ],
    question: "Why does the pause not grow each time that a proposer loses?",
    answer: "A pause that grows with each loss starves the loser: the winner begins its next write while the loser still \
             waits. See src/paxos/proposer/mod.rs, and rule 11 in docs/rules.md.",
    servers: 5,
    protocol: Protocol::BasicPaxos,
    loses_storage: false,
    script: &[
        (LessonTime::At(30 * MS), LessonAction::Put(1, &[("color", "blue"), ("color", "navy")])),
        (LessonTime::At(30 * MS), LessonAction::Put(5, &[("color", "red"), ("color", "crimson")])),
    ],
    end: 500 * MS,
};
