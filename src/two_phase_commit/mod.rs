//! Two-phase commit: the road not taken, on the same servers.
//!
//! # The question
//!
//! Paxos asks: *do we agree on one value, although some of us are down?* Two-phase commit asks something else: *will
//! all of us do this, or none?* It was made for databases that each hold another part of the data, where one of them
//! may have a reason to say no (Gray, "Notes on Data Base Operating Systems", 1978, section 5.8.3.3). Here every server
//! holds the same data, and the question fits badly; that is what there is to see.
//!
//! # The protocol
//!
//! A client's command is a *transaction*. The server that was asked is its *coordinator*, all servers are
//! *participants*.
//!
//! 1. The coordinator sends VOTEREQ to all. A participant that can do the command locks its key, writes a *prepared*
//!    record, and only then votes yes. From then on it may neither do the command nor drop it: it has promised both.
//! 2. When all have voted yes, the coordinator writes a *commit* record. With that the transaction is committed. It
//!    tells the client, and sends DECIDE; each participant writes the decision, does the command, frees the key, and
//!    sends ACK. When all have acknowledged, the coordinator forgets the transaction. A single no, or silence for 300
//!    ms, aborts.
//!
//! | message | from | heard on the receiving server by |
//! |---|---|---|
//! | VOTEREQ, DECIDE | coordinator | participant |
//! | VOTE, ACK | participant | coordinator |
//! | INQUIRE | participant | coordinator **and** participant |
//! | ANSWER | participant, coordinator | participant |
//!
//! *Presumed abort* (Mohan, Lindsay and Obermarck, 1986): a coordinator that has no record of a transaction answers
//! "aborted". So an abort is never written by a coordinator, never acknowledged, and never waits for a disk; a commit
//! record must be durable before anybody hears of it, and must stay until all have acknowledged.
//!
//! # When somebody dies
//!
//! A participant that has not voted is free: whoever asks it gets "aborted", and it remembers durably that it said so.
//! A participant that has voted yes is *in doubt*. It asks the coordinator and all others (the cooperative termination
//! protocol; Bernstein, Hadzilacos and Goodman, 1987, section 7.4). If anybody knows the decision, or has not voted
//! yet, the doubt ends. But if everybody who can be reached is prepared, and the coordinator cannot be reached, nobody
//! may decide: the coordinator may have committed, and told a client so; or it may not. The participant is **blocked**,
//! its key stays locked, and that lasts as long as the coordinator is away. No protocol that asks all can avoid that
//! (Skeen, 1981).
//!
//! # The store
//!
//! There is no log. Writes to one key are ordered by its lock, which is held on every server from the vote to the
//! decision; writes to different keys are not ordered at all. That is enough for a store whose operations have one key
//! each, and for sessions, if nothing in their table depends on the order of keys (`kv`,
//! [`Kv::commit`](crate::kv::Kv::commit)). Two coordinators that want one key refuse each other: each participant votes
//! no while another transaction has the lock. Nobody waits for a lock while it holds one, so there is no deadlock;
//! whoever was refused tries again after a random pause.
//!
//! A read is answered by the asked server alone, from its own store, once the key is free: a write that is committed
//! was prepared here before it was, so either it is done here, or its lock is still held and the read waits. Thus local
//! reads are linearizable, which Paxos cannot offer; they are paid for by writes that need every server.
//!
//! # What is left out
//!
//! Transactions of several keys; read-only votes; handing over to another coordinator. The participants' journal is
//! never shortened. Gray and Lamport, "Consensus on Transaction Commit" (2006), give each vote to an instance of Paxos
//! instead of to one coordinator's memory, and get a commit protocol that blocks no more than Paxos does.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod coordinator;
#[cfg(test)]
mod coordinator_tests;
mod lock;
mod message;
mod participant;
#[cfg(test)]
mod participant_tests;
#[cfg(test)]
mod role_harness;
mod rules;
#[cfg(test)]
mod tests;
mod types;

pub use coordinator::Coordinator;
pub use lock::Lock;
pub use message::{CommitMessage, Decision, InquiryReply, TransactionBody, TransactionId, Vote, VoteNoReason};
pub use participant::{DECIDED_MAX, Participant};
pub use types::{
    AbortReason, CoordinatorNotification, CoordinatorRecord, CoordinatorRequest, CoordinatorTimer,
    CoordinatorTraceEvent, InDoubtTransaction, ParticipantNotification, ParticipantRecord, ParticipantRequest,
    ParticipantTimer, ParticipantTraceEvent,
};
