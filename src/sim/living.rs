//! One life of one role: its mailbox, its timers, and the turn that it is in.
//!
//! This is the real server's `runner` without its thread: inputs gather in a bounded mailbox, a turn takes all of them,
//! the group is made durable, and only then its actions leave.

use super::folder::AcceptorDisk;
use super::keeper::Job;
use super::marks::Mark;
use super::nature::{Micros, Nature};
use super::server::{Process, SimServer};
use crate::host::queue::{CrashOrder, GROUP_MAX, Item, Lost, Mail, Queue, Room};
use crate::host::{Time, Timers};
use crate::kv::{Kv, Outcome};
use crate::net::{Reply, Said, WhyNotApplied};
use crate::paxos::{
    Acceptor, AcceptorFact, AcceptorOutcome, AcceptorRecord, AcceptorRequest, Learner, LearnerFact, LearnerOutcome,
    LearnerRequest, Message, Proposer, ProposerFact, ProposerOutcome, ProposerRequest,
};
use crate::role::{Action, Disk, Input, NoDisk, Role, RoleName, Server, Servers, Stepped, Timed};
use crate::storage::checkpoint;
use crate::storage::disk::MemoryFiles;
use crate::storage::{JournalError, Rounds};
use crate::trace::{self, Context, Draft};

/// What a role does at the moment.
pub enum Doing<R: Role> {
    /// Nothing.
    Nothing,
    /// It waits for the processor.
    Waiting,
    /// It waits for its disk; what it wants done is in the group.
    Syncing(Stepped<Context, R>),
}

/// One life of a role.
pub struct Living<R: Housed> {
    /// The role.
    pub role: R,
    /// Its disk.
    pub disk: R::Disk,
    /// Which life of all.
    pub number: u64,
    /// When it began.
    pub since: Micros,
    /// What it does.
    pub doing: Doing<R>,
    /// It must die, and where.
    pub doom: Option<CrashOrder>,
    queue: Queue<R>,
    /// All mail that was there at this moment has been taken, or a full group of it.
    emptied: Micros,
    timers: Timers<R::Timer>,
}

impl<R: Housed> Living<R> {
    /// A life begins.
    pub fn new(role: R, disk: R::Disk, number: u64, since: Micros, mailbox: usize) -> Living<R> {
        let mut queue = Queue::new(mailbox);
        let start = Mail { context: Context::default(), input: Input::Start, size: 0 };
        // There is room for it in the emptiest queue.
        let _ = queue.put(Item::Mail(start), Room::Reserved, |_| false);
        Living {
            role,
            disk,
            number,
            since,
            doing: Doing::Nothing,
            doom: None,
            queue,
            emptied: since,
            timers: Timers::default(),
        }
    }

    /// Hands it an input, if its mailbox has room.
    pub fn post(&mut self, mail: Mail<R>, room: Room) -> Result<(), Lost> {
        self.queue.put(Item::Mail(mail), room, |_| false).map(|_| ())
    }

    /// How many inputs wait in its mailbox.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Starts a timer; a pending one of the same variant is forgotten.
    pub fn arm(&mut self, timer: R::Timer, due: Micros, context: Context) {
        self.timers.arm(timer, Time(due), context);
    }

    /// Whether it has something to do now.
    pub fn has_work(&self, now: Micros) -> bool {
        !self.queue.is_empty() || self.timers.next_due().is_some_and(|due| due <= Time(now))
    }

    /// Takes what is there, values of at most so many bytes and the next.
    ///
    /// A timer fires only once all mail that was there when it ran out has been stepped through and has not put it off.
    pub fn gather(&mut self, now: Micros, bytes_max: usize) -> Vec<(Context, Input<R>)> {
        let mut group = self.take_due(self.emptied);
        if self.queue.is_empty() && group.is_empty() {
            group = self.take_due(now);
        }
        self.emptied = now;
        let mut taken = Vec::new();
        self.queue.take(GROUP_MAX.saturating_sub(group.len()), bytes_max, &mut taken);
        group.extend(taken.into_iter().filter_map(|item| match item {
            Item::Mail(Mail { context, input, .. }) => Some((context, input)),
            // Orders come by other ways here.
            Item::Crash(_) | Item::Stop => None,
        }));
        group
    }

    fn take_due(&mut self, now: Micros) -> Vec<(Context, Input<R>)> {
        let due = self.timers.take_due(Time(now));
        due.into_iter().map(|(context, timer)| (context, Input::Timeout(timer))).collect()
    }
}

/// A role as a server of the simulator keeps it: what the real server's `shells` are to its threads.
pub trait Housed: Role<Message: Into<Said>> {
    /// Its disk.
    type Disk: Disk<Self::Record, Error: std::fmt::Display>;
    /// Its name.
    const NAME: RoleName;

    /// Where it lives.
    fn place(process: &mut Process) -> &mut Option<Living<Self>>;

    /// The line of a fact.
    fn draft(fact: &Self::Fact, cluster: Servers, context: &Context) -> Draft;

    /// It tells its server something.
    fn tell(server: &mut SimServer, nature: &mut Nature, outcome: Self::Outcome, context: Context);

    /// The ghost sees that a group is durable.
    fn durable(_nature: &mut Nature, _server: Server, _records: &[Self::Record]) {}

    /// The ghost sees that a crash hit while a group was being written.
    fn in_doubt(_nature: &mut Nature, _server: Server, _records: Vec<Self::Record>) {}

    /// The ghost sees what a turn begins with.
    fn hears(_nature: &mut Nature, _server: Server, _group: &[(Context, Input<Self>)]) {}

    /// The ghost hears what it says.
    fn says(nature: &mut Nature, server: Server, life: u64, actions: &[Action<Self>]);

    /// Whether an error of its disk says that there was no room, and nothing else.
    fn is_full(_error: &<Self::Disk as Disk<Self::Record>>::Error) -> bool {
        false
    }

    /// Whether an input must be dropped because the disk is full.
    fn must_shed(_living: &mut Living<Self>, _input: &Input<Self>, _now: Micros) -> bool {
        false
    }
}

impl Housed for Proposer {
    type Disk = Rounds<MemoryFiles>;
    const NAME: RoleName = RoleName::Proposer;

    fn place(process: &mut Process) -> &mut Option<Living<Proposer>> {
        &mut process.proposer
    }

    fn draft(fact: &ProposerFact, _cluster: Servers, context: &Context) -> Draft {
        trace::proposer(fact, context)
    }

    fn tell(server: &mut SimServer, nature: &mut Nature, outcome: ProposerOutcome, context: Context) {
        let ProposerOutcome::NotApplied { id, why } = outcome;
        server.say(nature, |pending| pending.not_applied(id, WhyNotApplied::Proposer(why), &context));
    }

    fn hears(nature: &mut Nature, server: Server, group: &[(Context, Input<Proposer>)]) {
        nature.ghost.proposer_hears(server, group.iter().map(|(_, input)| input), &mut nature.marks);
    }

    fn says(nature: &mut Nature, server: Server, _life: u64, actions: &[Action<Proposer>]) {
        nature.ghost.proposer_says(server, actions, &mut nature.marks);
    }
}

impl Housed for Acceptor {
    type Disk = AcceptorDisk;
    const NAME: RoleName = RoleName::Acceptor;

    fn place(process: &mut Process) -> &mut Option<Living<Acceptor>> {
        &mut process.acceptor
    }

    fn draft(fact: &AcceptorFact, _cluster: Servers, context: &Context) -> Draft {
        trace::acceptor(fact, context)
    }

    fn tell(server: &mut SimServer, nature: &mut Nature, outcome: AcceptorOutcome, context: Context) {
        let AcceptorOutcome::Damaged { slots } = outcome;
        nature.mark(Mark::SlotDamaged);
        let input = Input::Request(LearnerRequest::Mend(slots));
        server.post::<Learner<Kv>>(nature, Mail { context, input, size: 0 }, None);
    }

    fn durable(nature: &mut Nature, server: Server, records: &[AcceptorRecord]) {
        nature.ghost.durable(server, records, &mut nature.marks);
    }

    fn in_doubt(nature: &mut Nature, server: Server, records: Vec<AcceptorRecord>) {
        nature.ghost.in_doubt(server, records);
    }

    fn says(nature: &mut Nature, server: Server, _life: u64, actions: &[Action<Acceptor>]) {
        nature.ghost.acceptor_says(server, actions, &mut nature.marks);
    }

    fn is_full(error: &JournalError) -> bool {
        matches!(error, JournalError::Full { .. })
    }

    fn must_shed(living: &mut Living<Acceptor>, input: &Input<Acceptor>, now: Micros) -> bool {
        let is_accept = matches!(input, Input::Message { message: Message::Accept { .. }, .. });
        is_accept && !living.disk.has_room(now)
    }
}

impl Housed for Learner<Kv> {
    type Disk = NoDisk;
    const NAME: RoleName = RoleName::Learner;

    fn place(process: &mut Process) -> &mut Option<Living<Learner<Kv>>> {
        &mut process.learner
    }

    fn draft(fact: &LearnerFact<Outcome>, cluster: Servers, context: &Context) -> Draft {
        trace::learner(fact, cluster, context)
    }

    fn tell(server: &mut SimServer, nature: &mut Nature, outcome: LearnerOutcome<Kv>, context: Context) {
        match outcome {
            LearnerOutcome::Applied { id, outcome, .. } => {
                if let Some(id) = id {
                    server.say(nature, |pending| pending.applied(id, outcome, &context));
                }
            }
            LearnerOutcome::Advanced { applied, ids } => {
                let input = Input::Request(ProposerRequest::Applied { slot: applied, ids });
                server.post::<Proposer>(nature, Mail { context, input, size: 0 }, None);
            }
            LearnerOutcome::Answer { token, slot, answer } => {
                let value = answer.value.map(serde_bytes::ByteBuf::from);
                let reply = Reply::Value { slot, value, version: answer.version };
                server.say(nature, |pending| pending.tell_read(token, reply, &context));
            }
            LearnerOutcome::ReadFailed { token, answered } => {
                let reply = Reply::NotApplied(WhyNotApplied::NoReadQuorum(answered));
                server.say(nature, |pending| pending.tell_read(token, reply, &context));
            }
            LearnerOutcome::Checkpoint { slot, digest, changes } => {
                server.ask_keeper(nature, Job::Write(checkpoint::Mark { slot, digest }, changes));
            }
            LearnerOutcome::Durable { slot } => {
                let input = Input::Request(AcceptorRequest::Truncate { below: slot.next() });
                server.post_reserved::<Acceptor>(nature, Mail { context, input, size: 0 });
            }
            LearnerOutcome::SnapshotAsked { to, part } => server.ask_keeper(nature, Job::Part(to, part)),
            LearnerOutcome::Installed { slot, .. } => {
                let ids = server.process.as_mut().map_or(Vec::new(), |process| {
                    process.pending.snapshot_installed();
                    process.pending.waiting()
                });
                let input = Input::Request(LearnerRequest::Recall(ids));
                server.post_reserved::<Learner<Kv>>(nature, Mail { context: Context::default(), input, size: 0 });
                let input = Input::Request(ProposerRequest::Applied { slot, ids: Vec::new() });
                server.post::<Proposer>(nature, Mail { context, input, size: 0 }, None);
            }
            LearnerOutcome::Recalled { slot, id, outcome } => {
                nature.mark(Mark::Recalled);
                server.say(nature, |pending| pending.applied(id, outcome, &context));
                let input = Input::Request(ProposerRequest::Applied { slot, ids: vec![id] });
                server.post::<Proposer>(nature, Mail { context, input, size: 0 }, None);
            }
            LearnerOutcome::Mended { entries } => {
                let size = entries.iter().map(|entry| entry.value.size()).sum();
                let input = Input::Request(AcceptorRequest::Mend { entries });
                server.post::<Acceptor>(nature, Mail { context, input, size }, None);
            }
            LearnerOutcome::Fenced { slot, equal, against } => server.fence(nature, slot, equal, against),
        }
    }

    fn says(nature: &mut Nature, server: Server, life: u64, actions: &[Action<Learner<Kv>>]) {
        nature.ghost.learner_says(server, life, actions, &mut nature.marks);
    }
}

/// How long a timer runs by a clock of this speed, in percent.
pub fn by_clock(nature: &mut Nature, timer: &impl Timed, speed: u64) -> Micros {
    nature.random.within(timer.delay_ms()) * 1_000 * 100 / speed
}
