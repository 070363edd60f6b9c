//! One simulated server: its folder, its process, and the rules by which the real one's threads work together.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::folder::{CLUSTER, Folder, ROOM_RETRY, Refusal};
use super::front::SimConnection;
use super::keeper::Keeper;
use super::living::{Doing, Housed, Living};
use super::marks::Mark;
use super::nature::{Event, Micros, Nature, Place};
use super::network::Node;
use super::plan::Plan;
use super::reigns::WINDOW;
use crate::host::queue::{Lost, Mail, Room};
use crate::host::{Asker, Load, Pending};
use crate::kv::Kv;
use crate::museum::{self, Bug};
use crate::net::{Envelope, PEER_FRAME_MAX_BYTES, Said, WhyNotApplied, frame, unframe};
use crate::paxos::{
    Acceptor, AcceptorRecord, Learner, Life, Message, Proposer, ProposerRequest, Quorums, Retention, Slot, StateMachine,
};
use crate::protocol::Protocol;
use crate::role::{Input, Role, RoleName, Server, Servers};
use crate::server::house::Cause;
use crate::server::lines;
use crate::storage::admission::Claim;
use crate::storage::disk::MemoryFiles;
use crate::storage::identity::{Identity, Owner, short_disk};
use crate::trace::{
    Context, Digest, DiskName, Draft, Event as LineEvent, HistoryName, MaybeBallot, RestartMode, RoleTag, Text, Trace,
};
use crate::two_phase_commit::{self, Coordinator, Participant};

/// What goes over a link before anything else: who is there.
pub const GREETING: [u8; 1] = [0];

/// A server, whether its process runs or not.
pub struct SimServer {
    /// Which.
    pub me: Server,
    /// All servers.
    pub cluster: Servers,
    /// What outlives the process.
    pub folder: Folder,
    /// The storage id that a new folder gets.
    pub storage: u64,
    /// The process, if it runs.
    pub process: Option<Process>,
    /// What its last process has drawn.
    boot: u64,
    /// It does nothing until then.
    pub paused_until: Micros,
    /// How long a role takes to get the processor.
    pub processor: RangeInclusive<Micros>,
    /// How long a sync takes.
    pub sync: RangeInclusive<Micros>,
    /// How fast its clock runs, in percent.
    pub clock: u64,
    /// How far its wall clock is wrong, in microseconds. Nothing but the time stamps of its lines depends on it.
    pub wall_clock: Arc<AtomicI64>,
    /// The lines of all its processes, if somebody wants them.
    pub lines: Option<String>,
    /// Its checkpoint was damaged.
    pub is_checkpoint_harmed: bool,
    /// Parts of a snapshot have so many bytes.
    pub snapshot_bytes: usize,
    /// The process in whose time its disk was damaged.
    pub harmed_in: Option<u64>,
    /// How much of the past its learner keeps.
    pub retention: Retention,
    /// Its disk is a new one, and its peers know.
    pub is_stranger: bool,
    /// The storage id of the folder with which it has begun to take part.
    pub(super) takes_part_with: Option<u64>,
    /// What its last process has said of itself.
    last_claim: Option<Claim>,
    /// Its own folder and that one's storage id, while it has another one.
    pub(super) own: Option<(Folder, u64)>,
    /// Its acceptor comes back without its memory: the lab's unsafe mode.
    pub forgets: bool,
    /// Its folder is known to the others from the start.
    is_acquainted: bool,
    quorums: Quorums,
    pub(super) protocol: Protocol,
    pub(super) segment_bytes: u64,
    pub(super) limits: Limits,
}

/// What is smaller than in a real server, so that a run of a few commands meets it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) mailbox: usize,
    part_bytes: usize,
    pub(super) sessions: usize,
}

/// A process: what a kill ends.
pub struct Process {
    /// Which of all processes.
    pub number: u64,
    /// Whose folder it uses.
    pub identity: Identity<MemoryFiles>,
    /// Where its lines go.
    pub trace: Trace,
    /// Who waits.
    pub pending: Pending<SimConnection>,
    /// What its clients have under way.
    pub load: Arc<Load>,
    /// The proposer, if it lives.
    pub proposer: Option<Living<Proposer>>,
    /// The acceptor.
    pub acceptor: Option<Living<Acceptor>>,
    /// The learner.
    pub learner: Option<Living<Learner<Kv>>>,
    /// The coordinator, under two-phase commit.
    pub coordinator: Option<Living<Coordinator>>,
    /// The participant, under two-phase commit.
    pub participant: Option<Living<Participant>>,
    /// The checkpoint.
    pub keeper: Option<Keeper>,
    /// The state was found to be wrong.
    pub is_fenced: bool,
    /// Peers whose storage id is known to be right.
    pub met: Servers,
    /// Peers that have told this process that they know its folder.
    pub known_to: Servers,
    /// Why it must stop.
    pub fatal: Option<String>,
}

impl Process {
    /// Why it takes no part; None if it does.
    pub fn refusal(&self) -> Option<WhyNotApplied> {
        if self.is_fenced {
            return Some(WhyNotApplied::Fenced);
        }
        (!self.identity.takes_part() && !museum::is(Bug::NewDiskVotes)).then_some(WhyNotApplied::Newcomer)
    }
}

impl SimServer {
    /// A server of this plan that was never started.
    pub fn new(plan: &Plan, me: Server, storage: u64, lines: bool) -> SimServer {
        SimServer {
            me,
            cluster: plan.cluster(),
            folder: Folder::default(),
            storage,
            process: None,
            boot: 0,
            paused_until: 0,
            processor: plan.processor.clone(),
            sync: plan.sync.clone(),
            clock: plan.clocks[usize::from(me.0) - 1],
            wall_clock: Arc::default(),
            lines: lines.then(String::new),
            is_checkpoint_harmed: false,
            snapshot_bytes: plan.snapshot_bytes,
            harmed_in: None,
            retention: plan.retention,
            is_stranger: false,
            takes_part_with: None,
            last_claim: None,
            own: None,
            forgets: false,
            is_acquainted: plan.is_acquainted,
            quorums: plan.quorums(),
            protocol: plan.protocol,
            segment_bytes: plan.segment_bytes,
            limits: Limits { mailbox: plan.mailbox, part_bytes: plan.part_bytes, sessions: plan.sessions },
        }
    }

    /// It gets an empty folder, as on the first day. Its process does not run.
    pub fn begin_anew(&mut self, storage: u64) {
        (self.folder, self.storage) = (Folder::default(), storage);
        (self.is_checkpoint_harmed, self.harmed_in, self.is_stranger) = (false, None, false);
        (self.takes_part_with, self.own, self.last_claim) = (None, None, None);
    }

    /// Whose its folder is.
    pub(super) fn owner(&self) -> Owner<'static> {
        Owner { cluster: CLUSTER, quorums: self.quorums, server: self.me }
    }

    /// The last slot that its learner has applied; None if there is no learner, or one that is wrong.
    pub fn applied(&self) -> Option<(Slot, u64)> {
        if !self.protocol.is_paxos() {
            return self.settled();
        }
        let learner = &self.process.as_ref()?.learner.as_ref()?.role;
        if learner.fenced().is_some() {
            return None;
        }
        Some((learner.applied(), learner.machine().digest()))
    }

    /// Length of the journal's files.
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Whether the process runs and is not paused.
    pub fn is_awake(&self, now: Micros) -> bool {
        self.process.is_some() && self.paused_until <= now
    }

    /// Starts the process: the identity first, then the acceptor, the learner and the proposer.
    pub fn start(&mut self, nature: &mut Nature) -> Result<(), Refusal> {
        let identity = self.folder.identity(self.owner(), self.storage)?;
        let life = identity.begin_life()?;
        if self.quorums.witnesses() == 0 || self.is_acquainted {
            identity.set_takes_part()?;
        }
        let trace = match self.lines {
            // One that nobody believes tells nothing either: its lines would contradict those of its old disk.
            Some(_) if !self.is_stranger => {
                let (clock, wrong_by) = (nature.clock(), self.wall_clock.clone());
                Trace::to_memory_at(crate::trace::Process::server(self.me, life), move || {
                    let wrong_by = SignedDuration::from_micros(wrong_by.load(Ordering::Relaxed));
                    time_of(clock.load(Ordering::Relaxed)).saturating_add(wrong_by).unwrap_or(Timestamp::MAX)
                })
            }
            _ => Trace::disabled(),
        };
        self.boot = nature.new_life();
        self.process = Some(Process {
            number: self.boot,
            identity,
            trace,
            pending: Pending::default(),
            load: Arc::default(),
            proposer: None,
            acceptor: None,
            learner: None,
            coordinator: None,
            participant: None,
            keeper: None,
            is_fenced: false,
            met: Servers::only(self.me),
            known_to: Servers::NONE,
            fatal: None,
        });
        if self.protocol.is_paxos() {
            self.open_checkpoint(nature)?;
        }
        for role in self.protocol.roles() {
            match self.start_role(nature, *role, None) {
                Err(Refusal::NoRoom(_)) => self.await_room(nature, *role),
                started => started?,
            }
        }
        self.tell_boot();
        Ok(())
    }

    /// The acceptor that a new process would find, and whether something of its disk is lost; None if there never was one.
    pub fn read_disk(&self) -> Result<Option<(Acceptor, bool)>, Refusal> {
        let identity = self.folder.identity(self.owner(), self.storage)?;
        if !identity.has_journal() {
            return Ok(None);
        }
        let (_, records, _, is_damaged) = self.folder.open_journal(&identity, self.segment_bytes)?;
        let mut acceptor = Acceptor::new(Life(0));
        for record in records {
            acceptor.replay(record);
        }
        Ok(Some((acceptor.with_checkpoint(self.checkpoint_slot(&identity)), is_damaged)))
    }

    /// Gives a role its memory back. `down` is None at the start of the process.
    pub fn start_role(&mut self, nature: &mut Nature, role: RoleName, down: Option<Duration>) -> Result<(), Refusal> {
        match role {
            RoleName::Proposer => self.start_proposer(nature, down),
            RoleName::Acceptor => self.start_acceptor(nature, down),
            RoleName::Learner => self.start_learner(nature, down),
            RoleName::Coordinator => self.start_coordinator(nature, down),
            RoleName::Participant => self.start_participant(nature, down),
        }
    }

    /// There is no room for what a life of a role begins with: it is tried again.
    pub fn await_room(&self, nature: &mut Nature, role: RoleName) {
        nature.mark(Mark::WaitedForRoom);
        if let Some(process) = &self.process {
            nature.after(ROOM_RETRY, Event::Restart { role, server: self.me, process: process.number });
        }
    }

    fn start_proposer(&mut self, nature: &mut Nature, down: Option<Duration>) -> Result<(), Refusal> {
        let Some(process) = &mut self.process else { return Ok(()) };
        let (rounds, record) = self.folder.open_rounds(&process.identity)?;
        let mut proposer = Proposer::new(self.me, self.quorums, self.protocol.policy()).with_window(WINDOW);
        proposer.replay(record);
        if let Some(down) = down {
            self.line(RoleTag::Proposer, lines::restarted_proposer(down, proposer.next_round()));
        }
        nature.ghost.died(self.me, RoleName::Proposer, 0);
        self.begin::<Proposer>(nature, proposer, rounds);
        Ok(())
    }

    fn start_acceptor(&mut self, nature: &mut Nature, down: Option<Duration>) -> Result<(), Refusal> {
        let Some(process) = &mut self.process else { return Ok(()) };
        if (self.forgets || museum::is(Bug::ForgetfulAcceptorVotes)) && down.is_some() {
            process.identity.set_has_journal(false)?;
            self.folder.journal = Default::default();
        }
        let (journal, records, cut, is_damaged) = self.folder.open_journal(&process.identity, self.segment_bytes)?;
        if cut {
            nature.mark(Mark::TornTail);
        }
        if nature.chance(300) {
            self.recover_again(nature, &records);
        }
        let Some(process) = &mut self.process else { return Ok(()) };
        let life = Life(process.identity.begin_role_life()?);
        let mut acceptor = Acceptor::new(life).with_part_bytes(self.limits.part_bytes);
        for record in records {
            acceptor.replay(record);
        }
        let checkpoint = process.keeper.as_ref().map_or(Slot(0), Keeper::slot);
        let acceptor = acceptor.with_checkpoint(checkpoint);
        nature.ghost.recovered(self.me, &acceptor, is_damaged, &mut nature.marks);
        if let Some(down) = down {
            let accepted = acceptor.accepted().len() as u64;
            self.line(RoleTag::Acceptor, lines::restarted_acceptor(down, self.forgets, acceptor.promised(), accepted));
        }
        self.begin::<Acceptor>(nature, acceptor, journal);
        Ok(())
    }

    fn start_learner(&mut self, nature: &mut Nature, down: Option<Duration>) -> Result<(), Refusal> {
        let (slot, state) = self.load_checkpoint(nature)?;
        let Some(process) = &mut self.process else { return Ok(()) };
        let life = Life(process.identity.begin_role_life()?);
        let learner = Learner::new(self.me, self.quorums, life, slot, state)
            .with_retention(self.retention)
            .with_part_bytes(self.limits.part_bytes)
            .under(self.protocol.policy());
        if let Some(down) = down {
            let (applied, digest) = (learner.applied(), learner.machine().digest());
            self.line(RoleTag::Learner, lines::restarted_learner(down, applied, digest));
        }
        nature.ghost.learner_started(self.me, slot, &mut nature.marks);
        self.begin::<Learner<Kv>>(nature, learner, crate::role::NoDisk);
        Ok(())
    }

    /// Recovery changes nothing that it finds: another one finds the same.
    fn recover_again(&self, nature: &mut Nature, records: &[AcceptorRecord]) {
        let Some(process) = &self.process else { return };
        let copy = Folder { top: self.folder.top.fork(), journal: self.folder.journal.fork(), ..Folder::default() };
        // Whether there is room for another life is another matter.
        copy.journal.set_capacity(None);
        let again = copy.open_journal(&process.identity, self.segment_bytes);
        // Files that nobody needs may be gone by then, so what is known counts, and not what it was put together from.
        let known = |records: &[AcceptorRecord]| {
            let mut acceptor = Acceptor::new(Life(0));
            records.iter().for_each(|record| acceptor.replay(record.clone()));
            acceptor
        };
        let same = again.is_ok_and(|(_, found, ..)| known(&found) == known(records));
        let me = self.me;
        nature.ghost.require(22, same, || format!("{me} recovers its journal twice, and differently"));
    }

    pub(super) fn begin<R: Housed>(&mut self, nature: &mut Nature, role: R, disk: R::Disk) {
        let Some(process) = &mut self.process else { return };
        let number = nature.new_life();
        *R::place(process) = Some(Living::new(role, disk, number, nature.now(), self.limits.mailbox));
        self.wake::<R>(nature);
    }

    /// Lets a role that is idle have the processor soon.
    pub fn wake<R: Housed>(&mut self, nature: &mut Nature) {
        let (me, now) = (self.me, nature.now());
        let Some(process) = self.process.as_mut().filter(|_| self.paused_until <= now) else { return };
        let Some(living) = R::place(process) else { return };
        if matches!(living.doing, Doing::Nothing) && living.has_work(now) {
            living.doing = Doing::Waiting;
            let role = Place { server: me, role: R::NAME, life: living.number };
            let delay = nature.time(&self.processor);
            nature.after(delay, Event::Turn { role });
        }
    }

    /// Hands over an input that must not be lost because others fill the mailbox.
    pub fn post_reserved<R: Housed>(&mut self, nature: &mut Nature, mail: Mail<R>) {
        let place = self.process.as_mut().map(R::place);
        if place.is_some_and(|place| place.as_mut().is_some_and(|living| living.post(mail, Room::Reserved).is_ok())) {
            self.wake::<R>(nature);
        }
    }

    /// Hands an input to a role; lost if it is down or its mailbox is full, and then told as coming from `from`.
    pub fn post<R: Housed>(&mut self, nature: &mut Nature, mail: Mail<R>, from: Option<Server>) -> Option<Lost> {
        let process = self.process.as_mut()?;
        let (context, kind) = match (&mail.input, process.trace.steps()) {
            (Input::Message { message, .. }, true) => (mail.context.clone(), Some(message.clone().into().kind())),
            _ => (Context::default(), None),
        };
        let lost = match R::place(process) {
            None => Some(Lost::Down),
            Some(living) => living.post(mail, Room::Usual).err(),
        };
        if lost == Some(Lost::Full) {
            nature.mark(Mark::MailboxFull);
        }
        match lost {
            None => self.wake::<R>(nature),
            Some(lost) => {
                if let Some(kind) = kind.filter(|kind| !kind.is_routine)
                    && let Some(process) = &self.process
                {
                    let event = lines::dropped(kind.name, from, Cause::from(lost), None);
                    process.trace.line(Draft::about(R::NAME.into(), event, &context));
                }
            }
        }
        lost
    }

    /// Leaves the marks of a message that arrives.
    fn note_message(&self, nature: &mut Nature, message: &Message) {
        match message {
            Message::Entries { entries, applied } => {
                let Some((mine, _)) = self.applied() else { return };
                if entries.iter().any(|entry| entry.slot == mine.next()) {
                    nature.mark(Mark::LearnedByEntries);
                    if entries.last().is_some_and(|last| last.slot < *applied) {
                        nature.mark(Mark::EntriesInParts);
                    }
                }
            }
            Message::Promise { part, .. } if part.count > 1 => nature.mark(Mark::PromiseInParts),
            Message::Snapshot(part) if self.applied().is_some_and(|(applied, _)| part.slot <= applied) => {
                nature.mark(Mark::SnapshotOvertaken);
            }
            _ => {}
        }
    }

    /// Whether its server takes part by what is on its disk, whether or not it runs.
    pub fn takes_part(&self) -> bool {
        self.claim().is_some_and(|claim| claim.takes_part)
    }

    /// What it says of itself to a peer, or has said before it died: its words may still be on the way. What is on the disk
    /// of a process that died in the middle of its start nobody has said, and a power cut may take it away again.
    pub fn claim(&self) -> Option<Claim> {
        let Some(process) = &self.process else {
            // It may have another folder by now, and has said nothing of that.
            return self.last_claim.filter(|claim| claim.storage == self.storage);
        };
        let identity = &process.identity;
        let (storage, life) = (identity.storage_id(), identity.life());
        Some(Claim { server: self.me, storage, life, boot: self.boot, takes_part: identity.takes_part(), knows: None })
    }

    /// Hands a message to the roles that hear it.
    pub fn deliver(&mut self, nature: &mut Nature, from: Server, message: &Said, context: &Context) {
        if self.process.as_ref().is_none_or(|process| process.refusal().is_some()) {
            return;
        }
        let message = match message {
            Said::Paxos(message) => message,
            Said::TwoPhaseCommit(message) => return self.deliver_two_phase(nature, from, message, context),
            Said::Here => return,
        };
        self.note_message(nature, message);
        for role in message.heard_by() {
            let size = if from == self.me { 0 } else { message.size() };
            let context = context.clone();
            match role {
                RoleName::Proposer => {
                    let input = Input::Message { from, message: message.clone() };
                    self.post::<Proposer>(nature, Mail { context, input, size }, Some(from))
                }
                RoleName::Acceptor => {
                    let input = Input::Message { from, message: message.clone() };
                    self.post::<Acceptor>(nature, Mail { context, input, size }, Some(from))
                }
                _ => {
                    let input = Input::Message { from, message: message.clone() };
                    self.post::<Learner<Kv>>(nature, Mail { context, input, size }, Some(from))
                }
            };
        }
    }

    /// The connection from a peer has closed.
    pub fn loses_peer(&mut self, nature: &mut Nature, peer: Server) {
        let input = Input::Request(ProposerRequest::PeerGone(peer));
        self.post::<Proposer>(nature, Mail { context: Context::default(), input, size: 0 }, None);
    }

    /// Sends a message to servers, this one perhaps among them. It is encoded once. A server that does not take part only
    /// greets the others now and then.
    pub fn send(&mut self, nature: &mut Nature, to: Servers, message: &Said, context: &Context) {
        let others = to.without(Servers::only(self.me));
        if self.process.as_ref().is_none_or(|process| process.refusal().is_some()) {
            let is_time = matches!(message, Said::Paxos(Message::Beat { .. }));
            for server in others.iter().filter(|_| is_time) {
                nature.send(Node::Server(self.me), Node::Server(server), Arc::new(GREETING));
            }
            return;
        }
        if !message.is_routine() {
            nature.counts.messages += others.len() as u64;
            nature.counts.own_messages += u64::from(to.contains(self.me));
        }
        if !others.is_empty() {
            let envelope = Envelope { context: context.clone(), message: message.clone() };
            let bytes: Arc<[u8]> = frame(&envelope).into();
            self.check_frame(nature, bytes.len());
            let is_accept = matches!(message, Said::Paxos(Message::Accept { .. }))
                || matches!(message, Said::TwoPhaseCommit(two_phase_commit::Message::VoteRequest { .. }));
            for server in others.iter() {
                let (from, to, bytes) = (Node::Server(self.me), Node::Server(server), bytes.clone());
                if is_accept { nature.send_accept(from, to, bytes) } else { nature.send(from, to, bytes) }
            }
        }
        if to.contains(self.me) {
            self.deliver(nature, self.me, message, context);
        }
    }

    /// Bytes from a peer. False if they are no message: then the connection is closed.
    pub fn hear_peer(&mut self, nature: &mut Nature, from: Server, bytes: &[u8]) -> bool {
        let Ok(Envelope { context, message }) = unframe(bytes, PEER_FRAME_MAX_BYTES) else { return false };
        nature.note(&(from, self.me, &message));
        self.deliver(nature, from, &message, &context);
        true
    }

    /// Writes one line.
    pub fn line(&self, role: RoleTag, event: LineEvent) {
        if let Some(process) = &self.process {
            process.trace.line(Draft::new(role, event));
        }
    }

    /// The first line: what this process is, and what it found on its disk.
    fn tell_boot(&self) {
        let Some(process) = self.process.as_ref().filter(|process| process.trace.steps()) else { return };
        let acceptor = process.acceptor.as_ref().map(|living| &living.role);
        let promised = acceptor.map(|role| role.promised()).filter(|ballot| ballot.round > 0);
        self.line(
            RoleTag::Server,
            LineEvent::Boot {
                version: Text::new(env!("CARGO_PKG_VERSION")),
                cluster: self.cluster,
                protocol: Some(Text::new(self.protocol.name())),
                seed: None,
                fail: Some(Text::new("simulated")),
                mean_up: None,
                mean_down: None,
                restart: Some(if self.forgets { RestartMode::Lost } else { RestartMode::Disk }),
                data: None,
                steps: Some(Text::new("on")),
                life: Some(process.identity.life()),
                applied: self.applied().map(|(slot, _)| slot),
                digest: self.applied().map(|(_, digest)| Digest(digest)),
                promised: Some(MaybeBallot(promised)),
                accepted: acceptor.map(|role| role.accepted().len() as u64),
                history: process.learner.as_ref().map(|learner| HistoryName::of(learner.role.machine().history())),
                disk: DiskName::new(&short_disk(process.identity.storage_id())),
            },
        );
    }

    /// The process is gone: its lines stay, and whoever waited has lost the connection.
    pub fn end_process(&mut self) -> Vec<Asker<SimConnection>> {
        self.last_claim = self.claim();
        let Some(process) = self.process.take() else { return Vec::new() };
        if let Some(lines) = &mut self.lines {
            lines.push_str(&process.trace.text());
        }
        self.paused_until = 0;
        process.pending.take_all()
    }
}

/// The world begins on a day that is easy to remember.
pub fn time_of(now: Micros) -> Timestamp {
    let begin = Timestamp::from_second(1_767_225_600).unwrap_or(Timestamp::UNIX_EPOCH);
    begin.saturating_add(SignedDuration::from_micros(now as i64)).unwrap_or(begin)
}
