//! A learner that is further behind than anybody's log reaches gets the state instead of the log.
//!
//! Whoever is asked for slots that it no longer has answers with the first part of its durable checkpoint. The receiver
//! asks for one part after the other, puts them together beside the state that it has, and takes the new one in its place
//! when it is whole and has the digest that it should have: in one step, and never for one that is older. The sender
//! applies and serves as before; its checkpoint is read as of one slot.
//!
//! A part that does not come is asked for again. If the sender has been started again meanwhile, or has let that state go,
//! it begins anew with the state that it has. If it stays silent, the next peer is asked.

use super::learner::{Learner, LearnerFact, LearnerOutcome, LearnerTimer};
use super::row::Row;
use super::{Message, PartName, PartToken, Slot, SnapshotPart, StateMachine, rules};
use crate::role::{Output, Server, Servers};

/// A part is asked for so many times before another peer is.
const PART_TRIES: u32 = 5;

/// A state that is coming in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Incoming<M> {
    from: Server,
    slot: Slot,
    digest: u64,
    /// The part to come.
    index: u32,
    token: PartToken,
    /// How often it was asked for.
    tries: u32,
    /// What has come, put together.
    state: M,
}

impl<M: StateMachine> Learner<M> {
    /// CATCHUP for slots that the log no longer has: the checkpoint is sent, if it is of any use. If it is too old, since
    /// the log has outgrown its limit meanwhile, a new one is made for whoever asks again.
    pub(super) fn offer_snapshot(&mut self, peer: Server, from: Slot, out: &mut Output<Self>) {
        if self.past.durable >= from {
            out.outcome(LearnerOutcome::SnapshotAsked { to: peer, part: None });
        } else {
            self.want_checkpoint(out);
            out.send(Servers::only(peer), Message::Entries { entries: Vec::new(), applied: self.applied });
        }
    }

    /// FETCH: somebody wants the next part.
    pub(super) fn handle_fetch(&self, peer: Server, part: PartName, out: &mut Output<Self>) {
        out.outcome(LearnerOutcome::SnapshotAsked { to: peer, part: Some(part) });
    }

    /// SNAPSHOT: a part of a state.
    pub(super) fn handle_snapshot(&mut self, peer: Server, part: SnapshotPart, out: &mut Output<Self>) {
        if self.asked.is_some_and(|asked| asked != peer) {
            // Of somebody who was given up: it comes too late.
            return;
        }
        if !rules::may_install(part.slot, self.applied) {
            // The log was faster.
            return self.give_up_snapshot(out);
        }
        let is_next = |incoming: &Incoming<M>| {
            (incoming.from, incoming.slot, incoming.digest, incoming.index)
                == (peer, part.slot, part.digest, part.index)
        };
        let mut incoming = match self.incoming.take() {
            Some(incoming) if is_next(&incoming) => incoming,
            _ if part.index == 0 => Incoming {
                from: peer,
                slot: part.slot,
                digest: part.digest,
                index: 0,
                token: PartToken::first(),
                tries: 0,
                state: self.machine.empty(),
            },
            // A part that came twice, or of a state that was begun anew. Nobody is waited for because of it: no timer runs.
            before => {
                self.incoming = before;
                return;
            }
        };
        self.asked = Some(peer);
        if incoming.state.load(&part.bytes).is_err() {
            return self.give_up_snapshot(out);
        }
        match part.next {
            Some(token) => {
                let Some(index) = part.index.checked_add(1) else { return self.give_up_snapshot(out) };
                (incoming.index, incoming.token, incoming.tries) = (index, token, 0);
                self.incoming = Some(incoming);
                self.fetch(out);
            }
            None if incoming.state.digest() == part.digest => self.install(peer, part.slot, incoming.state, out),
            None => self.give_up_snapshot(out),
        }
    }

    /// Asks for the part to come.
    fn fetch(&mut self, out: &mut Output<Self>) {
        if let Some(Incoming { from, slot, index, token, tries, .. }) = &mut self.incoming {
            *tries += 1;
            let part = PartName { slot: *slot, index: *index, token: token.clone() };
            out.send(Servers::only(*from), Message::Fetch(part));
            out.arm(LearnerTimer::CatchUp);
        }
    }

    /// A part has not come in time. False if there is no state under way, or no hope for it any more.
    pub(super) fn fetch_again(&mut self, out: &mut Output<Self>) -> bool {
        if self.incoming.as_ref().is_some_and(|incoming| incoming.tries < PART_TRIES) {
            self.fetch(out);
            return true;
        }
        self.incoming = None;
        false
    }

    fn give_up_snapshot(&mut self, out: &mut Output<Self>) {
        (self.incoming, self.asked) = (None, None);
        self.look_for_missing(out);
    }

    /// The new state takes the place of the old one.
    fn install(&mut self, from: Server, slot: Slot, state: M, out: &mut Output<Self>) {
        assert!(rules::may_install(slot, self.applied), "the state of {slot:?} would undo {:?}", self.applied);
        (self.machine, self.applied) = (state, slot);
        self.known = self.known.max(slot);
        self.log = Row::from(slot.next());
        self.open.end_below(slot.next());
        self.past.log_bytes = 0;
        self.forget_digests();
        self.asked = None;
        let digest = self.machine.digest();
        out.fact(|| LearnerFact::Installed { slot, digest, from });
        out.outcome(LearnerOutcome::Installed { slot, digest, from });
        // It is not durable here before it is in the own checkpoint.
        self.want_checkpoint(out);
        self.advance(out);
        self.answer_reads(out);
        if self.applied < self.known {
            self.ask(from, out);
        }
    }
}
