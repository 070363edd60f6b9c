//! What comes before a scene: the servers connect, and each client opens its session. A scene begins with its first
//! request, in a slot of its own.

use super::super::client::SimClient;
use super::super::env::{MS, Micros, SECOND, SimEvent};
use super::super::faults::ActiveFault;
use super::super::simulation::Simulation;
use paxos_kv::role::ServerId;

/// By now all servers have connected and admitted each other.
const CONNECTED: Micros = 40 * MS;
/// Silence between the set-up and the scene.
const SILENCE: Micros = 30 * MS;
/// Time limit of a set-up step, with the election of a leader.
const STEP_MAX: Micros = 10 * SECOND;

/// How long a client waits for the result of a read.
const READ_PATIENCE: Micros = 10 * SECOND;

/// Starts a client at each of these servers; the flag says whether it needs a session. They open their sessions one
/// after the other, so that none disturbs another, and every server knows all sessions in the end. A write of the scene has `patience` time.
pub(super) fn connect_and_open_sessions(sim: &mut Simulation, clients: &[(ServerId, bool)], patience: Micros) {
    run_until(sim, CONNECTED);
    for (number, (server, writes)) in clients.iter().enumerate() {
        let patience = if *writes { patience } else { READ_PATIENCE };
        let (cluster, pace) = (sim.plan.cluster(), (MS..=2 * MS, patience));
        let sim_env = &mut sim.sim_env;
        let mut client = SimClient::new(sim_env, number, cluster, Default::default(), *server, pace, true);
        let deadline = sim_env.now() + STEP_MAX;
        if *writes {
            client.open_session(sim_env, deadline);
        }
        sim.clients.push(client);
        sim.run_unchecked_until(deadline, |sim| !writes || sim.clients[number].session().is_some());
        let quiet = sim.sim_env.now() + SILENCE;
        run_until(sim, quiet);
    }
}

/// Runs until this moment. Time advances from event to event; an event that does nothing brings it there.
pub(super) fn run_until(sim: &mut Simulation, moment: Micros) {
    let wait = moment.saturating_sub(sim.sim_env.now());
    sim.sim_env.schedule(wait, SimEvent::Heal(ActiveFault::Cut(Vec::new())));
    sim.run_unchecked_until(moment, |_| false);
}
