//! Impostors: unknown processes that greet in a server's name, and a server that is started on the wrong data
//! directory.

use super::coverage::CoveragePoint;
use super::data_dir::CLUSTER;
use super::simulation::{CrashKind, Simulation};
use paxos_kv::net::{Caller, Hello, HelloReply};
use paxos_kv::role::{ServerId, ServerSet};
use paxos_kv::storage::admission::Claim;

impl Simulation {
    /// Greets a server in the name of another one, from an unknown process. The server must call that other one back,
    /// and record nothing.
    pub(super) fn send_false_hello(&mut self, server: ServerId) {
        let others: Vec<ServerId> = self.plan.cluster().without(ServerSet::only(server)).iter().collect();
        let Some(name) = self.sim_env.random_choice(&others) else { return };
        // Some impostors know more than they should: the true storage id of the other server.
        let true_claim = self.server(name).claim();
        let lie = Claim {
            server: name,
            storage: self.sim_env.random.next(),
            incarnation: self.sim_env.random.within(0..=u64::from(u32::MAX)) as u32,
            boot: self.sim_env.random.next(),
            is_active: self.sim_env.chance(500),
            knows: self.sim_env.chance(500).then(|| self.sim_env.random.next()),
        };
        let knows_storage = self.sim_env.chance(300);
        let storage = true_claim.filter(|_| knows_storage).map_or(lie.storage, |claim| claim.storage);
        let Some(process) = &mut self.server(server).process else { return };
        let before = process.identity().recorded_peer(name);
        let Claim { server: name, incarnation, boot, is_active, knows, .. } = lie;
        let who = Caller::Peer { server: name, storage, incarnation, boot, is_active, knows };
        let hello = Hello { cluster: CLUSTER.to_string(), to: server, members: self.plan.cluster(), who };
        let mut answer = None;
        self.at_server(server, |one, sim_env| answer = one.receive_hello(sim_env, &hello));
        let process = self.server(server).process.as_ref();
        let is_as_before = process.is_none_or(|process| process.identity().recorded_peer(name) == before);
        self.sim_env.reach(CoveragePoint::ImpostorCalledBack);
        self.sim_env.oracle.require(40, is_as_before && answer == Some(HelloReply::CallBackFirst), || {
            format!("{server} accepted an impostor as {name}")
        });
    }

    /// Starts a server on an empty data directory. It gets its own directory back later.
    pub(super) fn start_on_wrong_dir(&mut self, server: ServerId) {
        let has_begun = self.has_begun();
        let others = self.on_wrong_dir.without(self.lost).without(ServerSet::only(server));
        let is_spare = !self.lost.contains(server) && self.lost.len() + others.len() < self.plan.spare_servers();
        // Before its admission both directories are new, and each may get too few witnesses. The other servers must be
        // enough as witnesses.
        let is_active = self.server(server).is_active();
        let gone = self.lost.len() + others.len();
        let enough = usize::from(self.plan.servers) >= self.plan.quorums().witnesses() + 2 + gone;
        if !is_spare || has_begun != is_active || !(has_begun || enough) {
            return;
        }
        self.sim_env.reach(CoveragePoint::WrongDataDir);
        self.kill(server, CrashKind::Process);
        self.lost.insert(server);
        self.on_wrong_dir.insert(server);
        let storage = self.sim_env.random.next();
        let me = self.server(server);
        me.own_dir = Some((std::mem::take(&mut me.dir), me.storage));
        (me.storage, me.has_new_disk) = (storage, is_active);
        if is_active {
            self.sim_env.oracle.disk_replaced(server);
        }
        self.sim_env.network.forget(server);
    }

    /// Gives the server its own data directory back, unless it was admitted with the other one.
    pub(super) fn restore_own_dir(&mut self, server: ServerId) {
        let me = self.server(server);
        let is_settled = !me.has_new_disk && me.is_active();
        let Some((dir, storage)) = me.own_dir.take().filter(|_| !is_settled) else { return };
        self.kill(server, CrashKind::Process);
        let me = self.server(server);
        // The server may have been admitted with the other directory and lost that one since. Then its peers must
        // refuse this one, too.
        let is_stranger = me.admitted_with.is_some_and(|with| with != storage);
        (me.dir, me.storage, me.has_new_disk) = (dir, storage, is_stranger);
        if me.is_active() {
            self.lost = self.lost.without(ServerSet::only(server));
        }
        if !is_stranger {
            self.sim_env.oracle.disk_restored(server);
        }
        self.sim_env.network.forget(server);
    }
}
