//! Random events of every kind, for the tests that read back what was written.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use jiff::Timestamp;
use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::event::Event;
use super::field::{
    AcceptedSlots, Digest, DiskName, HistoryName, MaybeBallot, Millis, Nacks, Seconds, SlotFrom, SlotSpan, TriedServers,
};
use super::line::{Line, LineId, ProcessId, Speaker, clean_label, clean_reason};
use super::quoted::QuotedText;
use super::values::{
    CommandName, CrashCause, CrashPoint, DecisionReason, DropCause, LearnResult, LinkEvent, OpKind, RecoveredFrom,
    RequestStatus, RestartMode, TransactionState, VoteValue,
};
use crate::paxos::{Ballot, NackedRequest, Slot};
use crate::role::{ServerId, ServerSet};
use crate::two_phase_commit::TransactionId;

/// The source of randomness.
pub(super) struct EventGenerator(Pcg64Mcg);

impl EventGenerator {
    pub(super) fn new(seed: u64) -> EventGenerator {
        EventGenerator(Pcg64Mcg::seed_from_u64(seed))
    }

    fn below(&mut self, count: usize) -> usize {
        (self.0.next_u64() % count as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn many<T: Arbitrary>(&mut self, at_most: usize) -> Vec<T> {
        (0..self.below(at_most + 1)).map(|_| T::any(self)).collect()
    }
}

/// A type with random values.
pub(super) trait Arbitrary: Sized {
    fn any(source: &mut EventGenerator) -> Self;
}

impl Arbitrary for u64 {
    /// Small numbers and huge ones.
    fn any(source: &mut EventGenerator) -> u64 {
        let shift = source.below(64);
        source.0.next_u64() >> shift
    }
}

impl Arbitrary for u32 {
    fn any(source: &mut EventGenerator) -> u32 {
        u64::any(source) as u32
    }
}

impl Arbitrary for u8 {
    fn any(source: &mut EventGenerator) -> u8 {
        u64::any(source) as u8
    }
}

impl<T: Arbitrary> Arbitrary for Option<T> {
    fn any(source: &mut EventGenerator) -> Option<T> {
        (source.below(2) == 1).then(|| T::any(source))
    }
}

impl<A: Arbitrary, B: Arbitrary> Arbitrary for (A, B) {
    fn any(source: &mut EventGenerator) -> (A, B) {
        (A::any(source), B::any(source))
    }
}

impl Arbitrary for ServerId {
    fn any(source: &mut EventGenerator) -> ServerId {
        ServerId(source.below(usize::from(ServerId::MAX) + 1) as u8)
    }
}

impl Arbitrary for ServerSet {
    fn any(source: &mut EventGenerator) -> ServerSet {
        source.many::<ServerId>(6).into_iter().collect()
    }
}

/// Types made from one other type.
macro_rules! made_of {
    ($($type:ty: $part:ty => $make:expr;)*) => {$(
        impl Arbitrary for $type {
            fn any(source: &mut EventGenerator) -> $type {
                let make: fn($part) -> $type = $make;
                make(Arbitrary::any(source))
            }
        }
    )*};
}

made_of! {
    Slot: u64 => Slot;
    Ballot: (u64, ServerId) => |(round, server)| Ballot { round, server };
    TransactionId: (u64, ServerId) => |(number, coordinator)| TransactionId { number, coordinator };
    CommandName: (u64, u64) => |(session, sequence)| match session {
        0 => CommandName::Open(sequence as u16),
        session => CommandName::Write { session, sequence },
    };
    SlotFrom: Slot => SlotFrom;
    SlotSpan: (Slot, Option<u8>) => |(first, more)| SlotSpan { first, last: more.map(|more| first.plus(u64::from(more))) };
    MaybeBallot: Option<Ballot> => MaybeBallot;
    Digest: u64 => Digest;
    DiskName: u64 => |name| DiskName(name as u16);
    HistoryName: Option<u32> => HistoryName;
    Millis: u64 => |micros| Duration::from_micros(micros).into();
    Seconds: u64 => |millis| Duration::from_millis(millis).into();
    SocketAddr: (u64, u32) => |(ip, port)| match ip % 2 {
        0 => ((ip as u32).to_be_bytes(), port as u16).into(),
        _ => (Ipv6Addr::from(u128::from(ip) << 64 | 1), port as u16).into(),
    };
}

impl Arbitrary for NackedRequest {
    fn any(source: &mut EventGenerator) -> NackedRequest {
        let slot = Slot::any(source);
        source.pick(&[NackedRequest::Prepare(slot), NackedRequest::Accept(slot)])
    }
}

impl Arbitrary for AcceptedSlots {
    fn any(source: &mut EventGenerator) -> AcceptedSlots {
        AcceptedSlots::new(&source.many::<(Slot, Ballot)>(20))
    }
}

impl Arbitrary for Nacks {
    fn any(source: &mut EventGenerator) -> Nacks {
        Nacks(source.many(4))
    }
}

impl Arbitrary for TriedServers {
    fn any(source: &mut EventGenerator) -> TriedServers {
        TriedServers(source.many(4))
    }
}

/// Bytes of all kinds: plain, special in a line, invalid UTF-8, and long.
fn bytes(source: &mut EventGenerator) -> Vec<u8> {
    let alphabet: &[u8] = source.pick(&[
        b"abcxyz019-_.".as_slice(),
        b"ab \"\\=\n\r\t,+#.;-".as_slice(),
        "aé漢😀\u{2028}\u{202e}\u{85}".as_bytes(),
        &[0, 1, 127, 128, 191, 192, 255, b'a'],
    ]);
    let length = source.pick(&[0, 1, 5, 63, 64, 65, 500]);
    (0..length).map(|_| source.pick(alphabet)).collect()
}

impl Arbitrary for QuotedText {
    fn any(source: &mut EventGenerator) -> QuotedText {
        QuotedText::new(bytes(source))
    }
}

impl Arbitrary for String {
    fn any(source: &mut EventGenerator) -> String {
        String::from_utf8_lossy(&bytes(source)).into_owned()
    }
}

/// Word types: any of their words.
macro_rules! any_word {
    ($($type:ty),*) => {$(
        impl Arbitrary for $type {
            fn any(source: &mut EventGenerator) -> $type {
                source.pick(<$type>::ALL)
            }
        }
    )*};
}

any_word!(
    OpKind,
    RequestStatus,
    CrashCause,
    CrashPoint,
    RecoveredFrom,
    RestartMode,
    DropCause,
    LinkEvent,
    VoteValue,
    TransactionState,
    DecisionReason
);

impl Arbitrary for LearnResult {
    fn any(source: &mut EventGenerator) -> LearnResult {
        let first = Slot::any(source);
        source.pick(&[
            LearnResult::Ok,
            LearnResult::NotFound,
            LearnResult::Mismatch,
            LearnResult::Duplicate { first },
            LearnResult::Superseded,
            LearnResult::Expired,
            LearnResult::Noop,
            LearnResult::Opened,
            LearnResult::Unreadable,
        ])
    }
}

impl Arbitrary for ProcessId {
    fn any(source: &mut EventGenerator) -> ProcessId {
        match source.below(3) {
            0 => ProcessId::named(source.pick(&["c1", "c12", "server", "s", "s1x", "audit_2-b"])).unwrap(),
            1 => ProcessId::server(ServerId::any(source), 1),
            _ => ProcessId::server(ServerId::any(source), u32::any(source)),
        }
    }
}

made_of! {
    LineId: (ProcessId, u64) => |(process, n)| LineId { process, n };
}

impl Arbitrary for Line {
    /// A line whose event is always the same one.
    fn any(source: &mut EventGenerator) -> Line {
        let micros = source.0.next_u64() % 4_000_000_000_000_000;
        Line {
            time: Timestamp::from_microsecond(micros as i64).unwrap(),
            id: LineId::any(source),
            role: source.pick(&Speaker::ALL),
            req: Option::<String>::any(source).and_then(clean_label),
            event: Event::Lost { n: 1 },
            parent: Option::any(source),
            reason: Option::<String>::any(source).and_then(clean_reason),
        }
    }
}
