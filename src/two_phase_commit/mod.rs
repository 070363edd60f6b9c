//! Two-phase commit on the same servers, for comparison with Paxos.
//!
//! # The question
//!
//! Paxos asks: *do we agree on one value, although some of us are down?* Two-phase commit asks something else: *will
//! all of us do this, or none?* It was made for databases that each hold another part of the data: one of them may have
//! a reason to say no (Gray, "Notes on Data Base Operating Systems", 1978, section 5.8.3.3). Here every server holds
//! the same data, so the question fits badly; the comparison shows how.
//!
//! # The protocol
//!
//! A client's command is a *transaction*. The server that receives it is its *coordinator*, all servers are
//! *participants*.
//!
//! 1. The coordinator sends VOTEREQ to all. A participant that can do the command locks its key, writes a *prepared*
//!    record, and only then votes yes. From then on it may neither apply the command nor drop it on its own: it has
//!    promised to do either.
//! 2. When all have voted yes, the coordinator writes a *commit* record. With that record the transaction is committed.
//!    It replies to the client and sends DECIDE. Each participant writes the decision, applies the command, frees the
//!    key, and sends ACK. When all have acknowledged, the coordinator drops the transaction. A single no, or a missing
//!    vote for 300 ms, aborts.
//!
//! | message | from | handled on the receiving server by |
//! |---|---|---|
//! | VOTEREQ, DECIDE | coordinator | participant |
//! | VOTE, ACK | participant | coordinator |
//! | INQUIRE | participant | coordinator **and** participant |
//! | ANSWER | participant, coordinator | participant |
//!
//! *Presumed abort* (Mohan, Lindsay and Obermarck, 1986): a coordinator that has no record of a transaction answers
//! "aborted". So a coordinator never writes an abort, no abort is acknowledged, and none waits for a disk. A commit
//! record must be durable before any message about it is sent, and must stay until all have acknowledged.
//!
//! # Crashes
//!
//! A participant that has not voted is free: if a peer inquires, it answers "aborted" and durably records that answer.
//! A participant that has voted yes is *in doubt*. It asks the coordinator and all others (the cooperative termination
//! protocol; Bernstein, Hadzilacos and Goodman, 1987, section 7.4). If any of them knows the decision, or has not voted
//! yet, the doubt ends. But if every reachable server is prepared and the coordinator is unreachable, none of them may
//! decide. The coordinator may have committed and replied to a client, or not. The participant is **blocked**: its key
//! stays locked until the coordinator is back. No protocol that needs all servers can avoid this (Skeen, 1981).
//!
//! # The store
//!
//! There is no log. Writes to one key are ordered by its lock, which every server holds from the vote to the decision.
//! Writes to different keys are not ordered. That is enough for a store whose operations have one key each. It is also
//! enough for sessions, if nothing in their table depends on the order of keys (`kv`,
//! [`Kv::commit`](crate::kv::Kv::commit)). Two coordinators that want one key refuse each other: each participant votes
//! no while another transaction has the lock. No transaction waits for a lock while it holds one, so there is no
//! deadlock. A refused command is tried again after a random pause.
//!
//! The server that receives a read answers it alone, from its own store, once the key is free. A committed write was
//! prepared here before its commit. So either it is applied here, or its lock is still held and the read waits. Thus
//! local reads are linearizable, which Paxos cannot offer; the price is that writes need every server.
//!
//! # What is left out
//!
//! Transactions of several keys; read-only votes; a change of coordinator. The participants' journal is never
//! truncated. Gray and Lamport, "Consensus on Transaction Commit" (2006), decide each vote by an instance of Paxos
//! instead of in one coordinator's memory. Their commit protocol blocks no more than Paxos does.
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
