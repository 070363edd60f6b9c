//! Pins: what a learner keeps for peers that fetch a snapshot.
//!
//! A transfer takes time, and the log grows meanwhile. If the log after the snapshot were trimmed as usual, the
//! snapshot would be too old on arrival, and the peer would need another one. Under a steady load it would never catch
//! up. So a peer that requests a chunk of a snapshot gets a *pin*. The log from the snapshot's slot + 1 on is kept for
//! it. The checkpoint stays readable as of that slot (`storage/checkpoint.rs`) until the peer has the whole snapshot.
//!
//! A pin moves forward with its peer. It ends in one of three cases: the peer has caught up, the peer has requested
//! nothing for [`PIN_TIMEOUT_TICKS`], or the log has outgrown [`pinned_log_max_bytes`]. That limit is the size of the
//! state, and at least [`FACTOR`] times the usual limit. In the last case the peer is slower than the writes, and the
//! operator is notified if the peer is up. At most [`PINS_MAX`] peers have a pin, which bounds the memory that pins
//! cost.
//!
//! [`Pins`] alone decides what is pinned. [`CheckpointSchedule`](super::CheckpointSchedule) asks it before
//! it trims the log, and the learner reports the peers' requests to it.

use crate::paxos::{Slot, rules};
use crate::role::{ServerId, ServerSet};

/// Maximum number of peers with a pin.
pub const PINS_MAX: usize = 2;
/// A pinned log may grow to this multiple of `keep_bytes`, however small the state is.
pub const FACTOR: u64 = 4;

/// Maximum size of a pinned log, in bytes. If a peer receives a snapshot faster than clients write, the log grows by
/// less than the state's size during the transfer. A slower peer would never catch up anyway.
pub fn pinned_log_max_bytes(keep_bytes: u64, state_bytes: u64) -> u64 {
    keep_bytes.saturating_mul(FACTOR).max(state_bytes)
}

/// A peer that has requested nothing for this many ticks of 100 ms loses its pin: one minute.
pub const PIN_TIMEOUT_TICKS: u64 = 600;
/// A peer without a message for this many ticks may be down: one second. Then it is not known whether the peer is too
/// slow.
const PEER_UP_TICKS: u64 = 10;

/// The pin of one peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Pin {
    peer: ServerId,
    /// The peer needs the log from this slot on.
    from: Slot,
    /// When the peer began to fetch the snapshot, in ticks of the learner.
    since: u64,
    /// When the peer last requested something.
    asked: u64,
    /// When the last message of the peer arrived.
    heard: u64,
    /// Number of chunks that the peer has requested.
    parts: u64,
    /// Bytes of values that the learner had applied when the fetch began.
    applied_before: u64,
    /// The tick and these bytes at the time when the peer had the whole snapshot; `None` before that.
    fetched: Option<(u64, u64)>,
    /// Entries that were sent before the peer requested them: the first slot, and the slot after the last.
    ahead: Option<(Slot, Slot)>,
}

/// A peer for which the log could not be kept any longer, and what was measured while it fetched the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeftBehind {
    /// The peer.
    pub peer: ServerId,
    /// Number of chunks that the peer requested.
    pub parts: u64,
    /// Duration of the fetch, in ticks of 100 ms.
    pub ticks: u64,
    /// Bytes of values applied in that time.
    pub written: u64,
    /// Maximum size of the log kept for the peer, in bytes.
    pub kept: u64,
}

impl Pin {
    /// A peer requests the first chunk of a snapshot.
    fn new(peer: ServerId, from: Slot, now: u64, applied_before: u64) -> Pin {
        Pin { peer, from, since: now, asked: now, heard: now, parts: 1, applied_before, fetched: None, ahead: None }
    }
}

/// All pins of a learner. See the head of this file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pins {
    pins: Vec<Pin>,
    /// The learner's tick.
    now: u64,
    /// The last slots applied at the learner's last two ticks, the older first; `None` before there were two.
    applied: [Option<Slot>; 2],
    /// Peers that were left behind and not yet reported to the learner.
    left_behind: Vec<LeftBehind>,
    /// Peers already reported to the operator. They can be reported again once they have caught up.
    reported: ServerSet,
}

impl Pins {
    /// A peer requests a chunk of a snapshot, after which it needs the log from this slot on.
    pub fn on_chunk_request(&mut self, peer: ServerId, from: Slot, applied: u64) {
        let (now, is_full) = (self.now, self.pins.len() >= PINS_MAX);
        match self.pin(peer) {
            Some(pin) if pin.fetched.is_none() && pin.from == from => {
                (pin.asked, pin.heard, pin.parts) = (now, now, pin.parts + 1);
            }
            Some(pin) => *pin = Pin::new(peer, from, now, applied),
            None if is_full => {}
            None => self.pins.push(Pin::new(peer, from, now, applied)),
        }
    }

    /// A peer requests entries from this slot on, so it has the whole snapshot. If these entries were sent ahead, the
    /// returned slot is the first one still to be sent. `applied` is the number of bytes that the learner has applied.
    pub fn on_catch_up_request(&mut self, peer: ServerId, from: Slot, applied: u64) -> Option<Slot> {
        let now = self.now;
        let pin = self.pin(peer)?;
        (pin.from, pin.asked, pin.heard) = (from, now, now);
        pin.fetched.get_or_insert((now, applied));
        let (first, end) = pin.ahead.take()?;
        (first == from).then_some(end)
    }

    /// The entries from `first` to before `end` were sent to a peer that has not requested them yet.
    pub fn sent_ahead(&mut self, peer: ServerId, first: Slot, end: Slot) {
        if let Some(pin) = self.pin(peer) {
            pin.ahead = Some((first, end));
        }
    }

    /// A peer has applied everything up to this slot. The log begins at `log_begins`.
    pub fn on_progress(&mut self, peer: ServerId, applied: Slot, log_begins: Slot) {
        let now = self.now;
        if self.applied[0].is_some_and(|before| applied >= before) {
            self.pins.retain(|pin| pin.peer != peer);
        } else if let Some(pin) = self.pin(peer) {
            (pin.from, pin.heard) = (pin.from.max(applied.next()), now);
        }
        if applied.next() >= log_begins {
            self.reported = self.reported.without(ServerSet::only(peer));
        }
    }

    /// A tick of the learner, which has applied everything up to this slot: pins of silent peers end.
    pub fn tick(&mut self, now: u64, applied: Slot) {
        self.now = now;
        self.applied = [self.applied[1], Some(applied)];
        self.pins.retain(|pin| now.saturating_sub(pin.asked) < PIN_TIMEOUT_TICKS);
    }

    /// The log was replaced: no peer has requested anything of the new one.
    pub fn end_all(&mut self) {
        self.pins.clear();
    }

    /// Whether a peer needs this slot of the log.
    pub fn need(&self, slot: Slot) -> bool {
        rules::is_kept_for_peers(self.pins.iter().any(|pin| pin.from <= slot))
    }

    /// The log is too large: the peers that need this slot are left behind.
    pub fn leave_behind(&mut self, slot: Slot, applied: u64, kept: u64) {
        let (now, told, left_behind) = (self.now, &mut self.reported, &mut self.left_behind);
        self.pins.retain(|pin| {
            let is_left = pin.from <= slot;
            if is_left && now - pin.heard < PEER_UP_TICKS && told.insert(pin.peer) {
                let (until, applied) = pin.fetched.unwrap_or((now, applied));
                let (ticks, written) = (until - pin.since, applied - pin.applied_before);
                left_behind.push(LeftBehind { peer: pin.peer, parts: pin.parts, ticks, written, kept });
            }
            !is_left
        });
    }

    /// The peers that were left behind since the last call; each is named once until it has caught up.
    pub fn take_left_behind(&mut self) -> Vec<LeftBehind> {
        std::mem::take(&mut self.left_behind)
    }

    /// Whether the peer has a pin.
    pub fn has(&self, peer: ServerId) -> bool {
        self.pins.iter().any(|pin| pin.peer == peer)
    }

    /// The peers that fetch a snapshot and do not have all of it yet.
    pub fn fetching(&self) -> ServerSet {
        self.pins.iter().filter(|pin| pin.fetched.is_none()).map(|pin| pin.peer).collect()
    }

    /// The first slot that is kept; `None` if nothing is pinned.
    pub fn from(&self) -> Option<Slot> {
        self.pins.iter().map(|pin| pin.from).min()
    }

    fn pin(&mut self, peer: ServerId) -> Option<&mut Pin> {
        self.pins.iter_mut().find(|pin| pin.peer == peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S2: ServerId = ServerId(2);
    const S3: ServerId = ServerId(3);
    const S4: ServerId = ServerId(4);

    fn pinned(peers: &[(ServerId, u64)]) -> Pins {
        let mut pins = Pins::default();
        peers.iter().for_each(|(peer, from)| pins.on_chunk_request(*peer, Slot(*from), 0));
        pins
    }

    fn needed(pins: &Pins) -> Vec<u64> {
        (1..=20).filter(|slot| pins.need(Slot(*slot))).collect()
    }

    #[test]
    fn no_log_is_kept_before_a_peer_requests_a_chunk() {
        let mut pins = pinned(&[]);
        assert_eq!(pins.on_catch_up_request(S2, Slot(3), 0), None);
        assert_eq!((needed(&pins), pins.fetching()), (vec![], ServerSet::NONE));
    }

    #[test]
    fn two_peers_have_a_pin_and_a_third_has_none() {
        let pins = pinned(&[(S2, 9), (S3, 7), (S4, 5)]);
        assert_eq!((pins.from(), pins.fetching()), (Some(Slot(7)), [S2, S3].into_iter().collect()));
        assert!(!pins.need(Slot(6)) && pins.need(Slot(7)) && pins.need(Slot(20)));
    }

    #[test]
    fn a_pin_moves_on_with_its_peer() {
        let mut pins = pinned(&[(S2, 5)]);
        pins.on_chunk_request(S2, Slot(9), 0);
        assert_eq!(pins.from(), Some(Slot(9)), "it has started another snapshot");
        pins.on_catch_up_request(S2, Slot(11), 0);
        assert_eq!(pins.from(), Some(Slot(11)));
        pins.on_progress(S2, Slot(12), Slot(1));
        assert_eq!(pins.from(), Some(Slot(13)));
        pins.on_progress(S2, Slot(4), Slot(1));
        assert_eq!(pins.from(), Some(Slot(13)), "that is what it has applied before the snapshot arrives");
    }

    #[test]
    fn pin_ends_one_minute_after_the_last_request_of_its_peer() {
        for asks_for_a_part in [true, false] {
            let mut pins = pinned(&[(S2, 5)]);
            pins.tick(PIN_TIMEOUT_TICKS - 1, Slot(100));
            if asks_for_a_part {
                pins.on_chunk_request(S2, Slot(5), 0);
            } else {
                pins.on_catch_up_request(S2, Slot(5), 0);
            }
            pins.on_progress(S2, Slot(3), Slot(1));
            pins.tick(2 * PIN_TIMEOUT_TICKS - 2, Slot(100));
            assert_eq!(pins.from(), Some(Slot(5)));
            pins.tick(2 * PIN_TIMEOUT_TICKS - 1, Slot(100));
            assert_eq!(pins.from(), None);
        }
    }

    #[test]
    fn peer_beyond_the_retention_limit_is_left_behind_and_named_once() {
        let mut pins = pinned(&[]);
        pins.tick(10, Slot(100));
        pins.on_chunk_request(S2, Slot(5), 1_000);
        pins.on_chunk_request(S3, Slot(8), 1_500);
        pins.on_chunk_request(S2, Slot(5), 2_000);
        pins.tick(40, Slot(100));
        [S2, S3].into_iter().for_each(|peer| pins.on_progress(peer, Slot(1), Slot(5)));
        pins.leave_behind(Slot(6), 9_000, 64);
        let left = LeftBehind { peer: S2, parts: 2, ticks: 30, written: 8_000, kept: 64 };
        assert_eq!((pins.take_left_behind(), pins.fetching()), (vec![left], ServerSet::only(S3)));
        // The peer begins again, and is still too slow.
        pins.on_chunk_request(S2, Slot(9), 9_000);
        pins.leave_behind(Slot(9), 10_000, 64);
        assert_eq!(pins.take_left_behind().iter().map(|left| left.peer).collect::<Vec<_>>(), [S3]);
        // The peer has caught up, and is too slow another time. The measurements cover the time of the fetch.
        pins.on_progress(S2, Slot(30), Slot(31));
        pins.on_chunk_request(S2, Slot(40), 0);
        pins.tick(42, Slot(100));
        pins.on_catch_up_request(S2, Slot(41), 700);
        pins.tick(50, Slot(100));
        pins.leave_behind(Slot(41), 10_000, 64);
        assert_eq!(pins.take_left_behind(), [LeftBehind { peer: S2, parts: 1, ticks: 2, written: 700, kept: 64 }]);
    }

    #[test]
    fn peer_that_may_be_down_is_not_reported_slow() {
        let mut pins = pinned(&[(S2, 5), (S3, 5)]);
        pins.tick(PEER_UP_TICKS - 1, Slot(100));
        pins.on_progress(S3, Slot(1), Slot(5));
        pins.tick(PEER_UP_TICKS, Slot(100));
        pins.leave_behind(Slot(5), 10_000, 64);
        assert_eq!(pins.take_left_behind().iter().map(|left| left.peer).collect::<Vec<_>>(), [S3]);
        assert_eq!(pins.from(), None, "nothing is kept for either");
    }

    #[test]
    fn a_peer_that_has_the_state_needs_only_the_log_and_none_that_has_caught_up_needs_anything() {
        let mut pins = pinned(&[(S2, 5)]);
        pins.tick(1, Slot(50));
        pins.tick(2, Slot(60));
        pins.on_catch_up_request(S2, Slot(5), 0);
        assert_eq!((pins.fetching(), pins.has(S2)), (ServerSet::NONE, true));
        pins.on_progress(S2, Slot(49), Slot(5));
        assert_eq!(pins.from(), Some(Slot(50)));
        pins.on_progress(S2, Slot(50), Slot(5));
        assert_eq!(pins.from(), None, "what the learner has applied since is on its way");
        // The peer begins a new snapshot.
        pins.on_chunk_request(S2, Slot(70), 0);
        pins.on_catch_up_request(S2, Slot(70), 0);
        pins.on_chunk_request(S2, Slot(70), 0);
        assert_eq!(pins.fetching(), ServerSet::only(S2));
    }

    #[test]
    fn entries_that_were_sent_ahead_are_not_sent_again() {
        let mut pins = pinned(&[(S2, 5)]);
        assert_eq!(pins.on_catch_up_request(S2, Slot(5), 0), None);
        pins.sent_ahead(S2, Slot(8), Slot(11));
        assert_eq!(pins.on_catch_up_request(S2, Slot(8), 0), Some(Slot(11)));
        pins.sent_ahead(S2, Slot(11), Slot(14));
        assert_eq!(pins.on_catch_up_request(S2, Slot(8), 0), None, "something was lost: it gets all again");
        assert_eq!(pins.on_catch_up_request(S2, Slot(11), 0), None);
    }
}
