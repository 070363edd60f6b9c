//! Commands on their way to the leader.
//!
//! A client may talk to any server. The proposer of that server owns the client's command until its outcome is applied,
//! whoever leads meanwhile: it hands the command to the leader that it hears, again after 200 ms, 400 ms and so on, and
//! again to the next leader. A leader proposes what it is handed and forgets it with its reign. Nothing is lost when it
//! dies, since the owner still has the command; and nothing takes effect twice, since the state machine knows a command
//! by its id.
//!
//! An owner whose learner is behind waits for it before it hands a command over again: it may be in the very slots that
//! are missing. Otherwise each command of a server that is far behind fills five slots a second, and the server falls
//! further behind because of them.
//!
//! [`Forwarding`] remembers to whom commands were handed last; which of them are under way the commands know
//! themselves.

use super::commands::OwnCommands;
use super::types::{ProposerTraceEvent, ProposerVocabulary};
use crate::paxos::{Ballot, Message, Slot};
use crate::role::{Output, ServerSet};

/// A command is handed over again after so many pulses and the one under way: about 200 ms.
const AGAIN_PULSES: u64 = 6;
/// The commands of one FORWARD take about this many bytes at most, unless a single one is larger.
const FORWARD_BYTES: usize = 1 << 20;

/// To whom commands are handed. See the head of its file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Forwarding {
    /// The leader that commands were handed to last.
    to: Option<Ballot>,
}

impl Forwarding {
    /// Whoever was handed commands leads no longer.
    pub(super) fn end(&mut self) {
        self.to = None;
    }

    /// Hands to the leader what it has not been handed, or so long ago that it may have been lost.
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

    /// 30 ms have passed: what was handed over long ago, and is in no slot up to `known` although all of them are
    /// `applied` here, is to be handed over again.
    pub(super) fn release_late(&self, commands: &mut OwnCommands, tick: u64, known: Slot, applied: Slot) {
        commands.release_forwarded(tick, AGAIN_PULSES, known, applied);
    }
}
