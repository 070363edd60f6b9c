//! Catching up: which chosen entries a learner lacks, and which peer it asks for them.
//!
//! Messages are lost, so a learner may miss anything. A CHOSEN or a peer's PROGRESS shows that the log goes further
//! than its own. Usually the missing entries are still in flight, so the learner waits a moment. If its log has not
//! grown then, it requests the entries from a peer, and after a time without an answer from the next peer. (Lamport's
//! learners ask the acceptors instead, *Paxos Made Simple*, section 2.3. Peers that help each other are in *Paxos Made
//! Live*, Chandra, Griesemer, Redstone, 2007, section 5.5.)
//!
//! [`CatchUp`] decides which peer to ask and when; the learner sends the request and applies the answer.

use std::collections::BTreeMap;

use crate::paxos::Slot;
use crate::role::{ServerId, ServerSet};

/// A peer is live only if its last PROGRESS is younger than this many ticks of 100 ms.
pub const FRESH_TICKS: u64 = 3;

/// Maximum count of unanswered requests; more change nothing.
const UNANSWERED_MAX: u32 = 3;

/// Number of repeated requests to a peer that has helped, before another peer is asked. An answer can be lost. And
/// after a snapshot, only the peer that sent it keeps the log for this learner.
const AGAIN_MAX: u32 = 2;

/// The content of a peer's last PROGRESS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct PeerProgress {
    applied: Slot,
    /// In ticks of this learner.
    heard_at: u64,
}

/// The gap of one learner, and its requests to peers. See the head of this file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct CatchUp {
    me: ServerId,
    others: ServerSet,
    peers: BTreeMap<ServerId, PeerProgress>,
    /// The highest slot that is known to be chosen, or applied by any learner.
    highest_chosen: Slot,
    /// If the gap timer runs: the last slot applied when it started.
    gap_timer_applied: Option<Slot>,
    /// The peer asked for entries or for a snapshot chunk, until it answers.
    catch_up_peer: Option<ServerId>,
    /// The first slot of the last request for entries.
    requested_from: Slot,
    /// The peer asked last, whatever it answered: if it did not help, the next one is asked.
    last_catch_up_peer: Option<ServerId>,
    /// Number of times that this peer is asked again although its last answers did not help.
    again: u32,
    /// Number of recent requests without an answer in time; each answer subtracts one.
    unanswered: u32,
}

/// The next step of catching up.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum CatchUpStep {
    /// Nothing, for now.
    Nothing,
    /// Start the gap timer.
    Wait,
    /// Ask this peer for everything from the next slot on.
    Ask(ServerId),
}

impl CatchUp {
    /// For a learner that has applied everything up to this slot.
    pub(super) fn new(me: ServerId, others: ServerSet, applied: Slot) -> CatchUp {
        CatchUp {
            me,
            others,
            peers: BTreeMap::new(),
            highest_chosen: applied,
            gap_timer_applied: None,
            catch_up_peer: None,
            requested_from: applied.next(),
            last_catch_up_peer: None,
            again: 0,
            unanswered: 0,
        }
    }

    /// The highest slot known to be chosen anywhere.
    pub(super) fn highest_chosen(&self) -> Slot {
        self.highest_chosen
    }

    /// Notes that this slot is chosen.
    pub(super) fn note_chosen(&mut self, slot: Slot) {
        self.highest_chosen = self.highest_chosen.max(slot);
    }

    /// A peer's PROGRESS.
    pub(super) fn on_progress(&mut self, peer: ServerId, applied: Slot, now: u64) {
        self.peers.insert(peer, PeerProgress { applied, heard_at: now });
        self.note_chosen(applied);
    }

    /// The servers whose PROGRESS arrived in the last 300 ms, and this server.
    pub(super) fn live_peers(&self, now: u64) -> ServerSet {
        let fresh = self.peers.iter().filter(|(_, peer)| now - peer.heard_at < FRESH_TICKS);
        fresh.map(|(server, _)| *server).chain([self.me]).collect()
    }

    /// The peer that was asked and has not answered.
    pub(super) fn catch_up_peer(&self) -> Option<ServerId> {
        self.catch_up_peer
    }

    /// Number of recent requests without an answer in time.
    pub(super) fn unanswered(&self) -> u32 {
        self.unanswered
    }

    /// The peer asked has not answered in time.
    pub(super) fn not_answered(&mut self) {
        self.unanswered = (self.unanswered + 1).min(UNANSWERED_MAX);
    }

    /// If there is a gap, waits a moment for the missing slots to arrive.
    pub(super) fn look(&mut self, applied: Slot) -> CatchUpStep {
        if self.highest_chosen <= applied || self.gap_timer_applied.is_some() || self.catch_up_peer.is_some() {
            return CatchUpStep::Nothing;
        }
        self.gap_timer_applied = Some(applied);
        CatchUpStep::Wait
    }

    /// The gap timer ran out. If the log has grown meanwhile, another slot is missing now, and it also gets its moment.
    pub(super) fn waited(&mut self, applied: Slot, now: u64) -> CatchUpStep {
        let is_stuck = self.gap_timer_applied.take() == Some(applied);
        if is_stuck && self.catch_up_peer.is_none() {
            self.request_from_a_peer(applied, now)
        } else {
            self.look(applied)
        }
    }

    /// Asks a peer that has more: the last one if it helped lately, else the next one.
    pub(super) fn request_from_a_peer(&mut self, applied: Slot, now: u64) -> CatchUpStep {
        self.catch_up_peer = None;
        if self.highest_chosen <= applied {
            return CatchUpStep::Nothing;
        }
        let ahead = self.peers.iter().filter(|(_, peer)| peer.applied > applied);
        let ahead: ServerSet = ahead.map(|(server, _)| *server).collect();
        // Prefer a live peer that is ahead. If no peer is known to be ahead, ask any: the peer that counted the quorum
        // may not have sent its PROGRESS yet.
        let choices = [ahead.and(self.live_peers(now)), ahead, self.others];
        let candidates = choices.into_iter().find(|servers| !servers.is_empty()).unwrap_or(self.others);
        if let Some(last) = self.last_catch_up_peer.filter(|last| self.again > 0 && candidates.contains(*last)) {
            self.again -= 1;
            return self.ask(last, applied);
        }
        self.again = 0;
        let next = candidates.iter().find(|peer| self.last_catch_up_peer.is_some_and(|last| *peer > last));
        match next.or_else(|| candidates.iter().next()) {
            Some(peer) => self.ask(peer, applied),
            None => CatchUpStep::Nothing,
        }
    }

    /// Asks this peer for all entries after this slot.
    pub(super) fn ask(&mut self, peer: ServerId, applied: Slot) -> CatchUpStep {
        (self.catch_up_peer, self.requested_from, self.last_catch_up_peer) = (Some(peer), applied.next(), Some(peer));
        CatchUpStep::Ask(peer)
    }

    /// A peer has sent entries up to slot `last`; `None` if there were none. If they helped and the peer has more, it
    /// is asked again at once; otherwise it is not.
    ///
    /// Entries that all lie before the requested slot answer an earlier request: they were sent ahead or twice. They
    /// must not end the current request. Otherwise it would be repeated, its answer would arrive twice, and so on: half
    /// of all that a peer sends would be sent twice.
    pub(super) fn answered(
        &mut self,
        peer: ServerId,
        last: Option<Slot>,
        has_more: bool,
        applied: Slot,
    ) -> CatchUpStep {
        let is_earlier = last.is_some_and(|last| last < self.requested_from);
        if self.catch_up_peer.is_some_and(|asked| asked != peer || is_earlier) {
            return CatchUpStep::Nothing;
        }
        self.catch_up_peer = None;
        self.unanswered = self.unanswered.saturating_sub(1);
        if !has_more {
            return self.look(applied);
        }
        self.again = AGAIN_MAX;
        self.ask(peer, applied)
    }

    /// This peer sends a snapshot, chunk by chunk.
    pub(super) fn wait_for(&mut self, peer: ServerId) {
        (self.catch_up_peer, self.last_catch_up_peer, self.again) = (Some(peer), Some(peer), AGAIN_MAX);
        self.unanswered = self.unanswered.saturating_sub(1);
    }

    /// Ends the current request.
    pub(super) fn cancel_requests(&mut self) {
        self.catch_up_peer = None;
    }

    /// The answer of the peer asked last does not help, or no answer arrives: the next peer is asked.
    pub(super) fn give_up(&mut self) {
        (self.catch_up_peer, self.again) = (None, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S1: ServerId = ServerId(1);
    const S2: ServerId = ServerId(2);
    const S3: ServerId = ServerId(3);

    /// Of server 1 of three, which has applied nothing.
    fn new_catch_up() -> CatchUp {
        CatchUp::new(S1, ServerSet::first(3).without(ServerSet::only(S1)), Slot(0))
    }

    #[test]
    fn missing_slot_waits_a_moment_and_then_a_peer_that_has_it_is_asked() {
        let mut catch_up = new_catch_up();
        assert_eq!(catch_up.look(Slot(0)), CatchUpStep::Nothing, "nothing is known to be missing");
        catch_up.on_progress(S3, Slot(5), 1);
        assert_eq!(
            (catch_up.look(Slot(0)), catch_up.look(Slot(0))),
            (CatchUpStep::Wait, CatchUpStep::Nothing),
            "it waits already"
        );
        assert_eq!(catch_up.waited(Slot(2), 1), CatchUpStep::Wait, "the log has grown: another slot is missing");
        assert_eq!(catch_up.waited(Slot(2), 1), CatchUpStep::Ask(S3));
        assert_eq!((catch_up.catch_up_peer(), catch_up.highest_chosen()), (Some(S3), Slot(5)));
        assert_eq!(
            catch_up.answered(S2, Some(Slot(3)), true, Slot(2)),
            CatchUpStep::Nothing,
            "it is not the peer that was asked"
        );
        assert_eq!(catch_up.answered(S3, Some(Slot(3)), true, Slot(3)), CatchUpStep::Ask(S3));
        assert_eq!(
            catch_up.answered(S3, Some(Slot(5)), false, Slot(5)),
            CatchUpStep::Nothing,
            "it has all that there is"
        );
    }

    #[test]
    fn helpful_peer_is_asked_twice_more_unless_it_is_down_or_given_up() {
        let helped = || {
            let mut catch_up = new_catch_up();
            catch_up.on_progress(S2, Slot(9), 1);
            catch_up.on_progress(S3, Slot(9), 1);
            assert_eq!(catch_up.request_from_a_peer(Slot(0), 1), CatchUpStep::Ask(S2));
            catch_up.wait_for(S2);
            catch_up
        };
        let mut catch_up = helped();
        let asked = [0; 4].map(|_| catch_up.request_from_a_peer(Slot(0), 1));
        assert_eq!(asked, [CatchUpStep::Ask(S2), CatchUpStep::Ask(S2), CatchUpStep::Ask(S3), CatchUpStep::Ask(S2)]);
        let mut catch_up = helped();
        assert_eq!(catch_up.answered(S2, Some(Slot(3)), true, Slot(3)), CatchUpStep::Ask(S2));
        assert_eq!(catch_up.answered(S2, None, false, Slot(3)), CatchUpStep::Wait, "an answer was lost");
        assert_eq!(catch_up.waited(Slot(3), 1), CatchUpStep::Ask(S2));
        let mut catch_up = helped();
        catch_up.give_up();
        assert_eq!(catch_up.request_from_a_peer(Slot(0), 1), CatchUpStep::Ask(S3));
        let mut catch_up = helped();
        catch_up.on_progress(S3, Slot(9), 1 + FRESH_TICKS);
        assert_eq!(
            catch_up.request_from_a_peer(Slot(0), 1 + FRESH_TICKS),
            CatchUpStep::Ask(S3),
            "the other peer is up"
        );
    }

    #[test]
    fn entries_of_an_earlier_request_do_not_end_the_pending_one() {
        let mut catch_up = new_catch_up();
        catch_up.on_progress(S3, Slot(50), 1);
        assert_eq!(catch_up.request_from_a_peer(Slot(0), 1), CatchUpStep::Ask(S3));
        // After the first answer, slots that arrived in other ways could be applied too.
        assert_eq!(catch_up.answered(S3, Some(Slot(10)), true, Slot(30)), CatchUpStep::Ask(S3));
        assert_eq!(catch_up.answered(S3, Some(Slot(20)), false, Slot(30)), CatchUpStep::Nothing);
        assert_eq!(catch_up.catch_up_peer(), Some(S3), "the request is still pending");
        assert_eq!(catch_up.answered(S3, Some(Slot(40)), true, Slot(40)), CatchUpStep::Ask(S3));
        assert_eq!(catch_up.answered(S3, None, false, Slot(40)), CatchUpStep::Wait, "it has nothing");
    }

    #[test]
    fn timeout_grows_with_each_missing_reply_and_shrinks_with_each_reply() {
        let mut catch_up = new_catch_up();
        catch_up.on_progress(S3, Slot(5), 1);
        let silences = [0; 5].map(|_| {
            catch_up.not_answered();
            catch_up.unanswered()
        });
        assert_eq!(silences, [1, 2, 3, 3, 3]);
        catch_up.wait_for(S3);
        assert_eq!(catch_up.unanswered(), 2, "a chunk has arrived");
        assert_eq!(
            (catch_up.answered(S2, Some(Slot(3)), true, Slot(3)), catch_up.unanswered()),
            (CatchUpStep::Nothing, 2)
        );
        assert_eq!(
            (catch_up.answered(S3, Some(Slot(3)), true, Slot(3)), catch_up.unanswered()),
            (CatchUpStep::Ask(S3), 1)
        );
    }

    #[test]
    fn next_peer_is_asked_after_a_missing_reply_and_live_peers_come_first() {
        let mut catch_up = new_catch_up();
        catch_up.note_chosen(Slot(9));
        let all = [0; 3].map(|now| catch_up.request_from_a_peer(Slot(0), now));
        assert_eq!(all, [CatchUpStep::Ask(S2), CatchUpStep::Ask(S3), CatchUpStep::Ask(S2)]);
        catch_up.on_progress(S2, Slot(9), 1);
        catch_up.on_progress(S3, Slot(9), 1 + FRESH_TICKS);
        assert_eq!(catch_up.live_peers(1 + FRESH_TICKS), [S1, S3].into_iter().collect());
        let all = [1 + FRESH_TICKS; 2].map(|now| catch_up.request_from_a_peer(Slot(0), now));
        assert_eq!(all, [CatchUpStep::Ask(S3), CatchUpStep::Ask(S3)]);
    }
}
