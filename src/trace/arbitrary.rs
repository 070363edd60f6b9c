//! Events of every kind, drawn at random: for the tests that read back what was written.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use jiff::Timestamp;
use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::event::Event;
use super::field::{
    AcceptedSlots, Digest, DiskName, HistoryName, MaybeBallot, Millis, Nacks, Seconds, SlotFrom, SlotSpan, Tries,
};
use super::line::{Line, LineId, Process, RoleTag, clean_label, clean_why};
use super::text::Text;
use super::word::{
    Applied, CommandName, CrashCause, CrashPoint, Decided, DropCause, LinkState, Op, Recovered, RestartMode, Status,
    Told, Voted,
};
use crate::paxos::{Ballot, Refused, Slot};
use crate::role::{Server, Servers};
use crate::two_phase_commit::TransactionId;

/// Where the randomness comes from.
pub(super) struct Source(Pcg64Mcg);

impl Source {
    pub(super) fn new(seed: u64) -> Source {
        Source(Pcg64Mcg::seed_from_u64(seed))
    }

    fn below(&mut self, count: usize) -> usize {
        (self.0.next_u64() % count as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn many<T: Any>(&mut self, at_most: usize) -> Vec<T> {
        (0..self.below(at_most + 1)).map(|_| T::any(self)).collect()
    }
}

/// What can be drawn.
pub(super) trait Any: Sized {
    fn any(source: &mut Source) -> Self;
}

impl Any for u64 {
    /// Small ones and huge ones.
    fn any(source: &mut Source) -> u64 {
        let shift = source.below(64);
        source.0.next_u64() >> shift
    }
}

impl Any for u32 {
    fn any(source: &mut Source) -> u32 {
        u64::any(source) as u32
    }
}

impl Any for u8 {
    fn any(source: &mut Source) -> u8 {
        u64::any(source) as u8
    }
}

impl<T: Any> Any for Option<T> {
    fn any(source: &mut Source) -> Option<T> {
        (source.below(2) == 1).then(|| T::any(source))
    }
}

impl<A: Any, B: Any> Any for (A, B) {
    fn any(source: &mut Source) -> (A, B) {
        (A::any(source), B::any(source))
    }
}

impl Any for Server {
    fn any(source: &mut Source) -> Server {
        Server(source.below(usize::from(Server::MAX) + 1) as u8)
    }
}

impl Any for Servers {
    fn any(source: &mut Source) -> Servers {
        source.many::<Server>(6).into_iter().collect()
    }
}

/// Types made of one other.
macro_rules! made_of {
    ($($type:ty: $part:ty => $make:expr;)*) => {$(
        impl Any for $type {
            fn any(source: &mut Source) -> $type {
                let make: fn($part) -> $type = $make;
                make(Any::any(source))
            }
        }
    )*};
}

made_of! {
    Slot: u64 => Slot;
    Ballot: (u64, Server) => |(round, server)| Ballot { round, server };
    TransactionId: (u64, Server) => |(number, coordinator)| TransactionId { number, coordinator };
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

impl Any for Refused {
    fn any(source: &mut Source) -> Refused {
        let slot = Slot::any(source);
        source.pick(&[Refused::Prepare(slot), Refused::Accept(slot)])
    }
}

impl Any for AcceptedSlots {
    fn any(source: &mut Source) -> AcceptedSlots {
        AcceptedSlots::new(&source.many::<(Slot, Ballot)>(20))
    }
}

impl Any for Nacks {
    fn any(source: &mut Source) -> Nacks {
        Nacks(source.many(4))
    }
}

impl Any for Tries {
    fn any(source: &mut Source) -> Tries {
        Tries(source.many(4))
    }
}

/// Bytes of all kinds: plain, with what means something in a line, raw, and long.
fn bytes(source: &mut Source) -> Vec<u8> {
    let alphabet: &[u8] = source.pick(&[
        b"abcxyz019-_.".as_slice(),
        b"ab \"\\=\n\r\t,+#.;-".as_slice(),
        "aé漢😀\u{2028}\u{202e}\u{85}".as_bytes(),
        &[0, 1, 127, 128, 191, 192, 255, b'a'],
    ]);
    let length = source.pick(&[0, 1, 5, 63, 64, 65, 500]);
    (0..length).map(|_| source.pick(alphabet)).collect()
}

impl Any for Text {
    fn any(source: &mut Source) -> Text {
        Text::new(bytes(source))
    }
}

impl Any for String {
    fn any(source: &mut Source) -> String {
        String::from_utf8_lossy(&bytes(source)).into_owned()
    }
}

/// Vocabularies: any word of them.
macro_rules! any_word {
    ($($type:ty),*) => {$(
        impl Any for $type {
            fn any(source: &mut Source) -> $type {
                source.pick(<$type>::ALL)
            }
        }
    )*};
}

any_word!(Op, Status, CrashCause, CrashPoint, Recovered, RestartMode, DropCause, LinkState, Voted, Decided, Told);

impl Any for Applied {
    fn any(source: &mut Source) -> Applied {
        let first = Slot::any(source);
        source.pick(&[
            Applied::Ok,
            Applied::NotFound,
            Applied::Mismatch,
            Applied::Duplicate { first },
            Applied::Superseded,
            Applied::Expired,
            Applied::Noop,
            Applied::Opened,
            Applied::Unreadable,
        ])
    }
}

impl Any for Process {
    fn any(source: &mut Source) -> Process {
        match source.below(3) {
            0 => Process::named(source.pick(&["c1", "c12", "server", "s", "s1x", "audit_2-b"])).unwrap(),
            1 => Process::server(Server::any(source), 1),
            _ => Process::server(Server::any(source), u32::any(source)),
        }
    }
}

made_of! {
    LineId: (Process, u64) => |(process, n)| LineId { process, n };
}

impl Any for Line {
    /// A line whose event is always the same one.
    fn any(source: &mut Source) -> Line {
        let micros = source.0.next_u64() % 4_000_000_000_000_000;
        Line {
            time: Timestamp::from_microsecond(micros as i64).unwrap(),
            id: LineId::any(source),
            role: source.pick(&RoleTag::ALL),
            req: Option::<String>::any(source).and_then(clean_label),
            event: Event::Lost { n: 1 },
            re: Option::any(source),
            why: Option::<String>::any(source).and_then(clean_why),
        }
    }
}
