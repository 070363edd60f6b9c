//! The rules of the server's core that a seeded bug breaks, one line each. Where a line says `seeded_bugs::is_enabled(...)`, read
//! `false` (see [`seeded_bugs`]).

use crate::paxos::CommandId;
use crate::seeded_bugs::{self, Bug};
use crate::storage::identity::Admitted;

/// Waiters wait for the whole name of their command, so that no client hears what came of another's.
pub fn waits_for(id: CommandId) -> CommandId {
    if seeded_bugs::is_enabled(Bug::WaitersWithoutNonce) { CommandId { nonce: 0, ..id } } else { id }
}

/// An outcome is told to those who wait for that command, and to no others.
pub fn concerns(id: CommandId, longest_waiting: CommandId) -> CommandId {
    if seeded_bugs::is_enabled(Bug::ReplyToLongestWaiting) { longest_waiting } else { id }
}

/// That a session has ended is certain news only from a learner that has applied every slot since the client asked: in
/// a snapshot the command may have been applied before the end.
pub fn is_certain(has_seen_all: bool) -> bool {
    has_seen_all || seeded_bugs::is_enabled(Bug::ExpiredIsAlwaysCertain)
}

/// An acceptor that crashed knows what it has promised and accepted, but in the mode that shows why it must.
pub fn forgets(is_asked_to: bool, has_crashed: bool) -> bool {
    (is_asked_to || seeded_bugs::is_enabled(Bug::ForgetfulAcceptorVotes)) && has_crashed
}

/// A server whose disk is new may have promised and accepted on another one. It does not take part until others know
/// it.
pub fn newcomer_takes_part() -> bool {
    seeded_bugs::is_enabled(Bug::NewDiskVotes)
}

/// A peer that has lost its disk is not let in as the one it was.
pub fn admitted(judged: Result<Admitted, String>) -> Result<Admitted, String> {
    if seeded_bugs::is_enabled(Bug::LostDiskBelieved) && judged.is_err() { Ok(Admitted::Yes) } else { judged }
}
