//! The state of a simulated run of two-phase commit, while it runs and at its end.

use std::collections::BTreeMap;

use super::data_dir::StartRefusal;
use super::server::SimServer;
use super::simulation::Simulation;
use paxos_kv::kv::Kv;
use paxos_kv::paxos::{Slot, StateMachine};
use paxos_kv::role::Role;
use paxos_kv::storage::DataDir;
use paxos_kv::two_phase_commit::{Coordinator, CoordinatorRecord, Participant, ParticipantRecord};

impl SimServer {
    /// Number of transactions committed at this server, and the digest of its store; None while any is in flight.
    pub(super) fn settled(&self) -> Option<(Slot, u64)> {
        let process = self.process.as_ref()?;
        let (participant, coordinator) = (process.participant.as_ref()?.role(), process.coordinator.as_ref()?.role());
        let is_settled = participant.in_doubt_count() == 0 && coordinator.is_idle();
        is_settled.then(|| (Slot(participant.applied()), participant.kv().digest()))
    }

    /// The roles that a new process would recover, with the participant's records; None if the server never ran.
    fn read_commit_disks(&self) -> Result<Option<(Participant, Coordinator, Vec<ParticipantRecord>)>, StartRefusal> {
        let identity = self.dir.identity(self.owner(), self.storage)?;
        if !identity.has_journal() || !identity.has_rounds() {
            return Ok(None);
        }
        let dir = DataDir::begin(self.dir.clone(), identity)?;
        let records: Vec<ParticipantRecord> = dir.open_journal(self.segment_bytes())?.1.records;
        let mut participant = Participant::new(self.me, self.cluster, Kv::with_sessions_at_most(self.sizes.sessions));
        records.iter().for_each(|record| participant.replay(record.clone()));
        let decisions: Vec<CoordinatorRecord> = dir.open_coordinator(self.segment_bytes())?.1.records;
        let mut coordinator = Coordinator::new(self.me, self.cluster);
        decisions.into_iter().for_each(|record| coordinator.replay(record));
        Ok(Some((participant, coordinator, records)))
    }
}

impl Simulation {
    /// Cuts the power of all servers at the end of the run, and checks what their disks hold.
    pub(super) fn cut_all_power_and_count_votes(&mut self) {
        let mut disks = BTreeMap::new();
        for server in self.plan.cluster().iter() {
            self.server(server).end_process();
            let seed = self.sim_env.random.next();
            self.server(server).dir.power_cut(seed);
            match self.server(server).read_commit_disks() {
                Ok(Some((participant, coordinator, records))) => {
                    self.sim_env.oracle.participant_recovered(server, &records, &mut self.sim_env.coverage);
                    disks.insert(server, (participant, coordinator));
                }
                // The server was never started.
                Ok(None) => {}
                Err(refusal) => {
                    self.sim_env
                        .oracle
                        .require(31, false, || format!("the disk of {server} cannot be read: {refusal:?}"));
                }
            }
        }
        self.sim_env.oracle.check_commit_disks(&disks);
    }
}
