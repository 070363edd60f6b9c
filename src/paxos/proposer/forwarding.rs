//! Forwarding of commands to the leader.
//!
//! A client may talk to any server. The proposer of that server owns the client's command until its learner has applied
//! it, whichever server leads meanwhile. It forwards the command to the leader that it knows, again after 200 ms, 400
//! ms and so on, and again to the next leader. A leader proposes forwarded commands and drops them at the end of its
//! tenure. Its crash loses nothing, because the owner still has the command. Nothing takes effect twice, because the
//! state machine recognizes a command by its id.
//!
//! An owner whose learner is behind waits for it before it forwards a command again: the command may be in one of the
//! missing slots. Otherwise each command of a server that is far behind would fill five slots a second, and the server
//! would fall further behind because of them.
//!
//! [`Forwarding`] knows the leader that commands were forwarded to last. Which commands are in flight is stored with
//! the commands.

use super::commands::OwnCommands;
use super::types::{ProposerTraceEvent, ProposerVocabulary};
use crate::paxos::{Ballot, Message, Slot};
use crate::role::{Output, ServerSet};

/// Maximum size of the commands of one FORWARD, in bytes; a single larger command goes alone.
const FORWARD_BYTES: usize = 1 << 20;

/// The receiver of forwarded commands. See the head of this file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Forwarding {
    /// The ballot of the leader that commands were last forwarded to.
    to: Option<Ballot>,
}

impl Forwarding {
    /// The leader that received commands no longer leads.
    pub(super) fn end(&mut self) {
        self.to = None;
    }

    /// Forwards to the leader the commands that it has not received, or whose FORWARD is old enough to be lost.
    pub(super) fn forward<R: ProposerVocabulary>(
        &mut self,
        leader: Ballot,
        commands: &mut OwnCommands,
        tick: u64,
        out: &mut Output<R>,
    ) {
        if self.to != Some(leader) {
            self.to = Some(leader);
            commands.release_all();
        }
        let commands = commands.take_idle(tick);
        let (mut part, mut size) = (Vec::new(), 0);
        let to = ServerSet::only(leader.server);
        for command in commands {
            out.emit_step(|| ProposerTraceEvent::Forwarded { command: command.clone(), leader });
            if size + command.payload.len() > FORWARD_BYTES && !part.is_empty() {
                out.send(to, Message::Forward { commands: std::mem::take(&mut part) });
                size = 0;
            }
            size += command.payload.len();
            part.push(command);
        }
        if !part.is_empty() {
            out.send(to, Message::Forward { commands: part });
        }
    }

    /// One heartbeat tick. Releases commands that were forwarded long ago and are in no slot up to `known`, although
    /// all these slots are `applied` here: they are forwarded again.
    pub(super) fn release_late(&self, commands: &mut OwnCommands, tick: u64, known: Slot, applied: Slot) {
        commands.release_forwarded(tick, known, applied);
    }
}
