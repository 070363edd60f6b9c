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
        1 => hold::<ClientRequest>(bytes),
        2 => hold::<ClientReply>(bytes),
        3 => hold::<Hello>(bytes),
        4 => hold::<HelloReply>(bytes),
        5 => hold::<paxos::Message>(bytes),
        6 => hold::<two_phase_commit::CommitMessage>(bytes),
        7 => hold::<AcceptorRecord>(bytes),
        8 => hold::<ProposerRecord>(bytes),
        9 => hold::<CoordinatorRecord>(bytes),
        10 => hold::<ParticipantRecord>(bytes),
        11 => hold::<Vec<StateEntry>>(bytes),
        12 => hold::<BackupHeader>(bytes),
        _ => command(bytes),
    }
}

fn hold<T: Debug + PartialEq + Serialize + DeserializeOwned>(bytes: &[u8]) {
    let _ = held::<T>(bytes);
}

/// Decodes a value; None if the bytes are not valid.
fn held<T: Debug + PartialEq + Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let value: T = decode(bytes).ok()?;
    let again = encode(&value);
    assert!(again.len() <= bytes.len(), "{} bytes became {} bytes", bytes.len(), again.len());
    assert_eq!(decode::<T>(&again).expect("what was decoded can be encoded"), value);
    Some(value)
}

/// A message between servers: what the server checks before it uses the content.
fn envelope(bytes: &[u8]) {
    if let Some(Envelope { message, .. }) = held(bytes) {
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
    if let Some(sent) = held::<paxos_kv::paxos::Command>(bytes)
        && let Ok(command) = KvCommand::from_paxos(&sent)
    {
        let again = command.to_paxos();
        assert_eq!(again.id, sent.id);
        assert_eq!(KvCommand::from_paxos(&again).expect("a command decodes to what was encoded"), command);
        let _ = command.is_well_formed();
    }
}
