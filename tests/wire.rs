//! The encoding of everything that goes over the wire or onto the disk.
//!
//! The golden bytes pin the format. If a change of a message, a record or a command changes what old bytes mean, a test
//! here fails, and the version of the protocol or the journal must be raised.

#![allow(clippy::unwrap_used)]

use paxos_kv::codec::{CodecError, decode, encode};
use paxos_kv::kv::{self, Op};
use paxos_kv::paxos::{
    AcceptorRecord, Ballot, Command, CommandId, Entry, Message, NackedRequest, Page, ProposerRecord, Slot, SlotRange,
    Value,
};
use paxos_kv::role::ServerId;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

fn ballots() -> impl Strategy<Value = Ballot> {
    (0..=Ballot::LAST_ROUND, 0..=ServerId::MAX).prop_map(|(round, server)| Ballot { round, server: ServerId(server) })
}

fn slots() -> impl Strategy<Value = Slot> {
    (0..=Slot::LAST.0).prop_map(Slot)
}

fn values() -> impl Strategy<Value = Value> {
    let payload = prop::collection::vec(any::<u8>(), 0..300);
    let command = (any::<u64>(), any::<u64>(), payload)
        .prop_map(|(a, b, payload)| Value::Command(Command { id: CommandId::new(a, 0, b), payload: payload.into() }));
    prop_oneof![Just(Value::Noop), command]
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let entry = (slots(), ballots(), values()).prop_map(|(slot, ballot, value)| Entry { slot, ballot, value });
    prop::collection::vec(entry, 0..10)
}

fn messages() -> impl Strategy<Value = Message> {
    let ranges = prop::collection::vec(runs(), 0..4);
    let page = (slots(), prop::option::of(slots()), slots(), entries(), ranges).prop_map(
        |(from, to, truncated_below, accepted, corrupt)| Page { from, end: to, truncated_below, accepted, corrupt },
    );
    let refused = prop_oneof![slots().prop_map(NackedRequest::Prepare), slots().prop_map(NackedRequest::Accept)];
    prop_oneof![
        (ballots(), slots()).prop_map(|(ballot, from)| Message::Prepare { ballot, from }),
        (ballots(), page).prop_map(|(ballot, page)| Message::Promise { ballot, page }),
        (ballots(), refused, ballots()).prop_map(|(ballot, refused, promised)| Message::Nack {
            ballot,
            refused,
            promised
        }),
        (ballots(), slots(), slots()).prop_map(|(ballot, slot, below)| Message::Truncated { ballot, slot, below }),
        (ballots(), slots(), prop::collection::vec(values(), 0..4))
            .prop_map(|(ballot, first, values)| Message::Accept { ballot, first, values }),
        (ballots(), runs()).prop_map(|(ballot, slots)| Message::Accepted { ballot, slots }),
        (ballots(), runs()).prop_map(|(ballot, slots)| Message::Chosen { ballot, slots }),
        (slots(), any::<u64>()).prop_map(|(applied, digest)| Message::Progress { applied, digest }),
        slots().prop_map(|from| Message::CatchUp { from }),
        (entries(), slots()).prop_map(|(entries, applied)| Message::Entries { entries, applied }),
        any::<u128>().prop_map(|id| Message::Read { id }),
        (any::<u128>(), slots()).prop_map(|(id, slot)| Message::ReadReply { id, slot }),
        slots().prop_map(|slot| Message::Fill { slot }),
        prop::collection::vec(values(), 0..4).prop_map(|values| Message::Forward {
            commands: values
                .into_iter()
                .filter_map(|value| match value {
                    Value::Command(command) => Some(command),
                    Value::Noop => None,
                })
                .collect()
        }),
        prop::option::of(ballots()).prop_map(|leader| Message::ForwardRefused { leader }),
        ballots().prop_map(|ballot| Message::Heartbeat { ballot }),
        ballots().prop_map(|ballot| Message::HeartbeatReply { ballot }),
        ballots().prop_map(|ballot| Message::LeaderHint { ballot }),
        any::<u64>().prop_map(|id| Message::PreVote { id }),
        (any::<u64>(), any::<bool>()).prop_map(|(id, hears)| Message::PreVoteReply { id, hears }),
    ]
}

fn runs() -> impl Strategy<Value = SlotRange> {
    (slots(), slots()).prop_map(|(first, last)| SlotRange { first, last })
}

fn commands() -> impl Strategy<Value = kv::KvCommand> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..100);
    let op = prop_oneof![
        (bytes(), bytes(), any::<Option<u64>>()).prop_map(|(key, value, if_version)| Op::Put {
            key,
            value: value.into(),
            if_version
        }),
        bytes().prop_map(|key| Op::Delete { key }),
    ];
    prop_oneof![
        (any::<u128>(), ".{0,20}").prop_map(|(nonce, label)| kv::KvCommand::Open { nonce, label }),
        (1..u64::MAX, any::<u128>(), any::<u64>(), any::<u64>(), ".{0,20}", op).prop_map(
            |(session, nonce, sequence, first_open, label, op)| {
                kv::KvCommand::Write { session, nonce, sequence, first_open, label, op }
            }
        ),
    ]
}

/// There and back, not a byte more, not a byte less.
fn round_trip<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) -> Result<(), TestCaseError> {
    let mut bytes = encode(value);
    prop_assert_eq!(&decode::<T>(&bytes).map_err(|error| TestCaseError::fail(error.to_string()))?, value);
    prop_assert!(decode::<T>(&bytes[..bytes.len() - 1]).is_err());
    bytes.push(0);
    let trailing = matches!(decode::<T>(&bytes), Err(CodecError::Trailing { left: 1, .. }));
    prop_assert!(trailing);
    Ok(())
}

proptest! {
    #[test]
    fn messages_come_back(message in messages()) {
        round_trip(&message)?;
    }

    #[test]
    fn records_come_back(entries in entries(), ballot in ballots(), round in any::<u64>()) {
        round_trip(&AcceptorRecord::Promised(ballot))?;
        for entry in entries {
            round_trip(&AcceptorRecord::Accepted(entry))?;
        }
        round_trip(&ProposerRecord::RoundsReserved(round))?;
    }

    #[test]
    fn commands_come_back(command in commands()) {
        let sent = command.to_paxos();
        round_trip(&sent)?;
        prop_assert_eq!(kv::KvCommand::from_paxos(&sent).unwrap(), command);
        // Under a name of the other kind it is none.
        let other = Command { id: CommandId::new(u64::from(sent.id.session == 0), 1, 1), ..sent };
        prop_assert!(kv::KvCommand::from_paxos(&other).is_err());
    }

    /// Whatever bytes a stranger sends: an error or a value, soon, and no panic.
    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode::<Message>(&bytes);
        let _ = decode::<AcceptorRecord>(&bytes);
        let _ = decode::<ProposerRecord>(&bytes);
        let _ = kv::KvCommand::from_paxos(&Command { id: CommandId::opening(1), payload: bytes.into() });
    }

    /// A healthy message with some bytes changed.
    #[test]
    fn changed_bytes_are_decoded_or_refused(message in messages(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5)) {
        let mut bytes = encode(&message);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = decode::<Message>(&bytes);
    }
}

/// A byte string or list that claims 2^61 elements is refused before memory is taken for it.
#[test]
fn hostile_lengths_are_refused() {
    let long = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0x20];
    let entries = [&[9][..], &long].concat();
    let promise = [&[1, 1, 1, 1, 0, 1, 1][..], &long].concat();
    let payload = [&[4, 1, 1, 1, 1, 1, 0, 0, 0][..], &long].concat();
    let values = [&[4, 1, 1, 1][..], &long].concat();
    for bytes in [entries, promise, payload, values] {
        let error = decode::<Message>(&bytes).unwrap_err();
        assert!(matches!(error, CodecError::Invalid { .. }), "{error}");
    }
    let label = [&[0][..], &long].concat();
    let open = Command { id: CommandId::opening(7), payload: label.into() };
    assert!(kv::KvCommand::from_paxos(&open).is_err());
}

/// A server above 63 has no place in a set of servers: such bytes are refused, and reach no role.
#[test]
fn servers_out_of_range_are_refused() {
    let accepted = |server: u8| [5, 1, server, 1, 1];
    assert!(decode::<Message>(&accepted(63)).is_ok());
    assert!(decode::<Message>(&accepted(64)).is_err());
    assert!(decode::<Message>(&accepted(255)).is_err());
}

/// What roles put into one message at most fits the limit of the decoder, also when it is many small things.
#[test]
fn the_largest_parts_can_be_decoded() {
    let last = Ballot { round: Ballot::LAST_ROUND, server: ServerId(63) };
    let noop = |slot| Entry { slot: Slot(slot), ballot: last, value: Value::Noop };
    let accepted: Vec<Entry> = (Slot::LAST.0 - (1 << 20) / 40..Slot::LAST.0).map(noop).collect();
    let ballot = Ballot::ZERO;
    let promise = Message::Promise {
        ballot,
        page: Page { from: Slot(1), end: None, truncated_below: Slot(1), accepted, corrupt: Vec::new() },
    };
    assert_eq!(decode::<Message>(&encode(&promise)).unwrap(), promise);
    let payload = vec![7; kv::VALUE_MAX_BYTES + kv::KEY_MAX_BYTES + 200];
    let value = Value::Command(Command { id: CommandId::new(1, 0, 2), payload: payload.into() });
    let entries = vec![noop(1), Entry { slot: Slot(2), ballot, value }];
    let message = Message::Entries { entries, applied: Slot(2) };
    assert_eq!(decode::<Message>(&encode(&message)).unwrap(), message);
}

/// The bytes of one value of each kind. (All containers hold things that take a byte at least, and nothing holds
/// itself: a hostile length cannot make a decoder spin or recurse.)
#[test]
fn golden_bytes() {
    let ballot = Ballot { round: 300, server: ServerId(2) };
    let (slot, noop) = (Slot(7), Value::Noop);
    let value = Value::Command(Command { id: CommandId::new(5, 0, 6), payload: b"xyz"[..].into() });
    let entry = Entry { slot, ballot, value: value.clone() };
    let corrupt = vec![SlotRange { first: Slot(3), last: Slot(4) }];
    let (truncated_below, accepted) = (Slot(1), vec![entry.clone()]);
    let page = Page { from: Slot(2), end: Some(Slot(9)), truncated_below, accepted, corrupt };
    let message = |message: Message| hex(&encode(&message));
    let command = |command: kv::KvCommand| hex(&encode(&command.to_paxos()));
    let lines = [
        message(Message::Prepare { ballot, from: slot }),
        message(Message::Promise { ballot, page }),
        message(Message::Nack { ballot, refused: NackedRequest::Prepare(slot), promised: ballot }),
        message(Message::Nack { ballot, refused: NackedRequest::Accept(slot), promised: ballot }),
        message(Message::Truncated { ballot, slot, below: Slot(8) }),
        message(Message::Accept { ballot, first: slot, values: vec![value, noop] }),
        message(Message::Accepted { ballot, slots: SlotRange { first: slot, last: Slot(9) } }),
        message(Message::Chosen { ballot, slots: SlotRange::only(slot) }),
        message(Message::Progress { applied: slot, digest: u64::MAX }),
        message(Message::CatchUp { from: slot }),
        message(Message::Entries { entries: vec![entry.clone()], applied: slot }),
        message(Message::Read { id: 1 << 40 }),
        message(Message::ReadReply { id: 1, slot }),
        message(Message::Fill { slot }),
        message(Message::Forward {
            commands: vec![Command { id: CommandId::new(5, 0, 6), payload: b"xyz"[..].into() }],
        }),
        message(Message::ForwardRefused { leader: Some(ballot) }),
        message(Message::Heartbeat { ballot }),
        message(Message::HeartbeatReply { ballot }),
        message(Message::LeaderHint { ballot }),
        message(Message::PreVote { id: 1 }),
        message(Message::PreVoteReply { id: 1, hears: true }),
        hex(&encode(&AcceptorRecord::Promised(ballot))),
        hex(&encode(&AcceptorRecord::Accepted(entry))),
        hex(&encode(&ProposerRecord::RoundsReserved(1_025))),
        command(kv::KvCommand::Open { nonce: 77, label: "c1-1".into() }),
        command(kv::KvCommand::Write {
            session: 1,
            nonce: u128::MAX,
            sequence: 2,
            first_open: 2,
            label: "c1-5".into(),
            op: Op::Put { key: b"k".to_vec(), value: b"v".to_vec().into(), if_version: Some(3) },
        }),
        command(kv::KvCommand::Write {
            session: 1,
            nonce: u128::MAX,
            sequence: 3,
            first_open: 2,
            label: String::new(),
            op: Op::Delete { key: b"k".to_vec() },
        }),
    ];
    let golden = [
        "00fb2c010207",
        "01fb2c0102020109010107fb2c0102010500060378797a010304",
        "02fb2c01020007fb2c0102",
        "02fb2c01020107fb2c0102",
        "03fb2c01020708",
        "04fb2c01020702010500060378797a00",
        "05fb2c01020709",
        "06fb2c01020707",
        "0707fdffffffffffffffff",
        "0807",
        "090107fb2c0102010500060378797a07",
        "0afd0000000000010000",
        "0b0107",
        "0c07",
        "0d010500060378797a",
        "0e01fb2c0102",
        "0ffb2c0102",
        "10fb2c0102",
        "11fb2c0102",
        "1201",
        "130101",
        "00fb2c0102",
        "0107fb2c0102010500060378797a",
        "00fb0104",
        "004d0006000463312d31",
        "01feffffffffffffffffffffffffffffffff020e01020463312d3500016b01760103",
        "01feffffffffffffffffffffffffffffffff030601020001016b",
    ];
    assert_eq!(lines, golden);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
