//! The lesson on two proposers that compete.

use super::{Lesson, LessonAction, LessonTime, MS};
use paxos_kv::protocol::Protocol;

pub(super) const LESSON: Lesson = Lesson {
    name: "duel",
    title: "Duelling proposers",
    says: "Two clients write the same key at the same moment, one through server 1, the other through server 5. Each proposer \
           takes a ballot, and the higher one wins the acceptors' promises: whoever is late is refused, learns the rival's \
           ballot from the refusal, and tries a higher one. That could go on for ever; a random pause ends it. Both writes \
           are done, one after the other, in the same order everywhere.",
    look: &[
        ("Server 1 asks for promises", "s1.*proposer PREPARE  req=c1-"),
        ("So does server 5, with another ballot", "s5.*proposer PREPARE  req=c2-"),
        ("Who has promised the higher ballot refuses the lower", "acceptor NACK"),
        ("The loser takes a higher round, after a random pause", "proposer RETRY"),
        ("In the end both are done, each in a slot of its own", "learner  CHOSEN   req=c2-3"),
    ],
    question: "Why does the pause stay short, however often a proposer has lost?",
    answer: "A pause that grows with each loss starves the loser: the winner begins its next write while the loser still \
             waits. See src/paxos/proposer/mod.rs, and rule 11 in docs/rules.md.",
    servers: 5,
    protocol: Protocol::BasicPaxos,
    forgets: false,
    script: &[
        (LessonTime::At(30 * MS), LessonAction::Put(1, &[("color", "blue"), ("color", "navy")])),
        (LessonTime::At(30 * MS), LessonAction::Put(5, &[("color", "red"), ("color", "crimson")])),
    ],
    end: 500 * MS,
};
