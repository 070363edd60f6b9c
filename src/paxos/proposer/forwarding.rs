//! Commands on their way to the leader.
//!
//! A client may talk to any server. The proposer of that server owns the client's command until its outcome is applied,
//! whoever leads meanwhile: it hands the command to the leader that it hears, again every 200 ms, and again to the next
//! leader. A leader proposes what it is handed and forgets it with its reign. Nothing is lost when it dies, since the owner
//! still has the command; and nothing takes effect twice, since the state machine knows a command by its id.
//!
//! An owner whose learner is behind waits for it before it hands a command over again: it may be in the very slots that are
//! missing. Otherwise each command of a server that is far behind fills five slots a second, and the server falls further
//! behind because of them.

use super::words::{ProposerFact, StepDown};
use super::{Phase, Proposer};
use crate::paxos::{Command, Message, Slot};
use crate::role::{Output, Server, Servers};

/// A command is handed over again after so many pulses and the one under way: about 200 ms.
const AGAIN_PULSES: u64 = 6;
/// The commands of one FORWARD take about this many bytes at most, unless a single one is larger.
const FORWARD_BYTES: usize = 1 << 20;

impl Proposer {
    /// Hands to the leader what it has not been handed, or so long ago that it may have been lost.
    pub(super) fn forward(&mut self, out: &mut Output<Self>) {
        if self.commands.is_empty() || self.at_work().is_some() {
            return;
        }
        let Some(leader) = self.leadership.heard() else { return };
        if self.forwarding_to != Some(leader) {
            self.forwarding_to = Some(leader);
            self.commands.release_all();
        }
        let commands = self.commands.take_idle(self.leadership.pulse());
        let (mut part, mut size) = (Vec::new(), 0);
        let to = Servers::only(leader.server);
        for command in commands {
            out.fact(|| ProposerFact::Forwarded { command: command.clone(), leader });
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

    /// 30 ms have passed: what was handed over long ago is handed over again.
    pub(super) fn forward_again(&mut self) {
        let Some(applied) = self.applied else { return };
        if let Some(before) = self.leadership.pulse().checked_sub(AGAIN_PULSES) {
            self.commands.release_forwarded(before, self.highest_beat(), applied);
        }
    }

    /// FORWARD: another proposer's commands, to be proposed by the leader. One that is under way already is not taken
    /// again; what there is no room for will come again.
    pub(super) fn handle_forward(&mut self, sender: Server, commands: Vec<Command>, out: &mut Output<Self>) {
        if !self.quorums.servers().contains(sender) {
            return;
        }
        let mut is_taken = self.leads().is_some();
        if let (true, Phase::Proposing(work)) = (is_taken, &self.phase) {
            for command in commands {
                if !work.has_open(command.id)
                    && !self.commands.contains(command.id)
                    && !self.guests.contains(command.id)
                {
                    is_taken &= self.guests.push(command);
                }
            }
        }
        if !is_taken {
            out.send(Servers::only(sender), Message::Refused { leader: self.leader().map(|(ballot, _)| ballot) });
        }
    }

    /// REFUSED: commands were handed to one who does not lead, or has no room. They stay here, and go to the next leader
    /// that is heard; or to the same, later.
    pub(super) fn handle_refused(&mut self, sender: Server, leads: bool) {
        if !leads {
            self.leadership.doubt(sender);
        }
    }

    /// FILL under a leader: it makes sure that every slot up to this one gets a value. Others pass on what their own
    /// learner asks for.
    pub(super) fn handle_fill_under_leader(&mut self, sender: Server, slot: Slot, out: &mut Output<Self>) {
        let Some(ballot) = self.leads() else {
            let leader = self.leadership.heard().filter(|_| sender == self.me);
            return leader
                .into_iter()
                .for_each(|leader| out.send(Servers::only(leader.server), Message::Fill { slot }));
        };
        let (applied, highest_beat) = (self.applied.unwrap_or_default(), self.highest_beat());
        let Phase::Proposing(work) = &mut self.phase else { return };
        if slot < work.attempt.from && slot > applied && slot > highest_beat {
            // Nobody alive has it, and this ballot cannot propose there: another one can.
            debug_assert_eq!(work.attempt.ballot, ballot);
            self.step_down(StepDown::Below(slot), out);
            self.prepare(false, out);
        } else {
            work.fill_to(slot);
        }
    }
}
