//! The roles of two-phase commit on a simulated server.

use std::collections::BTreeMap;
use std::time::Duration;

use super::folder::{CoordinatorDisk, ParticipantDisk, Refusal};
use super::living::{Housed, Living};
use super::marks::Mark;
use super::nature::{Micros, Nature};
use super::server::{Process, SimServer};
use super::world::World;
use crate::host::queue::Mail;
use crate::kv::Kv;
use crate::net::WhyNotApplied;
use crate::paxos::{Slot, StateMachine};
use crate::role::{Action, Input, Role, RoleName, Server, Servers};
use crate::server::lines;
use crate::server::two_phase::reply_of;
use crate::trace::{self, Context, Draft, RoleTag};
use crate::two_phase_commit::{
    Coordinator, CoordinatorFact, CoordinatorOutcome, CoordinatorRecord, Message, Participant, ParticipantFact,
    ParticipantOutcome, ParticipantRecord,
};

impl SimServer {
    pub(super) fn start_coordinator(&mut self, nature: &mut Nature, down: Option<Duration>) -> Result<(), Refusal> {
        let Some(process) = &mut self.process else { return Ok(()) };
        let (log, records) = self.folder.open_coordinator(&process.identity, self.segment_bytes)?;
        nature.ghost.coordinator_durable(self.me, &records);
        let mut coordinator = Coordinator::new(self.me, self.cluster);
        records.into_iter().for_each(|record| coordinator.replay(record));
        if let Some(down) = down {
            self.line(RoleTag::Coordinator, lines::restarted_coordinator(down, &coordinator));
        }
        self.begin::<Coordinator>(nature, coordinator, log);
        Ok(())
    }

    pub(super) fn start_participant(&mut self, nature: &mut Nature, down: Option<Duration>) -> Result<(), Refusal> {
        let Some(process) = &mut self.process else { return Ok(()) };
        let (log, records, is_cut) = self.folder.open_participant(&process.identity, self.segment_bytes)?;
        if is_cut {
            nature.mark(Mark::TornTail);
        }
        nature.ghost.participant_recovered(self.me, &records, &mut nature.marks);
        let mut participant = self.new_participant();
        records.into_iter().for_each(|record| participant.replay(record));
        if let Some(down) = down {
            self.line(RoleTag::Participant, lines::restarted_participant(down, &participant));
        }
        self.begin::<Participant>(nature, participant, log);
        Ok(())
    }

    fn new_participant(&self) -> Participant {
        Participant::new(self.me, self.cluster, Kv::with_sessions_at_most(self.limits.sessions))
    }

    /// How many transactions have been committed here, and the digest of the store, once nothing is under way.
    pub(super) fn settled(&self) -> Option<(Slot, u64)> {
        let process = self.process.as_ref()?;
        let (participant, coordinator) = (&process.participant.as_ref()?.role, &process.coordinator.as_ref()?.role);
        let is_settled = participant.in_doubt_count() == 0 && coordinator.is_idle();
        is_settled.then(|| (Slot(participant.applied()), participant.kv().digest()))
    }

    /// Hands a message to the roles that hear it.
    pub(super) fn deliver_two_phase(
        &mut self,
        nature: &mut Nature,
        from: Server,
        message: &Message,
        context: &Context,
    ) {
        for role in message.heard_by() {
            let size = if from == self.me { 0 } else { message.size() };
            let context = context.clone();
            if *role == RoleName::Coordinator {
                let input = Input::Message { from, message: message.clone() };
                self.post::<Coordinator>(nature, Mail { context, input, size }, Some(from));
            } else {
                let input = Input::Message { from, message: message.clone() };
                self.post::<Participant>(nature, Mail { context, input, size }, Some(from));
            }
        }
    }

    /// The roles that a new process would find; None if there never was one.
    fn read_commit_disks(&self) -> Result<Option<(Participant, Coordinator, Vec<ParticipantRecord>)>, Refusal> {
        let identity = self.folder.identity(self.owner(), self.storage)?;
        if !identity.has_journal() || !identity.has_rounds() {
            return Ok(None);
        }
        let (_, records, _) = self.folder.open_participant(&identity, self.segment_bytes)?;
        let mut participant = self.new_participant();
        records.iter().for_each(|record| participant.replay(record.clone()));
        let (_, decisions) = self.folder.open_coordinator(&identity, self.segment_bytes)?;
        let mut coordinator = Coordinator::new(self.me, self.cluster);
        decisions.into_iter().for_each(|record| coordinator.replay(record));
        Ok(Some((participant, coordinator, records)))
    }
}

impl World {
    /// At the very end all power fails once more, and what the disks hold is read again.
    pub(super) fn cut_all_power_and_count_votes(&mut self) {
        let mut disks = BTreeMap::new();
        for server in self.plan.cluster().iter() {
            self.server(server).end_process();
            let seed = self.nature.random.next();
            self.server(server).folder.power_cut(seed);
            match self.server(server).read_commit_disks() {
                Ok(Some((participant, coordinator, records))) => {
                    self.nature.ghost.participant_recovered(server, &records, &mut self.nature.marks);
                    disks.insert(server, (participant, coordinator));
                }
                // It was never started.
                Ok(None) => {}
                Err(refusal) => {
                    self.nature.ghost.require(31, false, || format!("{server} cannot be read: {refusal:?}"));
                }
            }
        }
        self.nature.ghost.judge_commits(&disks);
    }
}

impl Housed for Coordinator {
    type Disk = CoordinatorDisk;
    const NAME: RoleName = RoleName::Coordinator;

    fn place(process: &mut Process) -> &mut Option<Living<Coordinator>> {
        &mut process.coordinator
    }

    fn draft(fact: &CoordinatorFact, _cluster: Servers, context: &Context) -> Draft {
        trace::coordinator(fact, context)
    }

    fn tell(server: &mut SimServer, nature: &mut Nature, outcome: CoordinatorOutcome, context: Context) {
        match outcome {
            CoordinatorOutcome::Done { id, outcome } => {
                server.say(nature, |pending| pending.applied(id, outcome, &context));
            }
            CoordinatorOutcome::NotApplied { id, why } => {
                server.say(nature, |pending| pending.not_applied(id, WhyNotApplied::Coordinator(why), &context));
            }
        }
    }

    fn durable(nature: &mut Nature, server: Server, records: &[CoordinatorRecord]) {
        nature.ghost.coordinator_durable(server, records);
    }

    fn says(nature: &mut Nature, server: Server, _life: u64, actions: &[Action<Coordinator>]) {
        nature.ghost.coordinator_says(server, actions, &mut nature.marks);
    }
}

impl Housed for Participant {
    type Disk = ParticipantDisk;
    const NAME: RoleName = RoleName::Participant;

    fn place(process: &mut Process) -> &mut Option<Living<Participant>> {
        &mut process.participant
    }

    fn draft(fact: &ParticipantFact, _cluster: Servers, context: &Context) -> Draft {
        trace::participant(fact, context)
    }

    fn tell(server: &mut SimServer, nature: &mut Nature, outcome: ParticipantOutcome, context: Context) {
        let (token, reply) = reply_of(outcome);
        server.say(nature, |pending| pending.tell_read(token, reply, &context));
    }

    fn durable(nature: &mut Nature, server: Server, records: &[ParticipantRecord]) {
        nature.ghost.participant_durable(server, records);
    }

    fn in_doubt(nature: &mut Nature, server: Server, records: Vec<ParticipantRecord>) {
        nature.ghost.participant_in_doubt(server, records);
    }

    fn hears(nature: &mut Nature, server: Server, group: &[(Context, Input<Participant>)]) {
        nature.ghost.participant_hears(server, group.iter().map(|(_, input)| input), &mut nature.marks);
    }

    fn says(nature: &mut Nature, server: Server, _life: u64, actions: &[Action<Participant>]) {
        nature.ghost.participant_says(server, actions, &mut nature.marks);
    }

    fn must_shed(living: &mut Living<Participant>, input: &Input<Participant>, now: Micros) -> bool {
        let is_asked = matches!(input, Input::Message { message: Message::VoteRequest { .. }, .. });
        is_asked && !living.disk.journal_mut().has_room(now)
    }
}
