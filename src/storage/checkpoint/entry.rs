//! The entries of a run: their order, and their bytes.
//!
//! Keys come first, then sessions, then the history. Keys are in the order of the store ([`key_rank`]), so a starting
//! server appends to its tree and never searches in it.
//!
//! ```text
//! kind 1, length of the name 2, length of the body 4, name, body
//! key       name: the key               body: its value and version, as the codec writes them
//! session   name: its id, 8 bytes       body: the whole session; empty if the session has ended
//! history   no name                     body: a number
//! ```

use crate::codec::{self, CodecError};
use crate::kv::{StateEntry, key_rank};
use crate::paxos::PartToken;

/// Length of an entry without name and body, in bytes.
pub(super) const ENTRY_HEAD_BYTES: usize = 7;

/// What an entry describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Key = 1,
    Session = 2,
    History = 3,
}

impl Kind {
    pub(super) fn of(byte: u8) -> Option<Kind> {
        [Kind::Key, Kind::Session, Kind::History].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// The place of an entry in the order of all entries. In one run, no two entries have the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place<'a> {
    pub(super) kind: Kind,
    /// The rank of the key, or the id of the session.
    pub(super) rank: u64,
    /// The key.
    pub(super) key: &'a [u8],
}

impl<'a> Place<'a> {
    /// The place of the first entry of a chunk that begins here.
    pub(super) fn from(token: &'a PartToken) -> Place<'a> {
        match token {
            PartToken::Key(key) => Place::of_key(key),
            PartToken::Session(id) => Place::of_session(*id),
        }
    }

    pub(super) fn of(entry: &'a StateEntry) -> Place<'a> {
        match entry {
            StateEntry::Key { key, .. } => Place::of_key(key),
            StateEntry::Session { id, .. } => Place::of_session(*id),
            StateEntry::History(_) => Place { kind: Kind::History, rank: 0, key: &[] },
        }
    }

    pub(super) fn of_session(id: u64) -> Place<'a> {
        Place { kind: Kind::Session, rank: id, key: &[] }
    }

    fn of_key(key: &'a [u8]) -> Place<'a> {
        Place { kind: Kind::Key, rank: key_rank(key), key }
    }

    /// The place of an entry with this name; None if no such entry has one.
    fn named(kind: Kind, name: &'a [u8]) -> Option<Place<'a>> {
        match kind {
            Kind::Key => Some(Place::of_key(name)),
            Kind::Session => Some(Place::of_session(u64::from_le_bytes(name.try_into().ok()?))),
            Kind::History => name.is_empty().then_some(Place { kind, rank: 0, key: &[] }),
        }
    }
}

/// An entry, as a run holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) place: Place<'a>,
    pub(super) body: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Whether it says that a session has ended.
    pub(super) fn is_end(&self) -> bool {
        self.place.kind == Kind::Session && self.body.is_empty()
    }

    /// Appends its bytes.
    pub(super) fn encode_into(&self, bytes: &mut Vec<u8>) {
        let id = self.place.rank.to_le_bytes();
        let name = match self.place.kind {
            Kind::Key => self.place.key,
            Kind::Session => &id,
            Kind::History => &[],
        };
        bytes.push(self.place.kind as u8);
        bytes.extend_from_slice(&(name.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&(self.body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(self.body);
    }

    /// The entry at the beginning of these bytes, and its length. None if there is none.
    pub(super) fn first_of(bytes: &'a [u8]) -> Option<(Entry<'a>, usize)> {
        let head: &[u8; ENTRY_HEAD_BYTES] = bytes.first_chunk()?;
        let kind = Kind::of(head[0])?;
        let name_end = ENTRY_HEAD_BYTES + u16::from_le_bytes([head[1], head[2]]) as usize;
        let end = name_end.checked_add(u32::from_le_bytes([head[3], head[4], head[5], head[6]]) as usize)?;
        let place = Place::named(kind, bytes.get(ENTRY_HEAD_BYTES..name_end)?)?;
        Some((Entry { place, body: bytes.get(name_end..end)? }, end))
    }

    /// The entry of the state.
    pub(super) fn decode(&self) -> Result<StateEntry, CodecError> {
        Ok(match self.place.kind {
            Kind::Key => StateEntry::Key { key: self.place.key.to_vec(), entry: codec::decode(self.body)? },
            Kind::Session => StateEntry::Session { id: self.place.rank, session: codec::decode(self.body)? },
            Kind::History => StateEntry::History(codec::decode(self.body)?),
        })
    }
}

/// Appends the body of an entry of the state.
pub(super) fn encode_body(entry: &StateEntry, body: &mut Vec<u8>) {
    match entry {
        StateEntry::Key { entry, .. } => codec::encode_into(entry, body),
        StateEntry::Session { session, .. } => codec::encode_into(session, body),
        StateEntry::History(history) => codec::encode_into(history, body),
    }
}

/// The token of the chunk that begins with this entry.
pub(super) fn token_of(place: Place<'_>) -> PartToken {
    match place.kind {
        Kind::Key => PartToken::Key(place.key.to_vec()),
        Kind::Session => PartToken::Session(place.rank),
        // The history comes last.
        Kind::History => PartToken::Session(u64::MAX),
    }
}
