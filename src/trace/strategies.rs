//! Random lines with events of every kind, for the tests that read back what was written.

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::Union;
use proptest::string::bytes_regex;

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

/// A type with random values, odd ones among them.
pub(super) trait AnyValue: Debug + Sized {
    fn any() -> BoxedStrategy<Self>;
}

impl<T: AnyValue + 'static> AnyValue for Option<T> {
    fn any() -> BoxedStrategy<Option<T>> {
        prop::option::of(T::any()).boxed()
    }
}

impl<A: AnyValue + 'static, B: AnyValue + 'static> AnyValue for (A, B) {
    fn any() -> BoxedStrategy<(A, B)> {
        (A::any(), B::any()).boxed()
    }
}

/// Small numbers, large ones, and the largest.
fn numbers() -> impl Strategy<Value = u64> {
    prop_oneof![9 => (any::<u64>(), 0..64).prop_map(|(number, shift)| number >> shift), 1 => Just(u64::MAX)]
}

/// Plain bytes, those with a meaning in a line, invisible characters, and parts of characters. Empty, short, around the
/// length at which a text is cut, and long. The length shrinks before the bytes do.
fn texts() -> impl Strategy<Value = Vec<u8>> {
    let alphabets = [
        "[a-z0-9_.-]{200}",
        "[ab \"\\\\=\n\r\t,+#.;-]{200}",
        "[aé漢😀\u{0}\u{1}\u{7f}\u{85}\u{2028}\u{202e}]{200}",
        r"(?-u:[\x00\x01\x7f\x80\xbf\xc0\xc3\xe2\xffa]){200}",
    ];
    let text = Union::new(alphabets.map(|alphabet| bytes_regex(alphabet).unwrap()));
    (select(vec![0, 1, 5, 63, 64, 65, 200]), text).prop_map(|(length, mut text)| {
        text.truncate(length);
        text
    })
}

macro_rules! strategies {
    ($($type:ty: $strategy:expr;)*) => {$(
        impl AnyValue for $type {
            fn any() -> BoxedStrategy<$type> {
                $strategy.boxed()
            }
        }
    )*};
}

strategies! {
    u64: numbers();
    u32: numbers().prop_map(|number| number as u32);
    u8: numbers().prop_map(|number| number as u8);
    QuotedText: texts().prop_map(QuotedText::new);
    String: texts().prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    SocketAddr: any::<(IpAddr, u16)>().prop_map(SocketAddr::from);

    ServerId: (0..=ServerId::MAX).prop_map(ServerId);
    ServerSet: vec(ServerId::any(), 0..=6).prop_map(ServerSet::from_iter);
    TriedServers: vec(ServerId::any(), 0..=4).prop_map(TriedServers);
    Slot: numbers().prop_map(Slot);
    SlotFrom: Slot::any().prop_map(SlotFrom);
    SlotSpan: <(Slot, Option<u8>)>::any().prop_map(|(first, more)| {
        SlotSpan { first, last: more.map(|more| first.plus(more.into())) }
    });
    Ballot: <(u64, ServerId)>::any().prop_map(|(round, server)| Ballot { round, server });
    MaybeBallot: <Option<Ballot>>::any().prop_map(MaybeBallot);
    AcceptedSlots: vec(<(Slot, Ballot)>::any(), 0..=20).prop_map(|accepted| AcceptedSlots::new(&accepted));
    Nacks: vec(<(ServerId, Ballot)>::any(), 0..=4).prop_map(Nacks);
    NackedRequest: prop_oneof![
        Slot::any().prop_map(NackedRequest::Prepare),
        Slot::any().prop_map(NackedRequest::Accept),
    ];
    TransactionId: <(u64, ServerId)>::any().prop_map(|(number, coordinator)| TransactionId { number, coordinator });
    CommandName: prop_oneof![
        any::<u16>().prop_map(CommandName::Open),
        (numbers(), numbers())
            .prop_map(|(session, sequence)| CommandName::Write { session: session.max(1), sequence }),
    ];
    Digest: numbers().prop_map(Digest);
    DiskName: any::<u16>().prop_map(DiskName);
    HistoryName: <Option<u32>>::any().prop_map(HistoryName);
    Millis: numbers().prop_map(|micros| Duration::from_micros(micros).into());
    Seconds: numbers().prop_map(|millis| Duration::from_millis(millis).into());

    OpKind: select(OpKind::ALL);
    RequestStatus: select(RequestStatus::ALL);
    CrashCause: select(CrashCause::ALL);
    CrashPoint: select(CrashPoint::ALL);
    RecoveredFrom: select(RecoveredFrom::ALL);
    RestartMode: select(RestartMode::ALL);
    DropCause: select(DropCause::ALL);
    LinkEvent: select(LinkEvent::ALL);
    VoteValue: select(VoteValue::ALL);
    TransactionState: select(TransactionState::ALL);
    DecisionReason: select(DecisionReason::ALL);
    LearnResult: prop_oneof![
        Just(LearnResult::Ok),
        Just(LearnResult::NotFound),
        Just(LearnResult::Mismatch),
        Slot::any().prop_map(|first| LearnResult::Duplicate { first }),
        Just(LearnResult::Superseded),
        Just(LearnResult::Expired),
        Just(LearnResult::Noop),
        Just(LearnResult::Opened),
        Just(LearnResult::Unreadable),
    ];

    ProcessId: prop_oneof![
        "[cs]?[0-9]{0,2}[a-zA-Z0-9_-]{0,29}".prop_filter_map("a server's name", |name| ProcessId::named(&name).ok()),
        ServerId::any().prop_map(|server| ProcessId::server(server, 1)),
        <(ServerId, u32)>::any().prop_map(|(server, incarnation)| ProcessId::server(server, incarnation)),
    ];
    LineId: <(ProcessId, u64)>::any().prop_map(|(process, n)| LineId { process, n });
    Line: (
        (0..4_000_000_000_000_000_i64).prop_map(|micros| Timestamp::from_microsecond(micros).unwrap()),
        LineId::any(),
        select(&Speaker::ALL),
        <Option<String>>::any().prop_map(|label| label.and_then(clean_label)),
        Event::any(),
        <Option<LineId>>::any(),
        <Option<String>>::any().prop_map(|reason| reason.and_then(clean_reason)),
    ).prop_map(|(time, id, role, req, event, parent, reason)| Line { time, id, role, req, event, parent, reason });
}
