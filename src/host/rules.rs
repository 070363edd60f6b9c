//! The rules of the server's core that a seeded bug breaks, one function each. Where a line says
//! `seeded_bugs::is_enabled(...)`, read `false` (see [`seeded_bugs`]).

use crate::paxos::CommandId;
use crate::seeded_bugs::{self, Bug};
use crate::storage::identity::Admitted;

/// A pending request waits for the full id of its command, so that no client gets the outcome of another client's
/// command.
pub fn waits_for(id: CommandId) -> CommandId {
    if seeded_bugs::is_enabled(Bug::WaitersWithoutNonce) { CommandId { nonce: 0, ..id } } else { id }
}

/// An outcome goes only to the requests that wait for that command.
pub fn concerns(id: CommandId, longest_waiting: CommandId) -> CommandId {
    if seeded_bugs::is_enabled(Bug::ReplyToLongestWaiting) { longest_waiting } else { id }
}

/// "Expired" is certain only from a learner that has itself applied every slot since the request arrived. A snapshot
/// may contain the command, applied before its session ended.
pub fn is_certain(has_seen_all: bool) -> bool {
    has_seen_all || seeded_bugs::is_enabled(Bug::ExpiredIsAlwaysCertain)
}

/// An acceptor that crashed recovers what it promised and accepted, except in the mode that shows why it must.
pub fn forgets(is_asked_to: bool, has_crashed: bool) -> bool {
    (is_asked_to || seeded_bugs::is_enabled(Bug::ForgetfulAcceptorVotes)) && has_crashed
}

/// A server with a new disk may have promised and accepted on another disk. It stays pending until enough peers have
/// recorded it.
pub fn pending_server_is_active() -> bool {
    seeded_bugs::is_enabled(Bug::NewDiskVotes)
}

/// A peer that has lost its disk is not admitted under its old identity.
pub fn admitted(judged: Result<Admitted, String>) -> Result<Admitted, String> {
    if seeded_bugs::is_enabled(Bug::LostDiskBelieved) && judged.is_err() { Ok(Admitted::Yes) } else { judged }
}
