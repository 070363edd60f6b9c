//! Messages under way, in words: what a frame says, which shape it has, and whether it is of interest.

use paxos_kv::kv::{KvCommand, Op};
use paxos_kv::net::{PeerMessage, Reply, Request};
use paxos_kv::paxos::{Ballot, Entry, Message, NackedRequest, Slot, SlotRange, Value};
use paxos_kv::two_phase_commit::{CommitMessage, Decision, TransactionId, Vote};

use super::choice::message_name;
use crate::sim::by_hand::Carried;

/// What a message says, for a reader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageText {
    /// Its name in capitals.
    pub name: &'static str,
    /// Its shape: `prepare`, `promise`, `accept`, `accepted`, `refused`, `chosen`, `request`, `reply` or `other`.
    pub kind: &'static str,
    /// Its ballot.
    pub ballot: Option<Ballot>,
    /// The slot that it is about.
    pub slot: Option<Slot>,
    /// The value that it carries or reports.
    pub value: Option<String>,
    /// The ballot at which a promise reports the value.
    pub at: Option<Ballot>,
    /// The promise that a refusal names.
    pub promised: Option<Ballot>,
    /// What the sender says, in a sentence or two.
    pub says: String,
    /// It is sent regularly, and folded away.
    pub is_housekeeping: bool,
}

/// The value in a slot, in words: the value of a PUT alone, since keys matter little here.
pub fn value_text(value: &Value) -> String {
    let Value::Command(command) = value else { return "no-op".to_string() };
    match KvCommand::from_paxos(command) {
        Ok(KvCommand::Open { .. }) => "a new session".to_string(),
        Ok(KvCommand::Write { op, .. }) => op_value(&op),
        Err(_) => "unreadable bytes".to_string(),
    }
}

fn op_value(op: &Op) -> String {
    match op {
        Op::Put { value, .. } => text(value),
        Op::Delete { key } => format!("delete {}", text(key)),
    }
}

/// Bytes that an exercise has named.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The request of a client, as in an exercise: `put city Lyon`.
pub fn op_text(op: &Op) -> String {
    match op {
        Op::Put { key, value, .. } => format!("put {} {}", text(key), text(value)),
        Op::Delete { key } => format!("delete {}", text(key)),
    }
}

fn slots_text(SlotRange { first, last }: SlotRange) -> String {
    if first == last { format!("slot {first}") } else { format!("slots {first} to {last}") }
}

impl MessageText {
    /// What this frame says. `from_slot` is the first slot of interest: of earlier ones nothing is said.
    pub fn of(carried: &Carried, from_slot: Slot) -> MessageText {
        let mut shown = match carried {
            Carried::Peer(envelope) => match &envelope.message {
                PeerMessage::Paxos(message) => of_paxos(message, from_slot),
                PeerMessage::TwoPhaseCommit(message) => of_commit(message),
                PeerMessage::Keepalive => {
                    MessageText { says: "I am here.".to_string(), is_housekeeping: true, ..MessageText::default() }
                }
            },
            Carried::Request(request) => of_request(&request.request),
            Carried::Reply(reply) => of_reply(&reply.reply),
        };
        let name = match carried {
            Carried::Peer(envelope) => envelope.message.name(),
            Carried::Request(_) => "REQUEST",
            Carried::Reply(_) => "REPLY",
        };
        shown.name = message_name(name).unwrap_or("HERE");
        if shown.kind.is_empty() {
            shown.kind = "other";
        }
        shown
    }

    /// Name, ballot and value: `ACCEPT 2.1 Lyon`.
    pub fn label(&self) -> String {
        let ballot = self.ballot.map_or(String::new(), |ballot| format!(" {ballot}"));
        let value = self.value.as_ref().map_or(String::new(), |value| format!(" {value}"));
        let at = self.at.map_or(String::new(), |at| format!(" at {at}"));
        let promised = self.promised.map_or(String::new(), |promised| format!(" promised {promised}"));
        format!("{}{ballot}{value}{at}{promised}", self.name)
    }
}

fn of_paxos(message: &Message, from_slot: Slot) -> MessageText {
    match message {
        Message::Prepare { .. }
        | Message::Promise { .. }
        | Message::Nack { .. }
        | Message::Truncated { .. }
        | Message::Accept { .. }
        | Message::Accepted { .. }
        | Message::Chosen { .. } => of_voting(message, from_slot),
        Message::Progress { .. }
        | Message::CatchUp { .. }
        | Message::Entries { .. }
        | Message::Read { .. }
        | Message::ReadReply { .. }
        | Message::Fill { .. }
        | Message::Snapshot(_)
        | Message::FetchSnapshot(_) => of_learning(message),
        Message::Forward { .. }
        | Message::ForwardRefused { .. }
        | Message::Heartbeat { .. }
        | Message::HeartbeatReply { .. }
        | Message::LeaderHint { .. }
        | Message::PreVote { .. }
        | Message::PreVoteReply { .. } => of_leading(message),
    }
}

/// The messages of the two phases.
fn of_voting(message: &Message, from_slot: Slot) -> MessageText {
    let none = MessageText::default;
    match message {
        Message::Prepare { ballot, from } => MessageText {
            kind: "prepare",
            ballot: Some(*ballot),
            slot: Some(*from),
            says: format!("Please promise {ballot}. What have you accepted from slot {from} on?"),
            ..none()
        },
        Message::Promise { ballot, page } => {
            let reported: Vec<&Entry> = page.accepted.iter().filter(|entry| entry.slot >= from_slot).collect();
            let named = reported.iter().map(|Entry { slot, ballot, value }| {
                format!("In slot {slot} I have accepted {} at {ballot}.", value_text(value))
            });
            let named: Vec<String> = named.collect();
            let reports = if named.is_empty() {
                format!("I have accepted nothing from slot {} on.", page.from.max(from_slot))
            } else {
                named.join(" ")
            };
            let first = reported.first();
            MessageText {
                kind: "promise",
                ballot: Some(*ballot),
                slot: Some(first.map_or(page.from, |entry| entry.slot)),
                value: first.map(|entry| value_text(&entry.value)),
                at: first.map(|entry| entry.ballot),
                says: format!("I take part in nothing below {ballot}. {reports}"),
                ..none()
            }
        }
        Message::Nack { ballot, refused, promised } => {
            let (what, slot) = match refused {
                NackedRequest::Prepare(slot) => ("PREPARE", slot),
                NackedRequest::Accept(slot) => ("ACCEPT", slot),
            };
            MessageText {
                kind: "refused",
                ballot: Some(*ballot),
                slot: Some(*slot),
                promised: Some(*promised),
                says: format!("I refuse {what} {ballot}: I have promised {promised}."),
                ..none()
            }
        }
        Message::Truncated { ballot, slot, below } => MessageText {
            kind: "refused",
            ballot: Some(*ballot),
            slot: Some(*slot),
            says: format!("All slots below {below} are chosen, and I no longer keep them."),
            ..none()
        },
        Message::Accept { ballot, first, values } => {
            let named: Vec<String> = values.iter().map(value_text).collect();
            let more = if values.len() > 1 { format!(" and {} more", values.len() - 1) } else { String::new() };
            MessageText {
                kind: "accept",
                ballot: Some(*ballot),
                slot: Some(*first),
                value: named.first().map(|value| format!("{value}{more}")),
                says: format!("Please accept {} from slot {first} on, at {ballot}.", named.join(", ")),
                ..none()
            }
        }
        Message::Accepted { ballot, slots } => MessageText {
            kind: "accepted",
            ballot: Some(*ballot),
            slot: Some(slots.first),
            says: format!("I have accepted {} at {ballot}, and it is on my disk.", slots_text(*slots)),
            ..none()
        },
        Message::Chosen { ballot, slots } => MessageText {
            kind: "chosen",
            ballot: Some(*ballot),
            slot: Some(slots.first),
            says: format!("A quorum has accepted {} at {ballot}: chosen.", slots_text(*slots)),
            ..none()
        },
        _ => none(),
    }
}

/// The messages with which learners and readers catch up.
fn of_learning(message: &Message) -> MessageText {
    let none = MessageText::default;
    match message {
        Message::Progress { applied, .. } => MessageText {
            slot: Some(*applied),
            says: format!("I have applied every slot up to {applied}."),
            is_housekeeping: true,
            ..none()
        },
        Message::CatchUp { from } => MessageText {
            slot: Some(*from),
            says: format!("I lack slot {from}. Please send me what is chosen from there on."),
            ..none()
        },
        Message::Entries { entries, applied } => MessageText {
            kind: "chosen",
            slot: entries.first().map(|entry| entry.slot),
            value: entries.first().map(|entry| value_text(&entry.value)),
            says: format!("Here are {} chosen slots. I have applied every slot up to {applied}.", entries.len()),
            ..none()
        },
        Message::Read { .. } => MessageText {
            says: "A client reads. Which is the highest slot that you have accepted?".to_string(),
            ..none()
        },
        Message::ReadReply { slot, .. } => {
            MessageText { slot: Some(*slot), says: format!("I have accepted nothing above slot {slot}."), ..none() }
        }
        Message::Fill { slot } => MessageText {
            slot: Some(*slot),
            says: format!("A read waits for slot {slot}. Please get every slot up to it chosen."),
            ..none()
        },
        Message::Snapshot(chunk) => MessageText {
            kind: "chosen",
            slot: Some(chunk.slot),
            says: format!("Here is a part of my whole state as of slot {}.", chunk.slot),
            ..none()
        },
        Message::FetchSnapshot(request) => MessageText {
            slot: Some(request.slot),
            says: format!("Please send the next part of your state as of slot {}.", request.slot),
            ..none()
        },
        _ => none(),
    }
}

/// The messages of a stable leader.
fn of_leading(message: &Message) -> MessageText {
    let none = MessageText::default;
    match message {
        Message::Forward { commands } => {
            let values: Vec<String> = commands.iter().map(|one| value_text(&Value::Command(one.clone()))).collect();
            MessageText {
                kind: "request",
                value: values.first().cloned(),
                says: format!("You lead. Please propose {}.", values.join(", ")),
                ..none()
            }
        }
        Message::ForwardRefused { leader } => MessageText {
            kind: "refused",
            ballot: *leader,
            says: "I do not take the commands that you forwarded.".to_string(),
            ..none()
        },
        Message::Heartbeat { ballot } => {
            MessageText { ballot: Some(*ballot), says: format!("I lead at {ballot}."), is_housekeeping: true, ..none() }
        }
        Message::HeartbeatReply { ballot } => {
            MessageText { ballot: Some(*ballot), says: format!("I follow {ballot}."), is_housekeeping: true, ..none() }
        }
        Message::LeaderHint { ballot } => MessageText {
            ballot: Some(*ballot),
            says: format!("{ballot} leads, or will."),
            is_housekeeping: true,
            ..none()
        },
        Message::PreVote { .. } => {
            MessageText { kind: "prepare", says: "I hear no leader. Do you hear one?".to_string(), ..none() }
        }
        Message::PreVoteReply { hears, .. } => MessageText {
            kind: if *hears { "refused" } else { "promise" },
            says: if *hears { "I hear a leader." } else { "I hear no leader either." }.to_string(),
            ..none()
        },
        _ => none(),
    }
}

fn of_commit(message: &CommitMessage) -> MessageText {
    let named = |transaction: &TransactionId| transaction.to_string();
    let none = MessageText::default;
    match message {
        CommitMessage::VoteRequest { transaction, work } => {
            let value = value_text(&Value::Command(work.command.clone()));
            MessageText {
                kind: "prepare",
                says: format!("Transaction {}: can you write {value}?", named(transaction)),
                value: Some(value),
                ..none()
            }
        }
        CommitMessage::Vote { transaction, vote, .. } => match vote {
            Vote::Yes(_) => MessageText {
                kind: "promise",
                says: format!("Yes to transaction {}: I hold its lock until you decide.", named(transaction)),
                ..none()
            },
            Vote::No(_) => {
                MessageText { kind: "refused", says: format!("No to transaction {}.", named(transaction)), ..none() }
            }
        },
        CommitMessage::Decide { transaction, decision } => MessageText {
            kind: if *decision == Decision::Commit { "chosen" } else { "refused" },
            says: match decision {
                Decision::Commit => format!("Commit transaction {}.", named(transaction)),
                Decision::Abort => format!("Abort transaction {}.", named(transaction)),
            },
            ..none()
        },
        CommitMessage::Ack { transaction } => MessageText {
            kind: "accepted",
            says: format!("Transaction {} is applied here.", named(transaction)),
            ..none()
        },
        CommitMessage::Inquire { transaction } => MessageText {
            says: format!("I voted yes on transaction {}. What is decided?", named(transaction)),
            ..none()
        },
        CommitMessage::Answer { transaction, known } => {
            MessageText { says: format!("Of transaction {} I know this: {known:?}.", named(transaction)), ..none() }
        }
    }
}

fn of_request(request: &Request) -> MessageText {
    let (value, says) = match request {
        Request::Open { .. } => (None, "Please open a session.".to_string()),
        Request::Write { op, .. } => (Some(op_value(op)), format!("Please {}.", op_text(op))),
        Request::Get { key } => (None, format!("Please get {}.", text(key))),
        // The clients of an exercise only write and read.
        Request::Status
        | Request::State { .. }
        | Request::Crash { .. }
        | Request::Restart { .. }
        | Request::Cut { .. }
        | Request::Join { .. } => (None, "A request.".to_string()),
    };
    MessageText { kind: "request", value, says, ..MessageText::default() }
}

fn of_reply(reply: &Reply) -> MessageText {
    let none = MessageText::default;
    let kind = "reply";
    match reply {
        Reply::Opened { .. } => MessageText { kind, says: "Your session is open.".to_string(), ..none() },
        Reply::Applied { slot, .. } => {
            MessageText { kind, slot: Some(*slot), says: format!("OK: applied in slot {slot}."), ..none() }
        }
        Reply::Value { slot, value, .. } => {
            let value = value.as_ref().map_or("no value".to_string(), |value| text(value));
            MessageText {
                kind,
                slot: Some(*slot),
                says: format!("The key holds {value}, as of slot {slot}."),
                value: Some(value),
                ..none()
            }
        }
        Reply::NotApplied(_) => {
            MessageText { kind: "refused", says: "Certainly not applied by this try.".to_string(), ..none() }
        }
        Reply::Unknown(_) => {
            MessageText { kind: "refused", says: "The outcome is unknown: it may be applied.".to_string(), ..none() }
        }
        Reply::Status(_) | Reply::Chunk(_) | Reply::Done | Reply::Refused(_) => {
            MessageText { kind, says: "A reply.".to_string(), ..none() }
        }
    }
}
