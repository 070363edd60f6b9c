use super::*;
use crate::sim::env::{FrameSize, MS, SECOND};
use crate::sim::faults::FaultSet;
use crate::sim::plan::RunPlan;
use paxos_kv::net::{Envelope, PeerMessage};
use paxos_kv::protocol::Protocol;
use paxos_kv::trace::TraceContext;

const ONE: ServerId = ServerId(1);
const TWO: ServerId = ServerId(2);

/// Three servers of an old cluster, before their first event.
fn sim() -> Simulation {
    let mut plan = RunPlan::new(1, FaultSet::NONE, Some(Protocol::BasicPaxos));
    (plan.servers, plan.clocks, plan.healthy) = (3, vec![100; 3], ServerSet::first(3));
    plan.starts_admitted = true;
    Simulation::new(plan, false)
}

/// The call of server 1 that server 2 has accepted, as server 1 sees it.
fn call(sim: &Simulation) -> Option<u64> {
    sim.servers[0].process.as_ref()?.agenda.links.borrow().get(&TWO)?.call()
}

/// Whether server 2 has accepted a call of server 1.
fn hears(sim: &Simulation) -> bool {
    sim.servers[1].process.as_ref().is_some_and(|process| process.accepts(ONE))
}

fn is_linked(sim: &Simulation) -> bool {
    call(sim).is_some() && hears(sim)
}

/// The message with which a server announces itself.
fn word() -> Vec<u8> {
    frame(&Envelope { context: TraceContext::default(), message: PeerMessage::Keepalive })
}

#[test]
fn caller_without_an_answer_sends_nothing_more_and_calls_again() {
    let mut sim = sim();
    let answers = (Endpoint::Server(TWO), Endpoint::Server(ONE));
    sim.sim_env.network.cut(answers.0, answers.1, true);
    sim.run_unchecked_until(2 * SECOND, is_linked);
    assert!(call(&sim).is_none() && !hears(&sim));
    assert!(sim.sim_env.coverage.count(CoveragePoint::AnswerLost) > 3);
    sim.sim_env.network.cut(answers.0, answers.1, false);
    sim.run_unchecked_until(4 * SECOND, is_linked);
    assert!(is_linked(&sim));
}

#[test]
fn frames_on_an_ended_call_are_ignored_and_the_caller_calls_again() {
    let mut sim = sim();
    sim.run_unchecked_until(SECOND, is_linked);
    let before = call(&sim).unwrap();
    sim.at_server(TWO, |two, sim_env| two.close(sim_env, ONE, before));
    sim.deliver_peer_frame(ONE, TWO, &word(), FrameKind::Word(before, FrameSize::SMALL), DeliveryMode::Delayed);
    let now = sim.servers[1].clock().at(sim.sim_env.now());
    let heard = sim.servers[1].process.as_ref().unwrap().core.linked.heard(now);
    assert!(!heard.contains(ONE), "the HELLO was received");
    sim.run_unchecked_until(2 * SECOND, |sim| is_linked(sim) && call(sim) != Some(before));
    assert!(is_linked(&sim) && call(&sim) != Some(before));
}

#[test]
fn late_answer_to_hello_opens_no_call() {
    let mut sim = sim();
    sim.run_unchecked_until(SECOND, is_linked);
    let before = call(&sim).unwrap();
    let welcome = sim.servers[1].process.as_ref().unwrap().core.welcome();
    sim.at_server(ONE, |one, sim_env| assert!(one.break_call(sim_env, TWO, before, "test")));
    sim.deliver_peer_frame(TWO, ONE, &frame(&welcome), FrameKind::Answer(before), DeliveryMode::Delayed);
    assert_eq!(call(&sim), None);
    assert_eq!(sim.sim_env.coverage.count(CoveragePoint::AnswerTooLate), 1);
}

#[test]
fn repeated_hello_leaves_no_call_behind() {
    let mut sim = sim();
    sim.run_unchecked_until(SECOND, is_linked);
    let hello = {
        let process = sim.servers[0].process.as_ref().unwrap();
        frame(&process.core.hello(&process.dir, TWO, 0))
    };
    let calls = |sim: &Simulation| sim.servers[1].process.as_ref().unwrap().accepted_calls[&ONE].clone();
    let before = calls(&sim);
    sim.deliver_peer_frame(ONE, TWO, &hello, FrameKind::Hello(u64::MAX), DeliveryMode::Replay);
    assert_eq!(calls(&sim), before);
    assert_eq!(sim.sim_env.coverage.count(CoveragePoint::HelloReplayed), 1);
}

#[test]
fn server_holds_few_calls_of_a_peer() {
    let mut sim = sim();
    sim.run_unchecked_until(SECOND, is_linked);
    let first = call(&sim).unwrap();
    for number in 0..CONNECTIONS_OF_A_PEER as u64 {
        sim.at_server(TWO, |two, sim_env| two.open(sim_env, ONE, u64::MAX - number));
    }
    let process = sim.servers[1].process.as_ref().unwrap();
    assert_eq!(process.accepted_calls[&ONE].len(), CONNECTIONS_OF_A_PEER);
    assert!(!process.has_accepted_call(ONE, first), "the oldest call is closed");
    sim.run_unchecked_until(sim.sim_env.now() + 10 * MS, |_| false);
    assert_ne!(call(&sim), Some(first), "its caller is notified");
}
