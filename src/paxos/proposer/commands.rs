//! The commands that wait for their outcome at one proposer: its own clients', and at a leader those of others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::paxos::{Command, CommandId};

/// A proposer keeps at most so many commands of its own, and a leader as many of others; more are refused.
const COMMANDS_MAX: usize = 1_024;
/// Either kind takes at most so many bytes; more are refused.
const COMMANDS_MAX_BYTES: usize = 64 << 20;

/// Of so many commands a proposer remembers that it has put them into an ACCEPT, whoever they belong to. If there are more
/// that nobody has applied, it says of none any more that it is certainly not applied.
const SPOKEN_MAX: usize = 16_384;

/// A command that waits for its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pending {
    pub(super) command: Command,
    /// The tick when it was last asked for.
    since: u64,
    /// It was in an ACCEPT or a FORWARD of this life: it may be chosen at any time, by anybody.
    sent: bool,
    /// The pulse when it was handed to a leader last.
    forwarded_at: Option<u64>,
}

/// A proposer's own commands, in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Commands {
    by_arrival: BTreeMap<u64, Pending>,
    by_id: BTreeMap<CommandId, u64>,
    /// Nothing is under way for these: neither a proposal nor a FORWARD.
    idle: BTreeSet<u64>,
    bytes: usize,
    arrivals: u64,
    /// Commands that were in an ACCEPT of this life, perhaps for somebody else or adopted, and are not applied: if a client
    /// asks here later for one of them, it may be chosen all the same.
    spoken: BTreeSet<CommandId>,
    /// There was no room for all of them.
    has_lost_count: bool,
}

impl Commands {
    pub(super) fn is_empty(&self) -> bool {
        self.by_arrival.is_empty()
    }

    pub(super) fn contains(&self, id: CommandId) -> bool {
        self.by_id.contains_key(&id)
    }

    /// The command that has waited longest.
    pub(super) fn oldest(&self) -> Option<&Command> {
        self.by_arrival.values().next().map(|pending| &pending.command)
    }

    /// Somebody asks again for a command that is here: true if it is.
    pub(super) fn ask_again(&mut self, id: CommandId, tick: u64) -> bool {
        let pending = self.by_id.get(&id).and_then(|arrival| self.by_arrival.get_mut(arrival));
        pending.map(|pending| pending.since = tick).is_some()
    }

    /// Keeps a command; false if there is no room. `proposed` if it is in an ACCEPT already.
    pub(super) fn push(&mut self, command: Command, tick: u64, proposed: bool) -> bool {
        let size = command.payload.len();
        if self.by_arrival.len() >= COMMANDS_MAX || self.bytes + size > COMMANDS_MAX_BYTES {
            return false;
        }
        self.arrivals += 1;
        self.bytes += size;
        self.by_id.insert(command.id, self.arrivals);
        if !proposed {
            self.idle.insert(self.arrivals);
        }
        let sent = proposed || self.has_lost_count || self.spoken.contains(&command.id);
        let pending = Pending { command, since: tick, sent, forwarded_at: None };
        self.by_arrival.insert(self.arrivals, pending);
        true
    }

    /// Its outcome is known.
    pub(super) fn remove(&mut self, id: CommandId) {
        self.spoken.remove(&id);
        if let Some(arrival) = self.by_id.remove(&id)
            && let Some(pending) = self.by_arrival.remove(&arrival)
        {
            self.idle.remove(&arrival);
            self.bytes -= pending.command.payload.len();
        }
    }

    /// For how many commands nothing is under way.
    pub(super) fn idle(&self) -> usize {
        self.idle.len()
    }

    /// The oldest command that nothing is under way for.
    pub(super) fn next_idle(&self) -> Option<&Command> {
        self.idle.first().and_then(|arrival| self.by_arrival.get(arrival)).map(|pending| &pending.command)
    }

    /// A command is in an ACCEPT, for whatever reason.
    pub(super) fn proposed(&mut self, id: CommandId) {
        self.has_lost_count |= self.spoken.len() >= SPOKEN_MAX && !self.spoken.contains(&id);
        if !self.has_lost_count {
            self.spoken.insert(id);
        }
        if let Some(arrival) = self.by_id.get(&id)
            && let Some(pending) = self.by_arrival.get_mut(arrival)
        {
            self.idle.remove(arrival);
            (pending.sent, pending.forwarded_at) = (true, None);
        }
    }

    /// Nothing is under way for this command any more: its slot went to another.
    pub(super) fn release(&mut self, id: CommandId) {
        self.idle.extend(self.by_id.get(&id));
    }

    /// Nothing is under way for any of them any more.
    pub(super) fn release_all(&mut self) {
        self.idle.extend(self.by_arrival.keys());
    }

    /// What was handed over before this pulse may be lost: nothing is under way for it any more.
    pub(super) fn release_forwarded(&mut self, before: u64) {
        let old = self.by_arrival.iter().filter(|(_, pending)| pending.forwarded_at.is_some_and(|at| at < before));
        self.idle.extend(old.map(|(arrival, _)| arrival));
    }

    /// Takes for a FORWARD what nothing is under way for.
    pub(super) fn take_idle(&mut self, pulse: u64) -> Vec<Command> {
        let mut commands = Vec::new();
        for arrival in std::mem::take(&mut self.idle) {
            if let Some(pending) = self.by_arrival.get_mut(&arrival) {
                (pending.sent, pending.forwarded_at) = (true, Some(pulse));
                commands.push(pending.command.clone());
            }
        }
        commands
    }

    /// Forgets those that were last asked for before this tick and were never sent, and with `even_sent` all of them.
    pub(super) fn give_up(&mut self, before: u64, even_sent: bool) -> Vec<CommandId> {
        let old = |pending: &&Pending| pending.since <= before && (!pending.sent || even_sent);
        let old: Vec<CommandId> = self.by_arrival.values().filter(old).map(|pending| pending.command.id).collect();
        old.iter().for_each(|id| self.remove(*id));
        old
    }
}

/// Commands that others have handed to a leader. It does not own them: whoever does will hand them over again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Guests {
    queue: VecDeque<Command>,
    ids: BTreeSet<CommandId>,
    bytes: usize,
}

impl Guests {
    pub(super) fn contains(&self, id: CommandId) -> bool {
        self.ids.contains(&id)
    }

    /// Takes a command in; false if there is no room.
    pub(super) fn push(&mut self, command: Command) -> bool {
        let size = command.payload.len();
        let has_room = self.queue.len() < COMMANDS_MAX && self.bytes + size <= COMMANDS_MAX_BYTES;
        if has_room {
            self.bytes += size;
            self.ids.insert(command.id);
            self.queue.push_back(command);
        }
        has_room
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// The one that came first.
    pub(super) fn first(&self) -> Option<&Command> {
        self.queue.front()
    }

    /// Takes the one that came first.
    pub(super) fn pop(&mut self) -> Option<Command> {
        let command = self.queue.pop_front()?;
        self.ids.remove(&command.id);
        self.bytes -= command.payload.len();
        Some(command)
    }

    /// Its outcome is known.
    pub(super) fn remove(&mut self, id: CommandId) {
        if self.ids.remove(&id)
            && let Some(at) = self.queue.iter().position(|command| command.id == id)
            && let Some(command) = self.queue.remove(at)
        {
            self.bytes -= command.payload.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: CommandId = CommandId(3, 1);

    fn command() -> Command {
        Command { id: ID, payload: [].into() }
    }

    #[test]
    fn a_command_that_was_in_an_accept_for_somebody_else_is_never_given_up_as_not_applied() {
        let mut commands = Commands::default();
        commands.proposed(ID);
        assert!(commands.push(command(), 1, false));
        assert_eq!(commands.give_up(100, false), [], "it may be chosen");
        commands.remove(ID);
        assert!(commands.push(command(), 101, false));
        assert_eq!(commands.give_up(200, false), [ID], "its outcome was known, and this is another life of it");
    }
}
