//! Who is not who it says it is: strangers that greet in a server's name, and a server that is started on the wrong
//! folder.

use super::coverage::CoveragePoint;
use super::data_dir::CLUSTER;
use super::simulation::{CrashKind, Simulation};
use crate::net::{Caller, Hello, HelloReply};
use crate::role::{ServerId, ServerSet};
use crate::storage::admission::Claim;

impl Simulation {
    /// A stranger greets a server in the name of another one. It was told nothing at that one's address.
    pub(super) fn lie(&mut self, server: ServerId) {
        let others: Vec<ServerId> = self.plan.cluster().without(ServerSet::only(server)).iter().collect();
        let Some(name) = self.sim_env.one_of(&others) else { return };
        // Some know more than they should: the storage id that they claim, or how often the other one was started.
        let true_claim = self.server(name).claim();
        let lie = Claim {
            server: name,
            storage: self.sim_env.random.next(),
            life: self.sim_env.random.within(0..=u64::from(u32::MAX)) as u32,
            boot: self.sim_env.random.next(),
            takes_part: self.sim_env.chance(500),
            knows: self.sim_env.chance(500).then(|| self.sim_env.random.next()),
        };
        let knows_storage = self.sim_env.chance(300);
        let storage = true_claim.filter(|_| knows_storage).map_or(lie.storage, |claim| claim.storage);
        let Some(process) = &mut self.server(server).process else { return };
        let before = process.identity().recorded_peer(name);
        let Claim { server: name, life, boot, takes_part, knows, .. } = lie;
        let who = Caller::Peer { server: name, storage, life, boot, takes_part, knows };
        let hello = Hello { cluster: CLUSTER.to_string(), to: server, members: self.plan.cluster(), who };
        let mut answer = None;
        self.at(server, |one, sim_env| answer = one.is_greeted(sim_env, &hello));
        let process = self.server(server).process.as_ref();
        let is_as_before = process.is_none_or(|process| process.identity().recorded_peer(name) == before);
        self.sim_env.reached(CoveragePoint::LiarCalledBack);
        self.sim_env.oracle.require(40, is_as_before && answer == Some(HelloReply::CallYouFirst), || {
            format!("{server} believes a stranger that it is {name}")
        });
    }

    /// A server is started on an empty folder. Its own comes back later.
    pub(super) fn misplace_folder(&mut self, server: ServerId) {
        let has_begun = self.has_begun();
        let others = self.misplaced.without(self.lost).without(ServerSet::only(server));
        let is_spare = !self.lost.contains(server) && self.lost.len() + others.len() < self.plan.spare_servers();
        // Before it takes part both folders are new, and each may come to be known to too few. The others must be
        // enough.
        let takes_part = self.server(server).takes_part();
        let gone = self.lost.len() + others.len();
        let enough = usize::from(self.plan.servers) >= self.plan.quorums().witnesses() + 2 + gone;
        if !is_spare || has_begun != takes_part || !(has_begun || enough) {
            return;
        }
        self.sim_env.reached(CoveragePoint::FolderMisplaced);
        self.kill(server, CrashKind::Process);
        self.lost.insert(server);
        self.misplaced.insert(server);
        let storage = self.sim_env.random.next();
        let me = self.server(server);
        me.own = Some((std::mem::take(&mut me.folder), me.storage));
        (me.storage, me.is_stranger) = (storage, takes_part);
        if takes_part {
            self.sim_env.oracle.replaced(server);
        }
        self.sim_env.network.forget(server);
    }

    /// The server gets its own folder back, if it has another that does not take part.
    pub(super) fn bring_folder_back(&mut self, server: ServerId) {
        let me = self.server(server);
        let is_settled = !me.is_stranger && me.takes_part();
        let Some((folder, storage)) = me.own.take().filter(|_| !is_settled) else { return };
        self.kill(server, CrashKind::Process);
        let me = self.server(server);
        // It may have begun to take part with the other folder, and lost that since: then this one is a stranger's,
        // too.
        let is_stranger = me.takes_part_with.is_some_and(|with| with != storage);
        (me.folder, me.storage, me.is_stranger) = (folder, storage, is_stranger);
        if me.takes_part() {
            self.lost = self.lost.without(ServerSet::only(server));
        }
        if !is_stranger {
            self.sim_env.oracle.has_its_disk_back(server);
        }
        self.sim_env.network.forget(server);
    }
}
