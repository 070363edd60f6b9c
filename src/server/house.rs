//! One server: what its roles, its links and its front desk share.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crossbeam_channel::bounded;

use super::board::Board;
use super::keeper::Keeper;
use super::lines;
use super::mailbox::Mailbox;
use super::options::Options;
use super::outlet::Outlet;
use super::standing::Standing;
use super::throttle::Throttle;
use crate::host::queue::{Lost, Mail};
use crate::host::{Load, Pending};
use crate::kv::Kv;
use crate::net::{Envelope, EnvelopeOf, Link, MessageKind, Newcomer, Said, Unknown, WhyNotApplied, frame_into};
use crate::paxos::{Acceptor, Learner, Message, Proposer, ProposerRequest, Slot};
use crate::role::{Input, Role, RoleName, Server, Servers};
use crate::trace::{Context, Draft, Event, RoleTag, Text, Trace};
use crate::two_phase_commit::{Coordinator, Participant};

/// How long a dying process waits for its terminal.
const FLUSH: Duration = Duration::from_millis(200);
/// At most this many drops a second get a log line each.
const DROP_LINES: u32 = 1_000;
/// What a frame has beside the values in it, about.
const FRAME_BYTES: usize = 64;
/// At most this many sessions a second are opened, by all clients together. Each goes through the log, and the table of
/// them is bounded.
const OPENS_PER_SECOND: u32 = 1_000;
/// At most this many malformed requests a second get a log line each.
const MALFORMED_LINES: u32 = 100;

/// The shared part of a server.
pub struct House {
    /// Which server it is.
    pub me: Server,
    /// All servers.
    pub cluster: Servers,
    /// How it was started.
    pub options: Options,
    /// Where its lines go.
    pub trace: Trace,
    /// The proposer's mailbox.
    pub proposer: Mailbox<Proposer>,
    /// The acceptor's mailbox.
    pub acceptor: Mailbox<Acceptor>,
    /// The learner's mailbox.
    pub learner: Mailbox<Learner<Kv>>,
    /// The coordinator's mailbox, under two-phase commit.
    pub coordinator: Mailbox<Coordinator>,
    /// The participant's mailbox, under two-phase commit.
    pub participant: Mailbox<Participant>,
    /// Who waits for an outcome.
    pub pending: Pending<Arc<Outlet>>,
    /// What all clients together have under way.
    pub load: Arc<Load>,
    /// Sessions that all clients together may open.
    pub opens: Throttle,
    /// What others may see of the roles.
    pub board: Board,
    /// The links to the other servers; set once, when the server's own ports are open.
    pub links: OnceLock<BTreeMap<Server, Link>>,
    /// The roles whose disks have no room for another value: one bit a role.
    full_disks: AtomicU64,
    /// What the roles need not be woken for.
    pub demand: Demand,
    /// Writes the state down; set once, before any role starts.
    pub keeper: OnceLock<Keeper>,
    /// Whether it takes part in anything.
    pub standing: Standing,
    /// What was last told of what it waits for if its folder is new.
    newness: Mutex<Option<Newcomer>>,
    drops: Drops,
    malformed: Throttle,
}

/// What a role's state is like after its last turn, as far as it says what the role must be woken for.
#[derive(Debug, Default)]
pub struct Demand {
    /// The proposer waits for slots to be applied.
    pub wants_applied: AtomicBool,
    /// The proposer can do nothing with more commands before so many have come.
    pub worth: AtomicUsize,
    /// The learner knows of chosen slots that it cannot apply.
    pub is_learner_behind: AtomicBool,
    /// The last slot that the learner has applied.
    pub applied: AtomicU64,
    /// The learner's round of reads under way, as far as it fits in here; 0 if there is none.
    pub round: AtomicU64,
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

/// Messages that were lost.
struct Drops {
    /// Not told one by one.
    untold: Mutex<BTreeMap<(RoleName, Cause), u64>>,
    lines: Throttle,
    total: AtomicU64,
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

impl House {
    /// A server whose roles are still down.
    pub fn new(me: Server, cluster: Servers, options: Options, trace: Trace, standing: Standing) -> House {
        House {
            me,
            cluster,
            options,
            trace,
            proposer: Mailbox::closed(),
            acceptor: Mailbox::closed(),
            learner: Mailbox::closed(),
            coordinator: Mailbox::closed(),
            participant: Mailbox::closed(),
            pending: Pending::default(),
            load: Arc::default(),
            opens: Throttle::new(OPENS_PER_SECOND),
            board: Board::default(),
            links: OnceLock::new(),
            full_disks: AtomicU64::new(0),
            demand: Demand::default(),
            keeper: OnceLock::new(),
            standing,
            newness: Mutex::new(None),
            drops: Drops { untold: Mutex::default(), lines: Throttle::new(DROP_LINES), total: AtomicU64::new(0) },
            malformed: Throttle::new(MALFORMED_LINES),
        }
    }

    /// Whether a role lives.
    pub fn is_up(&self, role: RoleName) -> bool {
        match role {
            RoleName::Proposer => self.proposer.is_open(),
            RoleName::Acceptor => self.acceptor.is_open(),
            RoleName::Learner => self.learner.is_open(),
            RoleName::Coordinator => self.coordinator.is_open(),
            RoleName::Participant => self.participant.is_open(),
        }
    }

    /// A life of a role says whether its disk has room: when it begins, and when that changes.
    pub fn set_room(&self, role: RoleName, has_room: bool) {
        let bit = 1 << role as u64;
        if has_room {
            self.full_disks.fetch_and(!bit, Ordering::Relaxed);
        } else {
            self.full_disks.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Whether a role that lives has no room on its disk for another value. Of the others nobody knows.
    pub fn is_disk_full(&self) -> bool {
        let full = self.full_disks.load(Ordering::Relaxed);
        RoleName::EVERY.into_iter().any(|role| full & 1 << role as u64 != 0 && self.is_up(role))
    }

    /// Sends a message to servers, this one perhaps among them. It is encoded once, and leaves with the next
    /// [`House::flush`]. One that does not take part says nothing, to itself neither.
    pub fn send(&self, to: Servers, message: Said, context: Context) {
        if !self.standing.takes_part() {
            return;
        }
        let others = to.without(Servers::only(self.me));
        if !others.is_empty()
            && let Some(links) = self.links.get()
        {
            let mut bytes = Vec::with_capacity(FRAME_BYTES + message.size());
            frame_into(&EnvelopeOf { context: &context, message: &message }, &mut bytes);
            for link in others.iter().filter_map(|server| links.get(&server)) {
                // A link that is down or full drops: Paxos sends again.
                link.push(&bytes);
            }
        }
        if to.contains(self.me) {
            self.deliver(self.me, Envelope { context, message });
        }
    }

    /// Writes what is to be said to other servers, with one write a server. Whoever sends calls this when it has said all
    /// that it has to say.
    pub fn flush(&self) {
        self.links.get().into_iter().flat_map(BTreeMap::values).for_each(Link::flush);
    }

    /// Hands a message to the roles that hear it.
    pub fn deliver(&self, from: Server, envelope: Envelope) {
        let Envelope { context, message } = envelope;
        if !self.standing.takes_part() {
            for role in message.heard_by() {
                self.tell_drop(*role, message.kind(), from, Cause::Apart, &context);
            }
            return;
        }
        let Some((last, before)) = message.heard_by().split_last() else { return };
        for role in before {
            self.deliver_to(*role, from, message.clone(), &context);
        }
        self.deliver_to(*last, from, message, &context);
    }

    fn deliver_to(&self, role: RoleName, from: Server, message: Said, context: &Context) {
        // Within the house values are shared, and take no room of their own.
        let size = if from == self.me { 0 } else { message.size() };
        let kind = message.kind();
        let haste = self.haste(role, from, &message);
        let can_wait = move |_| self.can_wait(haste);
        let lost = match (message, role) {
            (Said::Paxos(said), RoleName::Proposer) => leave(&self.proposer, from, said, context, size, can_wait),
            (Said::Paxos(said), RoleName::Acceptor) => leave(&self.acceptor, from, said, context, size, can_wait),
            (Said::Paxos(said), _) => leave(&self.learner, from, said, context, size, can_wait),
            (Said::TwoPhaseCommit(said), RoleName::Coordinator) => {
                leave(&self.coordinator, from, said, context, size, can_wait)
            }
            (Said::TwoPhaseCommit(said), _) => leave(&self.participant, from, said, context, size, can_wait),
            // No role hears it.
            (Said::Here, _) => Ok(()),
        };
        if let Err(lost) = lost {
            self.tell_drop(role, kind, from, lost.into(), context);
        }
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
            (RoleName::Proposer, Message::Beat { .. }) if from != self.me => Haste::No,
            _ => Haste::Yes,
        }
    }

    fn can_wait(&self, haste: Haste) -> bool {
        match haste {
            Haste::Yes => false,
            Haste::No => true,
            Haste::IfBehind => !self.demand.is_learner_behind.load(Ordering::Relaxed),
            Haste::IfRound(id) => id != self.demand.round.load(Ordering::Relaxed),
            Haste::IfOpen(slot) => slot.0 <= self.demand.applied.load(Ordering::Relaxed),
        }
    }

    /// Tells that a message was dropped: in a line of its own where steps are shown, else in a count.
    pub fn tell_drop(&self, role: RoleName, message: MessageKind, from: Server, cause: Cause, context: &Context) {
        self.drops.total.fetch_add(1, Ordering::Relaxed);
        if self.trace.steps() && !message.is_routine && self.drops.lines.lets_through() {
            self.line(role.into(), context, lines::dropped(message.name, Some(from), cause, None));
        } else {
            let mut untold = self.drops.untold.lock().unwrap_or_else(PoisonError::into_inner);
            *untold.entry((role, cause)).or_default() += 1;
        }
    }

    /// The line for bytes that nobody understands. They are counted, and never shown.
    pub fn tell_malformed(&self, from: SocketAddr, length: u64, what: &str) {
        if self.malformed.lets_through() {
            let why = format!("received malformed request of length {length} from {from}: {what}");
            self.line_because(RoleTag::Server, &Context::default(), Event::Malformed { length, from }, Some(why));
        }
    }

    /// Once a second: a line for what happened since and was not told.
    pub fn tell_counts(&self) {
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
        self.tell_newness();
    }

    /// A line for what a server waits for whose folder is new, if that is another than before.
    fn tell_newness(&self) {
        let now = self.standing.newness();
        let before = std::mem::replace(&mut *self.newness.lock().unwrap_or_else(PoisonError::into_inner), now);
        if let Some(Newcomer { known_to, needed }) = now.filter(|_| now != before) {
            let why = format!(
                "the data folder of this server is new: it takes part once {needed} others know it, and so far {known_to} do. \
                 Start the others. If this server had another data folder before, bring that one back"
            );
            self.tell_fault("folder", "new", &why);
        }
    }

    /// Something outside failed, and the server goes on.
    pub fn tell_fault(&self, part: &str, cause: &str, why: &str) {
        let event = Event::Fault { part: Text::new(part), cause: Text::new(cause) };
        self.line_because(RoleTag::Server, &Context::default(), event, Some(why.to_string()));
    }

    /// How many messages were dropped so far.
    pub fn dropped(&self) -> u64 {
        self.drops.total.load(Ordering::Relaxed)
    }

    /// Writes one line; gives the context for what comes from it.
    pub fn line(&self, role: RoleTag, context: &Context, event: Event) -> Context {
        self.line_because(role, context, event, None)
    }

    /// Writes one line with a reason for people.
    pub fn line_because(&self, role: RoleTag, context: &Context, event: Event, why: Option<String>) -> Context {
        let draft = Draft { why, ..Draft::about(role, event, context) };
        let id = self.trace.line(draft);
        Context { re: id.or_else(|| context.re.clone()), req: context.req.clone() }
    }

    /// The state of this server is not that of the others: it says nothing more to anybody, and whoever waits is told so.
    pub fn fence(&self, draft: Draft, slot: Slot) {
        self.standing.fence();
        self.keeper.get().into_iter().for_each(|keeper| keeper.fence(slot));
        self.board.update(|shown| shown.fenced = Some(slot));
        let sentence = draft.why.clone().unwrap_or_default();
        self.trace.line(draft);
        say_last(format!("error: server {}: {sentence}", self.me.0));
        self.pending.role_died(Unknown::RoleDied(RoleName::Learner), Some(WhyNotApplied::Fenced));
        let input = Input::Request(ProposerRequest::LearnerDown);
        let _ = self.proposer.post_reserved(Mail { context: Context::default(), input, size: 0 });
    }

    /// Ends the process: nobody knows any more what is on the disk, or what the program does.
    pub fn fatal(&self, sentence: &str) -> ! {
        self.tell_fault("server", "stopped", sentence);
        say_last(format!("error: server {} stops: {sentence}. What it acknowledged is safe", self.me.0));
        self.trace.flush(FLUSH);
        std::process::exit(1)
    }
}

/// Shows a sentence on the terminal, but does not wait long for one that takes nothing.
fn say_last(sentence: String) {
    let (said, heard) = bounded(1);
    let say = move || {
        eprintln!("{sentence}");
        // Whoever waited may have gone.
        let _ = said.send(());
    };
    // If there is no thread to be had, the line in the file has said it.
    if std::thread::Builder::new().spawn(say).is_ok() {
        let _ = heard.recv_timeout(FLUSH);
    }
}

fn leave<R: Role>(
    mailbox: &Mailbox<R>,
    from: Server,
    message: R::Message,
    context: &Context,
    size: usize,
    can_wait: impl FnOnce(usize) -> bool,
) -> Result<(), Lost> {
    let mail = Mail { context: context.clone(), input: Input::Message { from, message }, size };
    mailbox.leave(mail, can_wait)
}
