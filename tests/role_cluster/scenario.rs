//! The language of the scenario files: commands in, plain sentences out.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::hash::Hash;

use goldenscript::{ArgumentConsumer, Context};
use paxos_kv::paxos::{
    AcceptorNotification, AcceptorRecord, AcceptorTraceEvent, Ballot, Command, CommandId, Entry, LearnerNotification,
    LearnerTraceEvent, Message, NackedRequest, Page, Policy, ProposerNotification, ProposerRecord, ProposerRequest,
    ProposerTraceEvent, Slot, SlotRange, StateMachine, Value,
};
use paxos_kv::role::{Action, Input, Role, RoleKind, ServerId, ServerSet, TimerSpec};

use crate::role_cluster::{Cluster, Crash, Packet, PacketContent, Turn, TurnResult};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Maximum number of waves of messages without a time-out; roles that still send after that never stop.
const SETTLE_WAVES: usize = 100;

/// The state machine of the scenarios: a list of names, each taken once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NameList {
    names: Vec<String>,
    applied: BTreeMap<CommandId, Slot>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    Noop,
    Applied,
    Duplicate(Slot),
}

impl StateMachine for NameList {
    type Outcome = Outcome;
    type Query = ();
    type Answer = String;
    type Changes = ();

    fn apply(&mut self, slot: Slot, value: &Value) -> Outcome {
        let Some(id) = value.id() else { return Outcome::Noop };
        if let Some(first) = self.applied.get(&id) {
            return Outcome::Duplicate(*first);
        }
        self.applied.insert(id, slot);
        self.names.push(name(value));
        Outcome::Applied
    }

    fn query(&self, (): &()) -> String {
        if self.names.is_empty() { "nothing".to_string() } else { self.names.join(" ") }
    }

    fn digest(&self) -> u64 {
        self.names.len() as u64
    }

    fn size(&self) -> u64 {
        0
    }

    fn empty(&self) -> NameList {
        NameList::default()
    }

    /// A part is one name.
    fn load_chunk(&mut self, part: &[u8]) -> std::result::Result<(), String> {
        self.names.push(String::from_utf8_lossy(part).into_owned());
        Ok(())
    }

    fn take_delta(&mut self) {}

    fn delta_saved(&mut self) {}

    fn delta_failed(&mut self) {}

    fn result_of(&self, id: CommandId) -> Option<Outcome> {
        self.applied.get(&id).map(|first| Outcome::Duplicate(*first))
    }
}

/// One file at work.
#[derive(Default)]
pub struct Scenario {
    cluster: Option<Cluster<NameList>>,
    reads: u64,
    out: String,
}

/// Which messages on their way a command means.
struct Filter {
    name: Option<String>,
    from: ServerSet,
    to: ServerSet,
    role: Option<RoleKind>,
    slot: Option<Slot>,
    ballot: Option<Ballot>,
    count: usize,
}

impl goldenscript::Runner for Scenario {
    type Command = goldenscript::Command;

    fn run(&mut self, command: &goldenscript::Command, _: &Context) -> Result<String> {
        let mut args = command.consume_args();
        self.command(&command.name, &mut args)?;
        args.reject_next()?;
        Ok(std::mem::take(&mut self.out))
    }
}

impl Scenario {
    /// The commands:
    ///
    /// | command | meaning |
    /// |---|---|
    /// | `cluster 3` | servers s1 to s3 begin; what they say at first is delivered and not shown |
    /// | `cluster 3 led=yes` | ... under a leader, who must be elected first |
    /// | `propose s1 A` | a client asks s1 for command A; `A/B`: two commands, in one turn |
    /// | `read s1` | a client reads at s1 |
    /// | `deliver [PREPARE] [from=s1/s2] [to=s3] [role=acceptor] [slot=1] [ballot=1.1] [count=1]` | those messages arrive, oldest first, one turn each; without a filter all that are on their way now |
    /// | ... `together=yes` | all in one turn of each role |
    /// | ... `crash=before-sync`, `crash=after-sync` | the role's thread ends in that turn; `crash=in-sync/1`: one record of the group is durable |
    /// | `drop ...`, `copy ...` | the same selection is lost, or will arrive once more |
    /// | `settle` | deliver until nothing is on its way |
    /// | `network` | what is on its way |
    /// | `fire s1.proposer attempt` | an armed timer runs out |
    /// | ... `times=3` | and again, so often |
    /// | `gone s1 s2` | s1 notices that its connection from s2 has closed |
    /// | `crash s1.acceptor`, `restart s1.acceptor` | between two turns |
    /// | `forget s1.acceptor` | its disk is wiped: outside of what the protocol allows |
    /// | `say PROMISE from=s2 to=s1 ballot=1.1 ...` | a message made by hand arrives |
    /// | `show s1` | what its roles know |
    fn command(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        match name {
            "cluster" => {
                let count = pos(args)?.parse()?;
                let leads = args.take_key("led").is_some();
                return self.begin(count, if leads { Policy::MultiPaxos } else { Policy::BasicPaxos });
            }
            "propose" => {
                let server = server(&pos(args)?)?;
                let names = pos(args)?;
                writeln!(self.out, "{server} proposer is asked for {}", names.replace('/', " "))?;
                let inputs = names.split('/').map(|name| propose(command(name))).collect();
                let turn = self.cluster()?.at_proposer(server, inputs, Crash::Never);
                self.write_turn(server, turn)?;
            }
            "read" => {
                let server = server(&pos(args)?)?;
                self.reads += 1;
                let token = self.reads;
                writeln!(self.out, "{server} learner is asked for read r{token}")?;
                let turn = self.cluster()?.read(server, token, ());
                self.write_turn(server, turn)?;
            }
            "deliver" => {
                let together = args.take_key("together").is_some();
                let crash = crash(args.take_key("crash"))?;
                let packets = self.take(args)?;
                self.deliver(packets, together, crash)?;
            }
            "drop" => {
                for packet in self.take(args)? {
                    writeln!(self.out, "lost: {}", packet_text(&packet))?;
                }
            }
            "copy" => {
                for packet in self.take(args)? {
                    writeln!(self.out, "will arrive once more: {}", packet_text(&packet))?;
                    self.cluster()?.packets.extend([packet.clone(), packet]);
                }
            }
            "settle" => {
                for _ in 0..SETTLE_WAVES {
                    let packets = self.cluster()?.take_all_packets();
                    self.deliver(packets, false, Crash::Never)?;
                }
                if !self.cluster()?.packets.is_empty() {
                    return Err(format!("messages are still in flight after {SETTLE_WAVES} waves").into());
                }
            }
            "network" => {
                for packet in self.cluster()?.packets.clone() {
                    writeln!(self.out, "{}", packet_text(&packet))?;
                }
            }
            "fire" => {
                let times = args.take_key("times").map_or(Ok(1), |times| times.parse::<usize>())?;
                let (at, timer) = (pos(args)?, pos(args)?);
                for _ in 0..times {
                    self.fire(&at, &timer)?;
                }
            }
            "gone" => {
                let (server, peer) = (server(&pos(args)?)?, server(&pos(args)?)?);
                writeln!(self.out, "{server}'s connection from {peer} closes")?;
                let input = Input::Request(ProposerRequest::PeerDisconnected(peer));
                let turn = self.cluster()?.at_proposer(server, vec![input], Crash::Never);
                self.write_turn(server, turn)?;
            }
            "crash" => {
                let (server, role) = server_role(&pos(args)?)?;
                self.cluster()?.crash(server, role);
                writeln!(self.out, "{server} {} is down", lower(role))?;
            }
            "restart" => {
                let (server, role) = server_role(&pos(args)?)?;
                writeln!(self.out, "{server} {} restarts", lower(role))?;
                let turn = self.cluster()?.start(server, role);
                self.write_turn(server, turn)?;
                self.write_recovered(server, role)?;
            }
            "forget" => {
                let (server, role) = server_role(&pos(args)?)?;
                assert!(role == RoleKind::Acceptor, "only an acceptor has a disk to wipe here");
                self.cluster()?.wipe_acceptor(server);
                writeln!(self.out, "{server} acceptor's disk is wiped")?;
            }
            "say" => {
                let message = message(args)?;
                let (from, to) = (server(&key(args, "from")?)?, server(&key(args, "to")?)?);
                for role in message.recipients() {
                    let what = PacketContent::Message(message.clone());
                    let packet = Packet { from, to, role: *role, what };
                    self.deliver(vec![packet], false, Crash::Never)?;
                }
            }
            "show" => self.show(server(&pos(args)?)?)?,
            _ => return Err(format!("no such command: {name}").into()),
        }
        Ok(())
    }

    fn cluster(&mut self) -> Result<&mut Cluster<NameList>> {
        self.cluster.as_mut().ok_or_else(|| "start with: cluster 3".into())
    }

    /// All roles begin and hear each other once: everybody knows that nothing was applied.
    fn begin(&mut self, count: u8, policy: Policy) -> Result<()> {
        self.cluster = Some(Cluster::new(count, NameList::default()).with_policy(policy));
        for server in self.cluster()?.servers() {
            for role in RoleKind::PAXOS {
                self.cluster()?.start(server, role);
            }
        }
        while !self.cluster()?.packets.is_empty() {
            let packets = self.cluster()?.take_all_packets();
            self.deliver(packets, false, Crash::Never)?;
        }
        self.out.clear();
        Ok(())
    }

    /// Takes the selected messages off the network.
    fn take(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<Vec<Packet>> {
        let mut filter = Filter {
            name: args.next_pos().map(str::to_string),
            from: servers(args.take_key("from"))?,
            to: servers(args.take_key("to"))?,
            role: args.take_key("role").map(|role| role_name(role)).transpose()?,
            slot: args.take_key("slot").map(|slot| slot.parse().map(Slot)).transpose()?,
            ballot: args.take_key("ballot").map(|ballot| ballot.parse()).transpose()?,
            count: args.take_key("count").map_or(Ok(usize::MAX), |count| count.parse())?,
        };
        let packets = self.cluster()?.take_packets(|packet| filter.matches(packet));
        if packets.is_empty() { Err("no such message is in flight".into()) } else { Ok(packets) }
    }

    fn deliver(&mut self, packets: Vec<Packet>, together: bool, crash: Crash) -> Result<()> {
        let mut groups: Vec<Vec<Packet>> = Vec::new();
        for packet in packets {
            match groups.iter_mut().find(|group| together && group[0].to == packet.to && group[0].role == packet.role) {
                Some(group) => group.push(packet),
                None => groups.push(vec![packet]),
            }
        }
        for group in groups {
            let (to, before) = (group[0].to, self.out.len());
            let mut quiet = true;
            for packet in &group {
                let PacketContent::Message(message) = &packet.what else { continue };
                writeln!(
                    self.out,
                    "{to} {} receives {} from {}",
                    lower(packet.role),
                    message_text(message),
                    packet.from
                )?;
                // A learner usually only stores an ACCEPT, and every role only stores a PROGRESS.
                let learner = packet.role == RoleKind::Learner;
                quiet &=
                    matches!(message, Message::Progress { .. }) || learner && matches!(message, Message::Accept { .. });
            }
            let length = self.out.len();
            let turn = self.cluster()?.deliver(group, crash);
            let down = matches!(turn, Turn::Down);
            self.write_turn(to, turn)?;
            if down {
                writeln!(self.out, "    it is down")?;
            } else if self.out.len() == length && quiet {
                self.out.truncate(before);
            } else if self.out.len() == length {
                writeln!(self.out, "    nothing")?;
            }
        }
        Ok(())
    }

    fn fire(&mut self, at: &str, wanted: &str) -> Result<()> {
        let (server, role) = server_role(at)?;
        let node = self.cluster()?.node(server);
        let named = |timer: &str| timer.to_lowercase().starts_with(wanted);
        let timers: Vec<String> = match role {
            RoleKind::Proposer => node.proposer.timers.iter().map(|timer| format!("{timer:?}")).collect(),
            _ => node.learner.timers.iter().map(|timer| format!("{timer:?}")).collect(),
        };
        let n = timers.iter().position(|timer| named(timer)).ok_or_else(|| format!("armed: {timers:?}"))?;
        writeln!(self.out, "{server} {}'s timer {wanted} expires", lower(role))?;
        let before = self.out.len();
        let turn = match role {
            RoleKind::Proposer => self.cluster()?.fire_proposer(server, n, Crash::Never),
            _ => self.cluster()?.fire_learner(server, n, Crash::Never),
        };
        self.write_turn(server, turn)?;
        if self.out.len() == before {
            writeln!(self.out, "    nothing")?;
        }
        Ok(())
    }

    /// Says what a turn did, and lets the proposer hear at once what its own learner applied.
    fn write_turn(&mut self, server: ServerId, turn: Turn<NameList>) -> Result<()> {
        match turn {
            Turn::Acceptor(ran) => self.write_result(&ran, acceptor_record, acceptor_trace, acceptor_notification),
            Turn::Proposer(ran) => self.write_result(&ran, proposer_record, proposer_trace, proposer_notification),
            Turn::Learner(ran) => self.write_result(&ran, |never| match *never {}, learner_trace, learner_notification),
            Turn::Down => {}
        }
        for packet in self.cluster()?.take_packets(|packet| matches!(packet.what, PacketContent::Applied(_))) {
            let before = self.out.len();
            writeln!(self.out, "{server} proposer is notified by its own learner")?;
            let heard = self.out.len();
            let turn = self.cluster()?.deliver(vec![packet], Crash::Never);
            self.write_turn(server, turn)?;
            if self.out.len() == heard {
                self.out.truncate(before);
            }
        }
        Ok(())
    }

    fn write_result<R: Role<Message = Message>>(
        &mut self,
        ran: &TurnResult<R>,
        record: impl Fn(&R::Record) -> String,
        fact: impl Fn(&R::TraceEvent) -> Option<String>,
        outcome: impl Fn(&R::Notification) -> Option<String>,
    ) {
        let mut lines = Vec::new();
        lines.extend(ran.durable.iter().map(|durable| format!("disk: {}", record(durable))));
        lines.extend(ran.lost.iter().map(|lost| format!("lost: {}", record(lost))));
        if ran.crashed {
            lines.push("it crashes and sends nothing".to_string());
        }
        for action in &ran.actions {
            lines.extend(match action {
                Action::Send { to, message } => Some(format!("{} -> {to}", message_text(message))),
                Action::Arm(timer) => timer_text(timer),
                Action::Notify(told) => outcome(told),
                Action::Trace(done) => fact(done),
            });
        }
        for line in lines {
            self.out.push_str("    ");
            self.out.push_str(&line);
            self.out.push('\n');
        }
    }

    /// What the new incarnation of a role recovers.
    fn write_recovered(&mut self, server: ServerId, role: RoleKind) -> Result<()> {
        if role == RoleKind::Acceptor {
            let knows = self.acceptor(server)?;
            writeln!(self.out, "    recovers {knows}")?;
        }
        Ok(())
    }

    fn acceptor(&mut self, server: ServerId) -> Result<String> {
        let Some(acceptor) = &self.cluster()?.node(server).acceptor.role else { return Ok("it is down".to_string()) };
        let accepted =
            acceptor.accepted().iter().map(|(slot, (ballot, value))| format!("{slot}={}@{ballot}", name(value)));
        let accepted: Vec<String> = accepted.collect();
        let accepted = if accepted.is_empty() { "nothing".to_string() } else { accepted.join(" ") };
        Ok(format!("promised {}, accepted {accepted}", acceptor.promised()))
    }

    fn show(&mut self, server: ServerId) -> Result<()> {
        let acceptor = self.acceptor(server)?;
        writeln!(self.out, "{server} acceptor: {acceptor}")?;
        let learner = match &self.cluster()?.node(server).learner.role {
            Some(learner) => format!("applied {}, holds {}", learner.applied(), learner.machine().query(&())),
            None => "it is down".to_string(),
        };
        writeln!(self.out, "{server} learner: {learner}")?;
        Ok(())
    }
}

impl Filter {
    fn matches(&mut self, packet: &Packet) -> bool {
        let PacketContent::Message(message) = &packet.what else { return false };
        let (slot, ballot) = slot_and_ballot(message);
        let takes = self.count > 0
            && self.name.as_ref().is_none_or(|name| message.name() == name)
            && (self.from.is_empty() || self.from.contains(packet.from))
            && (self.to.is_empty() || self.to.contains(packet.to))
            && self.role.is_none_or(|role| role == packet.role)
            && self.slot.is_none_or(|wanted| slot == Some(wanted))
            && self.ballot.is_none_or(|wanted| ballot == Some(wanted));
        self.count -= usize::from(takes);
        takes
    }
}

/// The slot and the ballot that a message speaks of.
fn slot_and_ballot(message: &Message) -> (Option<Slot>, Option<Ballot>) {
    match message {
        Message::Prepare { ballot, .. } | Message::Promise { ballot, .. } | Message::Nack { ballot, .. } => {
            (None, Some(*ballot))
        }
        Message::Truncated { ballot, slot, .. }
        | Message::Accept { ballot, first: slot, .. }
        | Message::Accepted { ballot, slots: SlotRange { first: slot, .. } }
        | Message::Chosen { ballot, slots: SlotRange { first: slot, .. } } => (Some(*slot), Some(*ballot)),
        Message::Heartbeat { ballot } | Message::HeartbeatReply { ballot } | Message::LeaderHint { ballot } => {
            (None, Some(*ballot))
        }
        Message::Fill { slot } | Message::ReadReply { slot, .. } => (Some(*slot), None),
        Message::Snapshot(part) => (Some(part.slot), None),
        Message::FetchSnapshot(part) => (Some(part.slot), None),
        Message::Progress { .. }
        | Message::CatchUp { .. }
        | Message::Entries { .. }
        | Message::Read { .. }
        | Message::Forward { .. }
        | Message::ForwardRefused { .. }
        | Message::PreVote { .. }
        | Message::PreVoteReply { .. } => (None, None),
    }
}

fn message_text(message: &Message) -> String {
    let name = message.name();
    match message {
        Message::Prepare { ballot, from } => format!("{name} {ballot} for slots {from}+"),
        Message::Promise { ballot, page: Page { from, end: to, truncated_below, accepted, corrupt } } => {
            let mut text = format!("{name} {ballot} accepted {}", entries(accepted));
            if let Some(to) = to {
                let _ = write!(text, " in slots {from} to {}", to.previous());
            }
            if truncated_below.0 > 1 {
                let _ = write!(text, ", truncated below slot {truncated_below}");
            }
            for SlotRange { first, last } in corrupt {
                let _ = write!(text, ", slots {first} to {last} corrupt");
            }
            text
        }
        Message::Nack { ballot, refused, promised } => match refused {
            NackedRequest::Prepare(from) => format!("{name} {ballot} for slots {from}+, promised {promised}"),
            NackedRequest::Accept(slot) => format!("{name} {ballot} slot {slot}, promised {promised}"),
        },
        Message::Truncated { ballot, slot, below } => {
            format!("{name} {ballot} slot {slot}, truncated below slot {below}")
        }
        Message::Accept { ballot, first, values } => {
            let last = first.plus(values.len() as u64).previous();
            let values: Vec<String> = values.iter().map(self::name).collect();
            format!("{name} {ballot} {} = {}", slots(SlotRange { first: *first, last }), values.join(" "))
        }
        Message::Accepted { ballot, slots } | Message::Chosen { ballot, slots } => {
            format!("{name} {ballot} {}", self::slots(*slots))
        }
        Message::Progress { applied, .. } => format!("{name} applied {applied}"),
        Message::CatchUp { from } => format!("{name} from slot {from}"),
        Message::Entries { entries, applied } => format!("{name} {}, applied {applied}", self::entries(entries)),
        Message::Read { id } => format!("{name} {}", number(*id)),
        Message::ReadReply { id, slot } => format!("{name} {}, highest slot {slot}", number(*id)),
        Message::Fill { slot } => format!("{name} slot {slot}"),
        Message::Snapshot(part) => format!("{name} {part:?}"),
        Message::FetchSnapshot(part) => format!("{name} chunk {} of slot {}", part.index, part.slot),
        Message::Forward { commands } => {
            format!("{name} {}", commands.iter().map(|command| id_name(command.id)).collect::<Vec<_>>().join(" "))
        }
        Message::ForwardRefused { leader: Some(leader) } => format!("{name}, {leader} leads"),
        Message::ForwardRefused { leader: None } => format!("{name}, no leader"),
        Message::Heartbeat { ballot } | Message::HeartbeatReply { ballot } | Message::LeaderHint { ballot } => {
            format!("{name} {ballot}")
        }
        Message::PreVote { id } => format!("{name} {id}"),
        Message::PreVoteReply { id, hears } => {
            format!("{name} {id}, has {}", if *hears { "a leader" } else { "no leader" })
        }
    }
}

fn slots(SlotRange { first, last }: SlotRange) -> String {
    if first == last { format!("slot {first}") } else { format!("slots {first}-{last}") }
}

/// A number of an incarnation, as incarnation.number.
fn number(id: u128) -> String {
    format!("#{}.{}", id >> 64, id as u64)
}

fn entries(entries: &[Entry]) -> String {
    let entry = |Entry { slot, ballot, value }: &Entry| format!("{slot}={}@{ballot}", name(value));
    match entries.len() {
        0 => "nothing".to_string(),
        1..=8 => entries.iter().map(entry).collect::<Vec<_>>().join(" "),
        more => format!("{} ... {} ({more} slots)", entry(&entries[0]), entry(&entries[more - 1])),
    }
}

fn packet_text(packet: &Packet) -> String {
    let PacketContent::Message(message) = &packet.what else { return String::new() };
    format!("{} from {} to {} {}", message_text(message), packet.from, packet.to, lower(packet.role))
}

fn timer_text<T: TimerSpec>(timer: &T) -> Option<String> {
    let name = format!("{timer:?}");
    // The clocks of the roles tick always.
    if name == "Tick" || name == "Progress" || name == "HeartbeatTick" {
        return None;
    }
    let name = name.split([' ', '{']).next().unwrap_or_default();
    let (from, to) = timer.delay_ms().into_inner();
    Some(if from == to { format!("timer {name} in {to} ms") } else { format!("timer {name} in {from} to {to} ms") })
}

fn acceptor_record(record: &AcceptorRecord) -> String {
    match record {
        AcceptorRecord::Promised(ballot) => format!("promised {ballot}"),
        AcceptorRecord::Accepted(Entry { slot, ballot, value }) => format!("accepted {slot}={}@{ballot}", name(value)),
        AcceptorRecord::Truncated(below) => format!("truncated below slot {below}"),
        AcceptorRecord::Repaired(Entry { slot, ballot, value }) => format!("repaired {slot}={}@{ballot}", name(value)),
        AcceptorRecord::Corrupt(SlotRange { first, last }) => format!("corrupt slots {first} to {last}"),
    }
}

fn proposer_record(ProposerRecord::RoundsReserved(below): &ProposerRecord) -> String {
    format!("rounds below {below} are reserved")
}

fn acceptor_trace(_: &AcceptorTraceEvent) -> Option<String> {
    None // Each is a message too.
}

fn acceptor_notification(AcceptorNotification::Corrupt { slots }: &AcceptorNotification) -> Option<String> {
    Some(format!("requests the chosen values of {slots:?}"))
}

fn proposer_trace(fact: &ProposerTraceEvent) -> Option<String> {
    match fact {
        ProposerTraceEvent::PrepareSent { .. } => None,
        ProposerTraceEvent::Proposed { slot, adopted: Some(ballot), quorum, value, .. } => Some(format!(
            "slot {slot}: adopts {}, accepted at {ballot}, the highest ballot in the promises of {quorum}",
            name(value)
        )),
        ProposerTraceEvent::Proposed { slot, adopted: None, quorum, value, .. } => {
            Some(format!("slot {slot}: no value in the promises of {quorum}, so it proposes {}", name(value)))
        }
        ProposerTraceEvent::Retried { ballot, nacks, answered, next, reason, .. } => {
            let nacks: Vec<String> = nacks.iter().map(|(server, promised)| format!("{server}({promised})")).collect();
            let nacks = if nacks.is_empty() { "none".to_string() } else { nacks.join(" ") };
            Some(format!("gives up {ballot}: {reason:?}, nacks {nacks}, replies {answered}, next round {next}"))
        }
        ProposerTraceEvent::Led { from, ballot, quorum } => {
            Some(format!("leads at {ballot} from slot {from} on, by the promises of {quorum}"))
        }
        ProposerTraceEvent::SteppedDown { ballot, open, why } => {
            Some(format!("stops leading at {ballot}: {why:?}, {open} slots in flight"))
        }
        ProposerTraceEvent::Forwarded { .. } => None,
    }
}

fn proposer_notification(outcome: &ProposerNotification) -> Option<String> {
    match outcome {
        ProposerNotification::NotApplied { id, why } => {
            Some(format!("notifies the client: {} is not applied ({why:?})", id_name(*id)))
        }
        ProposerNotification::Recall(_) => None,
    }
}

fn learner_trace(fact: &LearnerTraceEvent<Outcome>) -> Option<String> {
    match fact {
        LearnerTraceEvent::Chosen { slot, ballot, quorum, .. } => {
            Some(format!("slot {slot} is chosen at {ballot} by {quorum}"))
        }
        LearnerTraceEvent::Learned { slot, value, outcome, .. } => Some(match outcome {
            Outcome::Duplicate(first) => format!("applies slot {slot} = {}: a duplicate of slot {first}", name(value)),
            Outcome::Noop | Outcome::Applied => format!("applies slot {slot} = {}", name(value)),
        }),
        LearnerTraceEvent::Installed { slot, from, .. } => {
            Some(format!("installs the snapshot of slot {slot} from {from}"))
        }
        LearnerTraceEvent::CatchUpRequested { .. } | LearnerTraceEvent::FillRequested { .. } => None,
    }
}

fn learner_notification(outcome: &LearnerNotification<NameList>) -> Option<String> {
    match outcome {
        LearnerNotification::Applied { .. }
        | LearnerNotification::Advanced { .. }
        | LearnerNotification::Counted
        | LearnerNotification::Durable { .. }
        | LearnerNotification::Checkpoint { .. }
        | LearnerNotification::ChunkLoaded(_)
        | LearnerNotification::SnapshotRequested { .. }
        | LearnerNotification::Pinned { .. }
        | LearnerNotification::LeftBehind(_)
        | LearnerNotification::CheckpointLate { .. }
        | LearnerNotification::Installed { .. }
        | LearnerNotification::ResultsFound { .. }
        | LearnerNotification::Repaired { .. } => None,
        LearnerNotification::Fenced { slot, against, .. } => {
            Some(format!("fences itself: its replica diverged from {against} after slot {slot}"))
        }
        LearnerNotification::Answer { token, slot, answer } => {
            Some(format!("answers read r{token} as of slot {slot}: {answer}"))
        }
        LearnerNotification::ReadFailed { token, answered } => {
            Some(format!("read r{token} failed, replies {answered}"))
        }
    }
}

fn lower(role: RoleKind) -> String {
    format!("{role:?}").to_lowercase()
}

/// A command is named by its payload; its id is made of the name.
fn command(name: &str) -> Command {
    let id = name.bytes().fold(0, |id, byte| id << 8 | u64::from(byte));
    Command { id: CommandId::new(1, 0, id), payload: name.as_bytes().into() }
}

fn id_name(id: CommandId) -> String {
    String::from_utf8_lossy(&id.sequence.to_be_bytes()).trim_start_matches('\0').to_string()
}

fn text(command: &Command) -> String {
    String::from_utf8_lossy(&command.payload).into_owned()
}

fn name(value: &Value) -> String {
    match value {
        Value::Noop => "noop".to_string(),
        Value::Command(command) if command.payload.len() > 8 => id_name(command.id),
        Value::Command(command) => text(command),
    }
}

fn value(name: &str) -> Value {
    match name.split_once("-MiB-") {
        _ if name == "noop" => Value::Noop,
        // A large value: its payload is no longer its name.
        Some((mib, name)) => {
            let large = vec![b'.'; mib.parse::<usize>().unwrap_or(1) << 20];
            Value::Command(Command { payload: large.into(), ..command(name) })
        }
        None => Value::Command(command(name)),
    }
}

fn pos(args: &mut ArgumentConsumer<'_>) -> Result<String> {
    Ok(args.next_pos().ok_or("an argument is missing")?.to_string())
}

fn key(args: &mut ArgumentConsumer<'_>, key: &str) -> Result<String> {
    Ok(args.take_key(key).ok_or_else(|| format!("{key}= is missing"))?.to_string())
}

fn server(text: &str) -> Result<ServerId> {
    Ok(ServerId(text.strip_prefix('s').ok_or("a server is s1, s2, ...")?.parse()?))
}

fn servers(text: Option<&str>) -> Result<ServerSet> {
    text.map_or(Ok(ServerSet::NONE), |text| text.split('/').map(server).collect())
}

fn role_name(text: &str) -> Result<RoleKind> {
    RoleKind::PAXOS.into_iter().find(|role| lower(*role) == text).ok_or_else(|| format!("no role {text}").into())
}

fn server_role(text: &str) -> Result<(ServerId, RoleKind)> {
    let (at, role) = text.split_once('.').ok_or("a role is s1.acceptor")?;
    Ok((server(at)?, role_name(role)?))
}

fn crash(text: Option<&str>) -> Result<Crash> {
    Ok(match text {
        None => Crash::Never,
        Some("before-sync") => Crash::InSync(0),
        Some("after-sync") => Crash::AfterSync,
        Some(text) => Crash::InSync(text.strip_prefix("in-sync/").ok_or("crash= what?")?.parse()?),
    })
}

fn propose(command: Command) -> Input<paxos_kv::paxos::Proposer> {
    Input::Request(ProposerRequest::Propose { command, promised_round: 0 })
}

/// A message made by hand, for what a healthy peer would not say now.
fn message(args: &mut ArgumentConsumer<'_>) -> Result<Message> {
    let name = pos(args)?;
    let ballot = |args: &mut ArgumentConsumer<'_>, name: &str| -> Result<Ballot> { Ok(key(args, name)?.parse()?) };
    let slot = |args: &mut ArgumentConsumer<'_>, name: &str| -> Result<Slot> { Ok(Slot(key(args, name)?.parse()?)) };
    Ok(match name.as_str() {
        "PREPARE" => Message::Prepare { ballot: ballot(args, "ballot")?, from: slot(args, "slot")? },
        "PROMISE" => {
            let (from, last) = args.take_key("page").unwrap_or("1-").split_once('-').ok_or("page=1-2")?;
            let last: Option<u64> = if last.is_empty() { None } else { Some(last.parse()?) };
            let page = Page {
                from: Slot(from.parse()?),
                end: last.map(|last| Slot(last + 1)),
                truncated_below: args.take_key("below").map_or(Ok(1), |below| below.parse()).map(Slot)?,
                accepted: parse_entries(args.take_key("accepted"))?,
                corrupt: parse_ranges(args.take_key("corrupt"))?,
            };
            Message::Promise { ballot: ballot(args, "ballot")?, page }
        }
        "NACK" => Message::Nack {
            ballot: ballot(args, "ballot")?,
            refused: NackedRequest::Accept(slot(args, "slot")?),
            promised: ballot(args, "promised")?,
        },
        "TRUNCATED" => Message::Truncated {
            ballot: ballot(args, "ballot")?,
            slot: slot(args, "slot")?,
            below: slot(args, "below")?,
        },
        "ACCEPT" => Message::Accept {
            ballot: ballot(args, "ballot")?,
            first: slot(args, "slot")?,
            values: key(args, "value")?.split('/').map(value).collect(),
        },
        "ACCEPTED" => Message::Accepted { ballot: ballot(args, "ballot")?, slots: run(args)? },
        "CHOSEN" => Message::Chosen { ballot: ballot(args, "ballot")?, slots: run(args)? },
        "HEARTBEAT" => Message::Heartbeat { ballot: ballot(args, "ballot")? },
        "LEADERHINT" => Message::LeaderHint { ballot: ballot(args, "ballot")? },
        "FORWARD" => Message::Forward { commands: key(args, "commands")?.split('/').map(command).collect() },
        "PREVOTE" => Message::PreVote { id: key(args, "id")?.parse()? },
        "PROGRESS" => {
            let digest = args.take_key("digest").map_or(Ok(0), |digest| digest.parse())?;
            Message::Progress { applied: slot(args, "applied")?, digest }
        }
        "CATCHUP" => Message::CatchUp { from: slot(args, "slot")? },
        "ENTRIES" => {
            Message::Entries { entries: parse_entries(args.take_key("entries"))?, applied: slot(args, "applied")? }
        }
        "READ" => Message::Read { id: key(args, "id")?.parse()? },
        "FILL" => Message::Fill { slot: slot(args, "slot")? },
        _ => return Err(format!("no message {name}").into()),
    })
}

/// `slot=7`, and with `last=9` the slots from 7 to 9.
fn run(args: &mut ArgumentConsumer<'_>) -> Result<SlotRange> {
    let first = Slot(key(args, "slot")?.parse()?);
    let last = args.take_key("last").map_or(Ok(first.0), |last| last.parse()).map(Slot)?;
    Ok(SlotRange { first, last })
}

/// `7@3.1@A/8@1.2@noop`
fn parse_entries(text: Option<&str>) -> Result<Vec<Entry>> {
    let entry = |text: &str| -> Result<Entry> {
        let mut parts = text.split('@');
        let mut part = || parts.next().ok_or("an entry is slot@ballot@value");
        Ok(Entry { slot: Slot(part()?.parse()?), ballot: part()?.parse()?, value: value(part()?) })
    };
    text.into_iter().flat_map(|text| text.split('/')).map(entry).collect()
}

/// `4-5`
fn parse_ranges(text: Option<&str>) -> Result<Vec<SlotRange>> {
    let range = |text: &str| -> Result<SlotRange> {
        let (first, last) = text.split_once('-').ok_or("slots are 4-5")?;
        Ok(SlotRange { first: Slot(first.parse()?), last: Slot(last.parse()?) })
    };
    text.into_iter().map(range).collect()
}
