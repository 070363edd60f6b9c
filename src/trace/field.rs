//! Fields: the `key=value` part of a line, written and read back.

use std::fmt::{self, Formatter};
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::quoted::{QuotedText, closing_quote};
use crate::paxos::{Ballot, NackedRequest, Slot};
use crate::role::{ServerId, ServerSet};
use crate::two_phase_commit::TransactionId;

/// A field of an event.
pub trait Field: Sized {
    /// Writes ` key=value`, or nothing if the field has no value.
    fn write(&self, key: &str, to: &mut Formatter<'_>) -> fmt::Result;

    /// Reads what [`Field::write`] wrote.
    fn read(key: &'static str, from: &mut Fields<'_>) -> Result<Self, FieldError>;
}

/// A value after `key=`.
pub trait FieldValue: Sized {
    /// Writes the value.
    fn print(&self, to: &mut Formatter<'_>) -> fmt::Result;

    /// Reads the value back.
    fn parse(text: &str) -> Option<Self>;
}

/// Why the fields of a line cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// A field that the event always has is absent.
    #[error("the field {0}= is missing or out of order")]
    Missing(&'static str),
    /// A field holds a text that its type does not allow.
    #[error("invalid value: {key}={value}")]
    Invalid {
        /// The key of the field.
        key: &'static str,
        /// The text after the `=`.
        value: String,
    },
}

/// The fields of a line that are not read yet.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a str,
}

impl<'a> Fields<'a> {
    /// Fields from this text, in print order.
    pub fn new(text: &'a str) -> Fields<'a> {
        Fields { rest: text.trim_start_matches(' ') }
    }

    /// Takes the next field's value if the field has this key.
    pub fn take(&mut self, key: &str) -> Option<&'a str> {
        let value = self.rest.strip_prefix(key)?.strip_prefix('=')?;
        let quoted = value.strip_prefix('"').and_then(|quoted| Some(closing_quote(quoted)? + 2)).unwrap_or(0);
        let end = value[quoted..].find(' ').map_or(value.len(), |space| quoted + space);
        self.rest = value[end..].trim_start_matches(' ');
        Some(&value[..end])
    }

    /// The text after the last field taken.
    pub fn rest(&self) -> &'a str {
        self.rest
    }
}

impl<T: FieldValue> Field for T {
    fn write(&self, key: &str, to: &mut Formatter<'_>) -> fmt::Result {
        write!(to, " {key}=")?;
        self.print(to)
    }

    fn read(key: &'static str, from: &mut Fields<'_>) -> Result<T, FieldError> {
        let value = from.take(key).ok_or(FieldError::Missing(key))?;
        T::parse(value).ok_or_else(|| FieldError::Invalid { key, value: value.into() })
    }
}

/// An optional field, omitted when it has no value.
impl<T: FieldValue> Field for Option<T> {
    fn write(&self, key: &str, to: &mut Formatter<'_>) -> fmt::Result {
        self.as_ref().map_or(Ok(()), |value| value.write(key, to))
    }

    fn read(key: &'static str, from: &mut Fields<'_>) -> Result<Option<T>, FieldError> {
        let Some(value) = from.take(key) else { return Ok(None) };
        T::parse(value).map(Some).ok_or_else(|| FieldError::Invalid { key, value: value.into() })
    }
}

/// Types whose `FromStr` reads back what `Display` wrote. A second spelling of the same value (`07`) is rejected when
/// the whole line is written again and compared.
macro_rules! displayed {
    ($($type:ty),*) => {$(
        impl FieldValue for $type {
            fn print(&self, to: &mut Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, to)
            }

            fn parse(text: &str) -> Option<$type> {
                <$type>::from_str(text).ok()
            }
        }
    )*};
}

displayed!(u8, u32, u64, Ballot, SocketAddr, TransactionId);

impl FieldValue for QuotedText {
    fn print(&self, to: &mut Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, to)
    }

    fn parse(text: &str) -> Option<QuotedText> {
        QuotedText::parse(text)
    }
}

impl FieldValue for Slot {
    fn print(&self, to: &mut Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, to)
    }

    fn parse(text: &str) -> Option<Slot> {
        text.parse().ok().map(Slot)
    }
}

impl FieldValue for ServerId {
    fn print(&self, to: &mut Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, to)
    }

    fn parse(text: &str) -> Option<ServerId> {
        text.strip_prefix('s')?.parse().ok().map(ServerId).filter(|server| server.0 <= ServerId::MAX)
    }
}

/// `s1,s2,s5`, or `none`.
impl FieldValue for ServerSet {
    fn print(&self, to: &mut Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, to)
    }

    fn parse(text: &str) -> Option<ServerSet> {
        parse_list(text, ',', ServerId::parse).map(|servers| servers.into_iter().collect())
    }
}

/// `7+` for a PREPARE of all slots from 7, `7` for an ACCEPT in slot 7.
impl FieldValue for NackedRequest {
    fn print(&self, to: &mut Formatter<'_>) -> fmt::Result {
        match self {
            NackedRequest::Prepare(slot) => SlotFrom(*slot).print(to),
            NackedRequest::Accept(slot) => slot.print(to),
        }
    }

    fn parse(text: &str) -> Option<NackedRequest> {
        match SlotFrom::parse(text) {
            Some(SlotFrom(slot)) => Some(NackedRequest::Prepare(slot)),
            None => Slot::parse(text).map(NackedRequest::Accept),
        }
    }
}

/// All slots from this one on, printed `7+`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotFrom(pub Slot);

impl FieldValue for SlotFrom {
    fn print(&self, to: &mut Formatter<'_>) -> fmt::Result {
        write!(to, "{}+", self.0)
    }

    fn parse(text: &str) -> Option<SlotFrom> {
        Slot::parse(text.strip_suffix('+')?).map(SlotFrom)
    }
}

/// All slots from one on, printed `7+`, or the slots of a range, printed `7-12`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotSpan {
    /// First slot of the range.
    pub first: Slot,
    /// Last slot of the range; None if it is unbounded.
    pub last: Option<Slot>,
}

impl FieldValue for SlotSpan {
    fn print(&self, to: &mut Formatter<'_>) -> fmt::Result {
        match self.last {
            None => write!(to, "{}+", self.first),
            Some(last) => write!(to, "{}-{last}", self.first),
        }
    }

    fn parse(text: &str) -> Option<SlotSpan> {
        if let Some(first) = text.strip_suffix('+') {
            return Some(SlotSpan { first: Slot::parse(first)?, last: None });
        }
        let (first, last) = text.split_once('-')?;
        let (first, last) = (Slot::parse(first)?, Slot::parse(last)?);
        (first <= last).then_some(SlotSpan { first, last: Some(last) })
    }
}

/// A ballot, or `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MaybeBallot(pub Option<Ballot>);

impl From<Ballot> for MaybeBallot {
    /// [`Ballot::ZERO`] means that no ballot is promised yet.
    fn from(ballot: Ballot) -> MaybeBallot {
        MaybeBallot(Some(ballot).filter(|ballot| *ballot != Ballot::ZERO))
    }
}

impl FieldValue for MaybeBallot {
    fn print(&self, to: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(ballot) => ballot.print(to),
            None => to.write_str("none"),
        }
    }

    fn parse(text: &str) -> Option<MaybeBallot> {
        if text == "none" {
            Some(MaybeBallot(None))
        } else {
            Ballot::parse(text).map(|ballot| MaybeBallot(Some(ballot)))
        }
    }
}

/// Short name of a data directory in lines: `81c2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskName(pub u16);

impl FieldValue for DiskName {
    fn print(&self, to: &mut Formatter<'_>) -> fmt::Result {
        write!(to, "{:04x}", self.0)
    }

    fn parse(text: &str) -> Option<DiskName> {
        u16::from_str_radix(text, 16).ok().map(DiskName)
    }
}

impl DiskName {
    /// Parses a printed name.
    pub fn new(text: &str) -> Option<DiskName> {
        FieldValue::parse(text)
    }
}

/// Short name of a history: `3f9a12c4`; `none` if nothing was ever applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryName(pub Option<u32>);

impl HistoryName {
    /// The short name of a history; 0 means no history.
    pub fn of(history: u64) -> HistoryName {
        HistoryName((history != 0).then_some((history >> 32) as u32))
    }
}

impl FieldValue for HistoryName {
    fn print(&self, to: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => write!(to, "{name:08x}"),
            None => to.write_str("none"),
        }
    }

    fn parse(text: &str) -> Option<HistoryName> {
        let name = if text == "none" { None } else { Some(u32::from_str_radix(text, 16).ok()?) };
        Some(HistoryName(name))
    }
}

/// What an acceptor reports as accepted: `7@3.1,8@2.4`, or `none`. Beyond [`AcceptedSlots::SHOWN`] slots, only the
/// number of further slots and a fingerprint of all of them follow: `+12#9f3a12c45e07d211`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedSlots {
    /// The first slots, at most [`AcceptedSlots::SHOWN`], in slot order.
    pub first: Vec<(Slot, Ballot)>,
    /// The omitted slots, if there are any.
    pub more: Option<OmittedSlots>,
}

/// Slots that a line has no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OmittedSlots {
    /// Number of omitted slots.
    pub count: u64,
    /// Sum of the [`fingerprint`]s of all slots of the report. A reader that knows what was accepted can verify the
    /// report with it.
    pub sum: u64,
}

/// A hash of "this slot, accepted at this ballot".
pub fn fingerprint(slot: Slot, ballot: Ballot) -> u64 {
    let mut bytes = [0; 17];
    bytes[..8].copy_from_slice(&slot.0.to_le_bytes());
    bytes[8..16].copy_from_slice(&ballot.round.to_le_bytes());
    bytes[16] = ballot.server.0;
    xxh3_64(&bytes)
}

impl AcceptedSlots {
    /// Maximum number of slots that a line shows.
    pub const SHOWN: usize = 8;

    /// What a line shows of these slots.
    pub fn new(accepted: &[(Slot, Ballot)]) -> AcceptedSlots {
        let (first, rest) = accepted.split_at(accepted.len().min(AcceptedSlots::SHOWN));
        let sum = || accepted.iter().fold(0, |sum: u64, (slot, ballot)| sum.wrapping_add(fingerprint(*slot, *ballot)));
        let more = (!rest.is_empty()).then(|| OmittedSlots { count: rest.len() as u64, sum: sum() });
        AcceptedSlots { first: first.to_vec(), more }
    }
}

impl FieldValue for AcceptedSlots {
    fn print(&self, to: &mut Formatter<'_>) -> fmt::Result {
        if self.first.is_empty() {
            return to.write_str("none");
        }
        for (n, (slot, ballot)) in self.first.iter().enumerate() {
            write!(to, "{}{slot}@{ballot}", if n == 0 { "" } else { "," })?;
        }
        match &self.more {
            Some(OmittedSlots { count, sum }) => write!(to, ",+{count}#{sum:016x}"),
            None => Ok(()),
        }
    }

    fn parse(text: &str) -> Option<AcceptedSlots> {
        let (shown, more) = match text.rsplit_once(",+") {
            Some((shown, more)) => {
                let (count, sum) = more.split_once('#')?;
                (shown, Some(OmittedSlots { count: count.parse().ok()?, sum: u64::from_str_radix(sum, 16).ok()? }))
            }
            None => (text, None),
        };
        let pair = |text: &str| {
            let (slot, ballot) = text.split_once('@')?;
            Some((Slot::parse(slot)?, Ballot::parse(ballot)?))
        };
        parse_list(shown, ',', pair).map(|first| AcceptedSlots { first, more })
    }
}

/// The acceptors that refused, and the ballot that each has promised: `s4(4.2),s5(4.2)`, or `none`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nacks(pub Vec<(ServerId, Ballot)>);

impl FieldValue for Nacks {
    fn print(&self, to: &mut Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return to.write_str("none");
        }
        for (n, (server, ballot)) in self.0.iter().enumerate() {
            write!(to, "{}{server}({ballot})", if n == 0 { "" } else { "," })?;
        }
        Ok(())
    }

    fn parse(text: &str) -> Option<Nacks> {
        let pair = |text: &str| {
            let (server, ballot) = text.strip_suffix(')')?.split_once('(')?;
            Some((ServerId::parse(server)?, Ballot::parse(ballot)?))
        };
        parse_list(text, ',', pair).map(Nacks)
    }
}

/// Servers in the order in which they were tried, with repetitions: `s2,s4,s2`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TriedServers(pub Vec<ServerId>);

impl FieldValue for TriedServers {
    fn print(&self, to: &mut Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return to.write_str("none");
        }
        for (n, server) in self.0.iter().enumerate() {
            write!(to, "{}{server}", if n == 0 { "" } else { "," })?;
        }
        Ok(())
    }

    fn parse(text: &str) -> Option<TriedServers> {
        parse_list(text, ',', ServerId::parse).map(TriedServers)
    }
}

fn parse_list<T>(text: &str, separator: char, item: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    if text == "none" { Some(Vec::new()) } else { text.split(separator).map(item).collect() }
}

/// A time with microsecond precision, printed in milliseconds: `26.171ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis {
    micros: u64,
}

impl From<Duration> for Millis {
    fn from(duration: Duration) -> Millis {
        Millis { micros: u64::try_from(duration.as_micros()).unwrap_or(u64::MAX) }
    }
}

impl From<Millis> for Duration {
    fn from(time: Millis) -> Duration {
        Duration::from_micros(time.micros)
    }
}

impl FieldValue for Millis {
    fn print(&self, to: &mut Formatter<'_>) -> fmt::Result {
        write!(to, "{}.{:03}ms", self.micros / 1_000, self.micros % 1_000)
    }

    fn parse(text: &str) -> Option<Millis> {
        thousandths(text.strip_suffix("ms")?).map(|micros| Millis { micros })
    }
}

/// A time with millisecond precision, printed in seconds: `4.402s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds {
    millis: u64,
}

impl From<Duration> for Seconds {
    fn from(duration: Duration) -> Seconds {
        Seconds { millis: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX) }
    }
}

impl From<Seconds> for Duration {
    fn from(time: Seconds) -> Duration {
        Duration::from_millis(time.millis)
    }
}

impl FieldValue for Seconds {
    fn print(&self, to: &mut Formatter<'_>) -> fmt::Result {
        write!(to, "{}.{:03}s", self.millis / 1_000, self.millis % 1_000)
    }

    fn parse(text: &str) -> Option<Seconds> {
        thousandths(text.strip_suffix('s')?).map(|millis| Seconds { millis })
    }
}

/// Reads `4.402` as 4402.
fn thousandths(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.')?;
    let fraction: u64 = Some(fraction).filter(|fraction| fraction.len() == 3)?.parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1_000)?.checked_add(fraction)
}

/// The digest of a replica's state, in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub u64);

impl FieldValue for Digest {
    fn print(&self, to: &mut Formatter<'_>) -> fmt::Result {
        write!(to, "{:016x}", self.0)
    }

    fn parse(text: &str) -> Option<Digest> {
        (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok().map(Digest))?
    }
}
