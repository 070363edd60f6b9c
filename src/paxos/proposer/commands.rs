//! The commands that wait for their outcome at one proposer: those of its own clients, and at a leader the forwarded
//! ones.
//!
//! [`OwnCommands`] knows for each command whether it is in flight, and whether it was ever in an ACCEPT or a FORWARD.
//! After that, the next proposer that prepares may have to propose it (*Paxos Made Simple*, section 2.2, P2c), so no
//! server may report it as not applied. [`ForwardedQueue`] is a queue that promises the commands' owners nothing.
//! Neither type knows about ballots.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::paxos::{Command, CommandId, Slot, rules};

/// Maximum number of own commands of a proposer, and of forwarded commands at a leader; more are refused.
const COMMANDS_MAX: usize = 1_024;
/// Maximum size of the own commands, in bytes; more are refused.
const COMMANDS_MAX_BYTES: usize = 64 << 20;
/// Maximum size of the forwarded commands at a leader, in bytes.
const FORWARDED_QUEUE_MAX_BYTES: usize = 16 << 20;
/// Maximum number of own commands that are forwarded to a leader and not applied. More would only wait in the leader's
/// queue, on its links and in its mailbox.
const FORWARDS_IN_FLIGHT_MAX: usize = 256;
/// Maximum size of these commands, in bytes; a single larger command is forwarded alone.
const FORWARDS_IN_FLIGHT_MAX_BYTES: usize = 4 << 20;
/// A command is forwarded again more than this many heartbeat ticks later: after about 200 ms.
const FORWARD_TIMEOUT_TICKS: u64 = 6;
/// Maximum number of times that the time before a repeated FORWARD to the same leader doubles. On a busy link the first
/// copy is still in flight, and each further copy waits behind it.
const FORWARD_TIMEOUT_DOUBLINGS_MAX: u32 = 5;
// A leader has room for what four followers forward.
const _: () = assert!(
    4 * FORWARDS_IN_FLIGHT_MAX_BYTES <= FORWARDED_QUEUE_MAX_BYTES && 4 * FORWARDS_IN_FLIGHT_MAX <= COMMANDS_MAX
);

/// Maximum number of command ids that a proposer remembers as put into an ACCEPT, whichever server owns them. If more
/// are not applied, the proposer no longer reports any command as certainly not applied.
const MAYBE_PROPOSED_MAX: usize = 16_384;
/// Number of these ids that are also remembered after their outcome: a request that arrives again late is not a new
/// one.
const COMPLETED_MAX: usize = 4_096;

/// A command that waits for its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PendingCommand {
    command: Command,
    /// The tick at which a client last asked for it.
    since: u64,
    /// In this incarnation it was in an ACCEPT or a FORWARD: any proposer may get it chosen at any time.
    sent: bool,
    /// When it was forwarded to a leader; the FORWARD may be lost.
    forwarded: Option<ForwardedAt>,
    /// How often it was forwarded to this leader.
    times: u32,
}

/// The time of a FORWARD, and where its effect can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ForwardedAt {
    /// The heartbeat tick of the FORWARD.
    at: u64,
    /// If the FORWARD was not lost, the command is probably in a slot up to this one. `None` until the time before a
    /// repeated FORWARD is over.
    due: Option<Slot>,
}

/// The commands of a proposer's own clients, in order of arrival.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct OwnCommands {
    by_arrival: BTreeMap<u64, PendingCommand>,
    by_id: BTreeMap<CommandId, u64>,
    /// Commands that are not in flight: neither in a proposal nor in a FORWARD.
    unassigned: BTreeSet<u64>,
    bytes: usize,
    arrivals: u64,
    /// Commands that were in an ACCEPT of this incarnation, perhaps forwarded or adopted ones, and are not applied. If
    /// a client asks here for one of them later, it may be chosen all the same.
    maybe_proposed: BTreeSet<CommandId>,
    /// Some ids did not fit and are not remembered.
    has_forgotten_ids: bool,
    /// Commands that were sent in this incarnation and whose outcome is known.
    settled: CompletedIds,
}

impl OwnCommands {
    pub(super) fn is_empty(&self) -> bool {
        self.by_arrival.is_empty()
    }

    pub(super) fn contains(&self, id: CommandId) -> bool {
        self.by_id.contains_key(&id)
    }

    /// The ids of all waiting commands.
    pub(super) fn ids(&self) -> Vec<CommandId> {
        self.by_id.keys().copied().collect()
    }

    /// The command that has waited longest.
    pub(super) fn oldest(&self) -> Option<&Command> {
        self.by_arrival.values().next().map(|pending| &pending.command)
    }

    /// Notes a repeated request. Returns true if the command is waiting here.
    pub(super) fn refresh(&mut self, id: CommandId, tick: u64) -> bool {
        let pending = self.by_id.get(&id).and_then(|arrival| self.by_arrival.get_mut(arrival));
        pending.map(|pending| pending.since = tick).is_some()
    }

    /// Adds a command; returns false if there is no room. `proposed` means that the command is in an ACCEPT already.
    pub(super) fn push(&mut self, command: Command, tick: u64, proposed: bool) -> bool {
        let size = command.payload.len();
        if self.by_arrival.len() >= COMMANDS_MAX || self.bytes + size > COMMANDS_MAX_BYTES {
            return false;
        }
        self.arrivals += 1;
        self.bytes += size;
        self.by_id.insert(command.id, self.arrivals);
        if !proposed {
            self.unassigned.insert(self.arrivals);
        }
        let sent = proposed || self.has_forgotten_ids || self.was_sent(command.id);
        let pending = PendingCommand { command, since: tick, sent, forwarded: None, times: 0 };
        self.by_arrival.insert(self.arrivals, pending);
        true
    }

    /// Whether the command was in an ACCEPT of this incarnation, or its outcome arrived after it was sent.
    fn was_sent(&self, id: CommandId) -> bool {
        self.maybe_proposed.contains(&id) || self.settled.ids.contains(&id)
    }

    /// Removes a command whose outcome is known.
    pub(super) fn remove(&mut self, id: CommandId) {
        let was_sent = self.maybe_proposed.remove(&id);
        let pending = self.by_id.remove(&id).and_then(|arrival| {
            self.unassigned.remove(&arrival);
            self.by_arrival.remove(&arrival)
        });
        if let Some(pending) = &pending {
            self.bytes -= pending.command.payload.len();
        }
        if was_sent || pending.is_some_and(|pending| pending.sent) {
            self.settled.add(id);
        }
    }

    /// Number of commands that are not in flight.
    pub(super) fn unassigned(&self) -> usize {
        self.unassigned.len()
    }

    /// The oldest command that is not in flight.
    pub(super) fn next_idle(&self) -> Option<&Command> {
        self.unassigned.first().and_then(|arrival| self.by_arrival.get(arrival)).map(|pending| &pending.command)
    }

    /// Notes that a command is in an ACCEPT, for whatever reason.
    pub(super) fn proposed(&mut self, id: CommandId) {
        self.has_forgotten_ids |= self.maybe_proposed.len() >= MAYBE_PROPOSED_MAX && !self.maybe_proposed.contains(&id);
        if !self.has_forgotten_ids {
            self.maybe_proposed.insert(id);
        }
        if let Some(arrival) = self.by_id.get(&id)
            && let Some(pending) = self.by_arrival.get_mut(arrival)
        {
            self.unassigned.remove(arrival);
            (pending.sent, pending.forwarded) = (true, None);
        }
    }

    /// Notes that this command is no longer in flight: its slot went to another command.
    pub(super) fn unassign(&mut self, id: CommandId) {
        self.unassigned.extend(self.by_id.get(&id));
    }

    /// Marks all commands as not in flight.
    pub(super) fn release_all(&mut self) {
        self.unassigned.extend(self.by_arrival.keys());
        self.by_arrival.values_mut().for_each(|pending| (pending.forwarded, pending.times) = (None, 0));
    }

    /// Releases forwarded commands that are probably lost. A FORWARD may be lost, or its outcome not yet applied here,
    /// after [`FORWARD_TIMEOUT_TICKS`]; each repetition doubles this time. The command would then be in a slot up to
    /// `known`, which others have applied. When these slots are `applied` here and the command still waits, it is no
    /// longer in flight.
    pub(super) fn release_forwarded(&mut self, now: u64, known: Slot, applied: Slot) {
        for (arrival, pending) in &mut self.by_arrival {
            let patience = FORWARD_TIMEOUT_TICKS << pending.times.saturating_sub(1).min(FORWARD_TIMEOUT_DOUBLINGS_MAX);
            if let Some(forwarded) = pending.forwarded.as_mut().filter(|forwarded| forwarded.at + patience < now)
                && *forwarded.due.get_or_insert(known) <= applied
            {
                pending.forwarded = None;
                self.unassigned.insert(*arrival);
            }
        }
    }

    /// Takes the commands for a FORWARD: those not in flight, as far as the limits on forwarded commands allow.
    pub(super) fn take_idle(&mut self, tick: u64) -> Vec<Command> {
        let mut commands = Vec::new();
        if self.unassigned.is_empty() {
            return commands;
        }
        let forwarded = self.by_arrival.values().filter(|pending| pending.forwarded.is_some());
        let sizes = forwarded.map(|pending| pending.command.payload.len());
        let (mut count, mut bytes) = sizes.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size));
        while let Some(arrival) = self.unassigned.first().copied() {
            if let Some(pending) = self.by_arrival.get_mut(&arrival) {
                let size = pending.command.payload.len();
                if count >= FORWARDS_IN_FLIGHT_MAX || (count > 0 && bytes + size > FORWARDS_IN_FLIGHT_MAX_BYTES) {
                    break;
                }
                (count, bytes) = (count + 1, bytes + size);
                (pending.sent, pending.forwarded) = (true, Some(ForwardedAt { at: tick, due: None }));
                pending.times += 1;
                commands.push(pending.command.clone());
            }
            self.unassigned.remove(&arrival);
        }
        commands
    }

    /// Drops and returns the commands that were never sent and were last asked for at or before the tick `before`.
    pub(super) fn expire(&mut self, before: u64) -> Vec<CommandId> {
        let old = |pending: &&PendingCommand| pending.since <= before && rules::is_certainly_not_applied(pending.sent);
        let old: Vec<CommandId> = self.by_arrival.values().filter(old).map(|pending| pending.command.id).collect();
        old.iter().for_each(|id| self.remove(*id));
        old
    }
}

/// The latest commands that were sent and whose outcome is known: they must never be reported as not applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct CompletedIds {
    ids: BTreeSet<CommandId>,
    by_age: VecDeque<CommandId>,
}

impl CompletedIds {
    fn add(&mut self, id: CommandId) {
        if self.ids.insert(id) {
            self.by_age.push_back(id);
        }
        if self.by_age.len() > COMPLETED_MAX
            && let Some(oldest) = self.by_age.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}

/// Commands that others have forwarded to a leader. The leader does not own them: their owners forward them again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct ForwardedQueue {
    queue: VecDeque<Command>,
    ids: BTreeSet<CommandId>,
    bytes: usize,
}

impl ForwardedQueue {
    pub(super) fn contains(&self, id: CommandId) -> bool {
        self.ids.contains(&id)
    }

    /// Adds a command; returns false if there is no room.
    pub(super) fn push(&mut self, command: Command) -> bool {
        let size = command.payload.len();
        let has_space = self.queue.len() < COMMANDS_MAX && self.bytes + size <= FORWARDED_QUEUE_MAX_BYTES;
        if has_space {
            self.bytes += size;
            self.ids.insert(command.id);
            self.queue.push_back(command);
        }
        has_space
    }

    /// Number of queued commands.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// The first command of the queue.
    pub(super) fn first(&self) -> Option<&Command> {
        self.queue.front()
    }

    /// Takes the first command of the queue.
    pub(super) fn pop(&mut self) -> Option<Command> {
        let command = self.queue.pop_front()?;
        self.ids.remove(&command.id);
        self.bytes -= command.payload.len();
        Some(command)
    }

    /// Removes a command whose outcome is known.
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

    const ID: CommandId = CommandId::new(3, 0, 1);

    fn command() -> Command {
        Command { id: ID, payload: [].into() }
    }

    #[test]
    fn command_adopted_from_another_proposer_is_never_reported_not_applied() {
        let mut commands = OwnCommands::default();
        commands.proposed(ID);
        assert!(commands.push(command(), 1, false));
        assert_eq!(commands.expire(100), [], "it may be chosen");
        commands.remove(ID);
        assert!(commands.push(command(), 101, false), "a late copy of the request");
        assert_eq!(commands.expire(200), [], "it is applied");
    }

    #[test]
    fn late_copy_of_a_forwarded_command_is_never_reported_not_applied() {
        let mut commands = OwnCommands::default();
        assert!(commands.push(command(), 1, false));
        assert_eq!(commands.take_idle(1), [command()]);
        commands.remove(ID);
        assert!(commands.push(command(), 101, false));
        assert_eq!(commands.expire(200), [], "it is applied");
    }

    #[test]
    fn forwarded_command_is_sent_again_when_its_outcome_is_overdue() {
        let mut commands = OwnCommands::default();
        assert!(commands.push(command(), 1, false));
        assert_eq!(commands.take_idle(10), [command()]);
        commands.release_forwarded(16, Slot(7), Slot(7));
        assert_eq!(commands.next_idle(), None, "it has not had its time");
        commands.release_forwarded(17, Slot(8), Slot(7));
        assert_eq!(commands.next_idle(), None, "it may be in slot 8");
        commands.release_forwarded(18, Slot(20), Slot(8));
        assert_eq!(
            commands.next_idle(),
            Some(&command()),
            "its outcome is not visible, and a server that is always behind still sends again"
        );
    }

    #[test]
    fn command_is_forwarded_again_to_the_same_leader_after_twice_the_time_and_to_another_at_once() {
        let mut commands = OwnCommands::default();
        assert!(commands.push(command(), 1, false));
        let forwarded = |commands: &mut OwnCommands, ticks: std::ops::Range<u64>| -> Vec<u64> {
            let look = |tick: &u64| {
                commands.release_forwarded(*tick, Slot(7), Slot(7));
                !commands.take_idle(*tick).is_empty()
            };
            ticks.filter(look).collect()
        };
        assert_eq!(forwarded(&mut commands, 0..100), [0, 7, 20, 45, 94], "one tick more than 6, 12, 24 and 48 later");
        let most = forwarded(&mut commands, 100..1_000);
        assert!(
            most.windows(2)
                .skip(1)
                .all(|two| two[1] - two[0] == (FORWARD_TIMEOUT_TICKS << FORWARD_TIMEOUT_DOUBLINGS_MAX) + 1),
            "{most:?}"
        );
        commands.release_all();
        assert_eq!(forwarded(&mut commands, 1_000..1_010), [1_000, 1_007], "the next leader does not have it");
    }

    #[test]
    fn command_that_was_never_sent_expires_however_often_it_arrives() {
        let mut commands = OwnCommands::default();
        for tick in [1, 101] {
            assert!(commands.push(command(), tick, false));
            assert_eq!(commands.expire(tick), [ID]);
        }
    }

    #[test]
    fn latest_completed_ids_are_kept() {
        let mut settled = CompletedIds::default();
        (0..COMPLETED_MAX as u64 + 2).for_each(|sequence| settled.add(CommandId::new(3, 0, sequence)));
        assert_eq!((settled.ids.len(), settled.by_age.len()), (COMPLETED_MAX, COMPLETED_MAX));
        assert!(!settled.ids.contains(&CommandId::new(3, 0, 1)) && settled.ids.contains(&CommandId::new(3, 0, 2)));
    }

    fn sized(sequence: u64, bytes: usize) -> Command {
        Command { id: CommandId::new(4, 0, sequence), payload: vec![0; bytes].into() }
    }

    #[test]
    fn proposer_keeps_at_most_n_commands_and_n_bytes() {
        let mut commands = OwnCommands::default();
        assert!((1..=COMMANDS_MAX as u64).all(|sequence| commands.push(sized(sequence, 1), 1, false)));
        assert!(!commands.push(sized(0, 0), 1, false), "one more");
        commands.remove(CommandId::new(4, 0, 7));
        assert!(commands.push(sized(0, 0), 1, false));

        let mut commands = OwnCommands::default();
        let half = COMMANDS_MAX_BYTES / 2;
        assert!(commands.push(sized(1, half), 1, false) && commands.push(sized(2, half), 1, false));
        assert!(!commands.push(sized(3, 1), 1, false), "one byte more");
        commands.remove(CommandId::new(4, 0, 1));
        assert!(!commands.push(sized(3, half + 1), 1, false) && commands.push(sized(3, half), 1, false));
    }

    #[test]
    fn leader_keeps_as_many_forwarded_commands() {
        let mut forwarded_queue = ForwardedQueue::default();
        assert!((1..=COMMANDS_MAX as u64).all(|sequence| forwarded_queue.push(sized(sequence, 1))));
        assert!(!forwarded_queue.push(sized(0, 0)), "one more");
        forwarded_queue.remove(CommandId::new(4, 0, 7));
        assert!(forwarded_queue.push(sized(0, 0)) && !forwarded_queue.push(sized(7, 0)));

        let (mut forwarded_queue, half) = (ForwardedQueue::default(), FORWARDED_QUEUE_MAX_BYTES / 2);
        for _ in 0..3 {
            assert!(forwarded_queue.push(sized(1, half)) && forwarded_queue.push(sized(2, half)));
            assert!(!forwarded_queue.push(sized(3, 1)), "one byte more");
            assert_eq!(forwarded_queue.pop().map(|first| first.id), Some(CommandId::new(4, 0, 1)));
            assert!(!forwarded_queue.push(sized(3, half + 1)) && forwarded_queue.push(sized(3, half)));
            forwarded_queue.remove(CommandId::new(4, 0, 2));
            assert!(!forwarded_queue.push(sized(4, half + 1)));
            forwarded_queue.remove(CommandId::new(4, 0, 3));
        }
    }

    #[test]
    fn forward_carries_at_most_n_commands_and_n_bytes() {
        let mut commands = OwnCommands::default();
        (1..=FORWARDS_IN_FLIGHT_MAX as u64 + 5)
            .for_each(|sequence| assert!(commands.push(sized(sequence, 1), 1, false)));
        assert_eq!(
            (commands.take_idle(1).len(), commands.take_idle(1).len(), commands.unassigned()),
            (FORWARDS_IN_FLIGHT_MAX, 0, 5)
        );
        (1..=2).for_each(|sequence| commands.remove(CommandId::new(4, 0, sequence)));
        assert_eq!((commands.take_idle(1).len(), commands.unassigned()), (2, 3), "as many as are completed");
        commands.release_all();
        assert_eq!(commands.take_idle(1).len(), FORWARDS_IN_FLIGHT_MAX, "the next leader is handed the oldest first");

        let mut commands = OwnCommands::default();
        let sizes =
            [FORWARDS_IN_FLIGHT_MAX_BYTES + 1, 1, FORWARDS_IN_FLIGHT_MAX_BYTES / 2, FORWARDS_IN_FLIGHT_MAX_BYTES / 2];
        (1..).zip(sizes).for_each(|(sequence, size)| assert!(commands.push(sized(sequence, size), 1, false)));
        assert_eq!(commands.take_idle(1).len(), 1, "a larger one is sent alone");
        commands.remove(CommandId::new(4, 0, 1));
        assert_eq!(commands.take_idle(1).len(), 2);
        commands.remove(CommandId::new(4, 0, 3));
        assert_eq!(commands.take_idle(1).len(), 1);
    }

    #[test]
    fn proposer_that_dropped_ids_never_reports_not_applied() {
        let mut commands = OwnCommands::default();
        (0..MAYBE_PROPOSED_MAX as u64).for_each(|sequence| commands.proposed(CommandId::new(9, 0, sequence)));
        commands.proposed(CommandId::new(9, 0, 5));
        assert!(commands.push(sized(1, 0), 1, false));
        assert_eq!(commands.expire(1), [CommandId::new(4, 0, 1)], "all have space, and this id is not among them");
        commands.proposed(CommandId::new(9, 0, u64::MAX));
        assert!(commands.push(sized(2, 0), 1, false));
        assert_eq!(commands.expire(1), [], "it may be any");
        commands.proposed(CommandId::new(9, 0, 5));
        assert!(commands.push(sized(3, 0), 1, false));
        assert_eq!(commands.expire(1), [], "nor later");
    }
}
