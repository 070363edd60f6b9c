//! What a majority is for.

use super::{Do, Lesson, MS, When};
use crate::protocol::Protocol;
use crate::role::RoleName::Acceptor;

pub(super) const LESSON: Lesson = Lesson {
    name: "lost-acceptor",
    title: "A lost acceptor",
    says: "Two of five acceptors die, and a write is done as if nothing had happened: three are a majority. A third one dies, \
           and now no value can be chosen: server 1 asks and asks, and proposes nothing. One acceptor comes back, with the \
           promise and the values that its disk knows, and the waiting write is done.",
    look: &[
        ("The first acceptor dies: its column is hatched", "acceptor CRASH"),
        ("Chosen by the three that are left", "learner  CHOSEN   req=c2-2"),
        ("Without a majority of promises nothing is proposed: the ballot is given up", "proposer RETRY    req=c3-"),
        ("One is back, and knows what it promised", "acceptor RESTART"),
        ("And the write that waited is done", "learner  CHOSEN   req=c3-2"),
    ],
    question: "Five servers tolerate two dead ones. What would six tolerate?",
    answer: "Two: a majority of six is four. An even number buys nothing. See src/paxos/quorum.rs.",
    servers: 5,
    protocol: Protocol::BasicPaxos,
    forgets: false,
    script: &[
        (When::At(30 * MS), Do::Put(1, &[("color", "blue")])),
        (When::At(80 * MS), Do::Crash(4, Acceptor)),
        (When::At(85 * MS), Do::Crash(5, Acceptor)),
        (When::At(90 * MS), Do::Put(1, &[("color", "green")])),
        (When::At(150 * MS), Do::Crash(3, Acceptor)),
        (When::At(160 * MS), Do::Put(1, &[("color", "red")])),
        (When::At(500 * MS), Do::Restart(4, Acceptor)),
    ],
    end: 900 * MS,
};
