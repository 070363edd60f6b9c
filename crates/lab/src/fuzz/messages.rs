//! The codec, with every kind of value on the network and on disk.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use paxos_kv::choices::Choices;
use paxos_kv::codec::{decode, encode};
use paxos_kv::kv::{KvCommand, StateEntry};
use paxos_kv::net::{ClientReply, ClientRequest, Envelope, Hello, HelloReply, PeerMessage};
use paxos_kv::paxos::{self, AcceptorRecord, ProposerRecord};
use paxos_kv::storage::backup::BackupHeader;
use paxos_kv::two_phase_commit::{self, CoordinatorRecord, ParticipantRecord};

/// A decoded value must be the same after encoding and decoding, and not grow.
pub fn messages(bytes: &[u8]) {
    let mut source = Choices::new(bytes);
    let (kind, bytes) = (source.below(14), source.rest());
    match kind {
        0 => envelope(bytes),
        1 => check_round_trip::<ClientRequest>(bytes),
        2 => check_round_trip::<ClientReply>(bytes),
        3 => check_round_trip::<Hello>(bytes),
        4 => check_round_trip::<HelloReply>(bytes),
        5 => check_round_trip::<paxos::Message>(bytes),
        6 => check_round_trip::<two_phase_commit::CommitMessage>(bytes),
        7 => check_round_trip::<AcceptorRecord>(bytes),
        8 => check_round_trip::<ProposerRecord>(bytes),
        9 => check_round_trip::<CoordinatorRecord>(bytes),
        10 => check_round_trip::<ParticipantRecord>(bytes),
        11 => check_round_trip::<Vec<StateEntry>>(bytes),
        12 => check_round_trip::<BackupHeader>(bytes),
        _ => command(bytes),
    }
}

fn check_round_trip<T: Debug + PartialEq + Serialize + DeserializeOwned>(bytes: &[u8]) {
    let _ = decode_checked::<T>(bytes);
}

/// Decodes a value; None if the bytes are not valid.
fn decode_checked<T: Debug + PartialEq + Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let value: T = decode(bytes).ok()?;
    let again = encode(&value);
    assert!(again.len() <= bytes.len(), "{} bytes became {} bytes", bytes.len(), again.len());
    assert_eq!(decode::<T>(&again).expect("what was decoded can be encoded"), value);
    Some(value)
}

/// A message between servers: what the server checks before it uses the content.
fn envelope(bytes: &[u8]) {
    if let Some(Envelope { message, .. }) = decode_checked(bytes) {
        assert!(!message.name().is_empty());
        assert_eq!(
            message.recipients().is_empty(),
            message == PeerMessage::Keepalive,
            "{} has no recipient",
            message.name()
        );
        // A value in memory may need more bytes than in its encoding.
        assert!(message.size() <= bytes.len() * 80, "{} bytes have weight {}", bytes.len(), message.size());
    }
}

/// A command of the log: decoding must give the same command with the same id.
fn command(bytes: &[u8]) {
    if let Some(sent) = decode_checked::<paxos_kv::paxos::Command>(bytes)
        && let Ok(command) = KvCommand::from_paxos(&sent)
    {
        let again = command.to_paxos();
        assert_eq!(again.id, sent.id);
        assert_eq!(KvCommand::from_paxos(&again).expect("a command decodes to what was encoded"), command);
        let _ = command.is_well_formed();
    }
}
