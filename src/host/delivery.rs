//! How a message leaves this server, how one that came reaches the roles that hear it, and what is told of those that do
//! not.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::budget::{Budget, Closed};
use super::core::ServerCore;
use super::env::Env;
use super::limits::Connection;
use super::lines;
use super::queue::{Lost, Mail};
use super::roles::Hosted;
use super::throttle::Throttle;
use super::time::Time;
use crate::kv::Kv;
use crate::net::{Envelope, EnvelopeOf, MessageKind, Newcomer, Said, frame_into};
use crate::paxos::{self, Acceptor, Learner, Message, Proposer, ProposerRequest, Slot};
use crate::role::{Input, Lane, RoleName, Server, Servers};
use crate::trace::{Context, Event, RoleTag};
use crate::two_phase_commit::{Coordinator, Participant};

/// What a frame has beside the values in it, about.
const FRAME_BYTES: usize = 64;
/// At most this many drops a second get a log line each.
const DROP_LINES: u32 = 1_000;

/// Messages that were lost.
#[derive(Debug)]
pub struct Drops {
    /// Not told one by one.
    untold: Mutex<BTreeMap<(RoleName, Cause), u64>>,
    lines: Throttle,
    total: AtomicU64,
}

impl Default for Drops {
    fn default() -> Drops {
        Drops { untold: Mutex::default(), lines: Throttle::new(DROP_LINES), total: AtomicU64::new(0) }
    }
}

/// Why a message was dropped, as its line says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The role is down.
    Crashed,
    /// Its mailbox is full.
    Full,
    /// The disk has no room for another value.
    DiskFull,
    /// The server does not take part: its folder is new, or its state wrong.
    Apart,
}

impl From<Lost> for Cause {
    fn from(lost: Lost) -> Cause {
        match lost {
            Lost::Down => Cause::Crashed,
            Lost::Full => Cause::Full,
        }
    }
}

/// What a role must be woken for.
#[derive(Clone, Copy, Debug)]
enum Haste {
    Yes,
    No,
    /// A value: of no use to a learner before it hears that it is chosen, unless that is what it waits for.
    IfBehind,
    /// Votes for slots up to this one: there are more acceptors than a majority needs.
    IfOpen(Slot),
    /// An answer in this round of reads, likewise. One that looks like it wakes the learner for nothing, and no more.
    IfRound(u64),
}

/// How a message has come to a role.
struct Came<'a> {
    from: Server,
    context: &'a Context,
    /// How much room it takes in the mailbox, in bytes.
    size: usize,
    lane: Lane,
    haste: Haste,
}

impl<C: Connection> ServerCore<C> {
    /// Sends a message to servers, this one perhaps among them. It is encoded once, and leaves with the next
    /// [`Env::flush_peers`]. A server that does not take part says nothing, to itself neither.
    pub fn send<E: Env<Connection = C>>(&self, env: &E, to: Servers, message: Said, context: Context) {
        if !self.admission.takes_part() {
            return;
        }
        let me = self.config.me;
        let others = to.without(Servers::only(me));
        if !others.is_empty() {
            let mut frame = Vec::with_capacity(FRAME_BYTES + message.size());
            frame_into(&EnvelopeOf { context: &context, message: &message }, &mut frame);
            env.to_peers(others, &message, frame);
        }
        if to.contains(me) {
            self.deliver(env, me, Envelope { context, message });
        }
    }

    /// Hands a message to the roles that hear it.
    pub fn deliver<E: Env<Connection = C>>(&self, env: &E, from: Server, envelope: Envelope) {
        let Envelope { context, message } = envelope;
        if !self.admission.takes_part() {
            for role in message.heard_by() {
                self.tell_drop(env.now(), *role, message.kind(), from, Cause::Apart, &context);
            }
            return;
        }
        let Some((last, before)) = message.heard_by().split_last() else { return };
        for role in before {
            self.deliver_to(env, *role, from, message.clone(), &context);
        }
        self.deliver_to(env, *last, from, message, &context);
    }

    fn deliver_to<E: Env<Connection = C>>(
        &self,
        env: &E,
        role: RoleName,
        from: Server,
        message: Said,
        context: &Context,
    ) {
        // Within one server values are shared, and take no room of their own.
        let size = if from == self.config.me { 0 } else { message.size() };
        let (kind, lane) = (message.kind(), message.lane());
        let came = Came { from, context, size, lane, haste: self.haste(role, from, &message) };
        let in_its_place = match (&message, role) {
            (Said::Paxos(said), RoleName::Proposer) => paxos::in_place_of_proposer(said),
            _ => None,
        };
        let lost = match (message, role) {
            (Said::Paxos(said), RoleName::Proposer) => self.take::<Proposer, E>(env, said, came),
            (Said::Paxos(said), RoleName::Acceptor) => self.take::<Acceptor, E>(env, said, came),
            (Said::Paxos(said), _) => self.take::<Learner<Kv>, E>(env, said, came),
            (Said::TwoPhaseCommit(said), RoleName::Coordinator) => self.take::<Coordinator, E>(env, said, came),
            (Said::TwoPhaseCommit(said), _) => self.take::<Participant, E>(env, said, came),
            // No role hears it.
            (Said::Here, _) => Ok(()),
        };
        if let (Err(Lost::Down), Some(answer)) = (lost, in_its_place) {
            self.send(env, Servers::only(from), Said::Paxos(answer), context.clone());
            env.flush_peers();
        } else if let Err(lost) = lost {
            self.tell_drop(env.now(), role, kind, from, lost.into(), context);
        }
    }

    fn take<R: Hosted, E: Env<Connection = C>>(
        &self,
        env: &E,
        message: R::Message,
        Came { from, context, size, lane, haste }: Came<'_>,
    ) -> Result<(), Lost> {
        let mail = Mail { context: context.clone(), input: Input::Message { from, message }, size, lane };
        self.leave::<R, E>(env, mail, |_| self.can_wait(haste))
    }

    /// Whether a role must be woken for a message. Some are only of use with another that does wake it, or are among many
    /// that say the same.
    fn haste(&self, role: RoleName, from: Server, message: &Said) -> Haste {
        let Said::Paxos(message) = message else { return Haste::Yes };
        match (role, message) {
            (RoleName::Learner, Message::Accept { .. }) => Haste::IfBehind,
            (RoleName::Learner, Message::Accepted { slots, .. }) => Haste::IfOpen(slots.last),
            (RoleName::Learner, Message::ReadAnswer { id, .. }) => Haste::IfRound(*id as u64),
            // How far others are is looked at only when something else happens. The own learner's first word starts work.
            (RoleName::Proposer, Message::Beat { .. }) if from != self.config.me => Haste::No,
            _ => Haste::Yes,
        }
    }

    fn can_wait(&self, haste: Haste) -> bool {
        let hints = &self.hints;
        match haste {
            Haste::Yes => false,
            Haste::No => true,
            Haste::IfBehind => !hints.is_learner_behind.load(Ordering::Relaxed),
            Haste::IfRound(id) => id != hints.round.load(Ordering::Relaxed),
            Haste::IfOpen(slot) => slot.0 <= hints.applied.load(Ordering::Relaxed),
        }
    }

    /// The last connection from a peer has ended: whoever waits for its silence need not.
    pub fn peer_gone<E: Env<Connection = C>>(&self, env: &E, peer: Server) {
        let input = Input::Request(ProposerRequest::PeerGone(peer));
        // If the proposer is down there is nobody to tell.
        let _ = self.post::<Proposer, E>(env, Mail::from_within(Context::default(), input, 0));
    }

    /// Tells that a message was dropped: in a line of its own where steps are shown, else in a count.
    pub fn tell_drop(
        &self,
        now: Time,
        role: RoleName,
        message: MessageKind,
        from: Server,
        cause: Cause,
        context: &Context,
    ) {
        self.drops.total.fetch_add(1, Ordering::Relaxed);
        if self.trace.steps() && !message.is_routine && self.drops.lines.lets_through(now) {
            self.line(role.into(), context, lines::dropped(message.name, Some(from), cause, None));
        } else {
            let mut untold = self.drops.untold.lock().unwrap_or_else(PoisonError::into_inner);
            *untold.entry((role, cause)).or_default() += 1;
        }
    }

    /// How many messages were dropped so far.
    pub fn dropped(&self) -> u64 {
        self.drops.total.load(Ordering::Relaxed)
    }

    /// The line for bytes that nobody understands. They are counted, and never shown.
    pub fn tell_malformed(&self, now: Time, from: SocketAddr, length: u64, what: &str) {
        if self.malformed.lets_through(now) {
            let why = format!("received malformed request of length {length} from {from}: {what}");
            self.line_because(RoleTag::Server, &Context::default(), Event::Malformed { length, from }, Some(why));
        }
    }

    /// Once a second: a line for what happened since and was not told.
    pub fn report_counts(&self) {
        let untold = std::mem::take(&mut *self.drops.untold.lock().unwrap_or_else(PoisonError::into_inner));
        for ((role, cause), count) in untold {
            self.line(role.into(), &Context::default(), lines::dropped("any", None, cause, Some(count)));
        }
        let malformed = self.malformed.take_held_back();
        if malformed > 0 {
            let event = lines::dropped("MALFORMED", None, Cause::Full, Some(malformed));
            let why = format!("{malformed} more malformed requests were received, too many for a line each");
            self.line_because(RoleTag::Server, &Context::default(), event, Some(why));
        }
        self.tell_closed(&self.load.unfinished, "unfinished requests", "had sent part of a request");
        self.tell_closed(&self.load.untaken, "untaken replies", "had not taken its replies");
        self.tell_newness();
    }

    /// A line for the clients that were let go since.
    fn tell_closed(&self, budget: &Budget, cause: &str, what: &str) {
        let Some(Closed { count, bytes, first }) = budget.take_closed() else { return };
        let why = format!(
            "closed {count} connections of clients, the first from {first}: each {what} for longest. They held {bytes} bytes, \
             and all clients together may hold {}. Other clients are served; find out who floods this server",
            budget.max_bytes()
        );
        self.tell_fault("clients", cause, &why);
    }

    /// A line for what a server waits for whose folder is new, if that is another than before.
    fn tell_newness(&self) {
        let now = self.admission.newness();
        let before = std::mem::replace(&mut *self.newness.lock().unwrap_or_else(PoisonError::into_inner), now);
        if let Some(Newcomer { known_to, needed }) = now.filter(|_| now != before) {
            let why = format!(
                "the data folder of this server is new: it takes part once {needed} others know it, and so far {known_to} do. \
                 Start the others. If this server had another data folder before, bring that one back"
            );
            self.tell_fault("folder", "new", &why);
        }
    }
}
