//! What a simulated run of two-phase commit comes to.

use std::collections::BTreeMap;

use super::data_dir::StartRefusal;
use super::server::SimServer;
use super::simulation::Simulation;
use crate::kv::Kv;
use crate::paxos::{Slot, StateMachine};
use crate::role::Role;
use crate::storage::DataDir;
use crate::two_phase_commit::{Coordinator, CoordinatorRecord, Participant, ParticipantRecord};

impl SimServer {
    /// How many transactions have been committed here, and the digest of the store, once nothing is under way.
    pub(super) fn settled(&self) -> Option<(Slot, u64)> {
        let process = self.process.as_ref()?;
        let (participant, coordinator) = (process.participant.as_ref()?.role(), process.coordinator.as_ref()?.role());
        let is_settled = participant.in_doubt_count() == 0 && coordinator.is_idle();
        is_settled.then(|| (Slot(participant.applied()), participant.kv().digest()))
    }

    /// The roles that a new process would find; None if there never was one.
    fn read_commit_disks(&self) -> Result<Option<(Participant, Coordinator, Vec<ParticipantRecord>)>, StartRefusal> {
        let identity = self.folder.identity(self.owner(), self.storage)?;
        if !identity.has_journal() || !identity.has_rounds() {
            return Ok(None);
        }
        let folder = DataDir::begin(self.folder.clone(), identity)?;
        let records: Vec<ParticipantRecord> = folder.open_journal(self.segment_bytes())?.1.records;
        let mut participant = Participant::new(self.me, self.cluster, Kv::with_sessions_at_most(self.sizes.sessions));
        records.iter().for_each(|record| participant.replay(record.clone()));
        let decisions: Vec<CoordinatorRecord> = folder.open_coordinator(self.segment_bytes())?.1.records;
        let mut coordinator = Coordinator::new(self.me, self.cluster);
        decisions.into_iter().for_each(|record| coordinator.replay(record));
        Ok(Some((participant, coordinator, records)))
    }
}

impl Simulation {
    /// At the very end all power fails once more, and what the disks hold is read again.
    pub(super) fn cut_all_power_and_count_votes(&mut self) {
        let mut disks = BTreeMap::new();
        for server in self.plan.cluster().iter() {
            self.server(server).end_process();
            let seed = self.sim_env.random.next();
            self.server(server).folder.power_cut(seed);
            match self.server(server).read_commit_disks() {
                Ok(Some((participant, coordinator, records))) => {
                    self.sim_env.oracle.participant_recovered(server, &records, &mut self.sim_env.coverage);
                    disks.insert(server, (participant, coordinator));
                }
                // It was never started.
                Ok(None) => {}
                Err(refusal) => {
                    self.sim_env.oracle.require(31, false, || format!("{server} cannot be read: {refusal:?}"));
                }
            }
        }
        self.sim_env.oracle.judge_commits(&disks);
    }
}
