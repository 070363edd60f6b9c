//! Lessons: short scenes, each about one idea, played by the real roles in virtual time. The result is the page of
//! [`timeline`](paxos_kv::trace::timeline), together with the lesson's text.
//!
//! A scene is a script: an action follows at a moment, or once a log line has been written. Everything else follows
//! from the protocol, always in the same way. To add a lesson, write a file with a [`Lesson`] and add it to
//! [`LESSONS`].

mod adopt;
mod blocked;
mod duel;
pub mod lesson_command;
mod lost_acceptor;
mod lost_memory;
mod one_value;
mod stable_leader;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use super::client::{ClientStep, SimClient};
use super::env::{MS, Micros, SECOND, SimEvent};
use super::faults::{ActiveFault, FaultSet};
use super::network::{Endpoint, LinkFaults};
use super::plan::RunPlan;
use super::simulation::Simulation;
use paxos_kv::host::mail_queue::CrashRequest;
use paxos_kv::kv::Op;
use paxos_kv::protocol::Protocol;
use paxos_kv::role::{RoleKind, ServerId, ServerSet};
use paxos_kv::trace::parse::{Run, RunError};
use paxos_kv::trace::{CrashCause, CrashPoint};

/// All lessons, in the order in which they are best read.
pub const LESSONS: &[Lesson] = &[
    one_value::LESSON,
    lost_acceptor::LESSON,
    duel::LESSON,
    adopt::LESSON,
    lost_memory::LESSON,
    stable_leader::LESSON,
    blocked::LESSON,
];

/// A scene and what it teaches.
#[derive(Clone, Copy, Debug)]
pub struct Lesson {
    /// Its name on the command line.
    pub name: &'static str,
    /// Its title.
    pub title: &'static str,
    /// What happens, and why it matters.
    pub says: &'static str,
    /// Where to look, in order: a sentence, and a part of the log line that it explains.
    pub look: &'static [(&'static str, &'static str)],
    /// A question for the reader.
    pub question: &'static str,
    /// Where to find the answer, or the answer.
    pub answer: &'static str,
    /// Number of servers.
    servers: u8,
    /// The protocol of the servers.
    protocol: Protocol,
    /// Acceptors restart without their stable storage.
    loses_storage: bool,
    script: &'static [(LessonTime, LessonAction)],
    /// When the scene ends, in virtual microseconds.
    end: Micros,
}

/// When an action takes place; a script runs its steps in order.
#[derive(Clone, Copy, Debug)]
enum LessonTime {
    /// At a moment.
    At(Micros),
    /// Once a server has written a log line that holds these words.
    Seen(u8, &'static str),
}

/// An action of a script.
#[derive(Clone, Copy, Debug)]
enum LessonAction {
    /// A client at this server writes these keys and values, one after the other.
    Put(u8, &'static [(&'static str, &'static str)]),
    /// A client at this server reads a key.
    Get(u8, &'static str),
    /// A role crashes, and stays down until it is restarted.
    Crash(u8, RoleKind),
    /// A role restarts.
    Restart(u8, RoleKind),
    /// No action: a step of the script that only waits.
    Nothing,
    /// Cuts both directions between two servers.
    Cut(u8, u8),
    /// Joins the two servers again.
    Join(u8, u8),
}

impl Lesson {
    /// The lesson of this name.
    pub fn named(name: &str) -> Option<&'static Lesson> {
        LESSONS.iter().find(|lesson| lesson.name == name)
    }

    /// Plays the scene; returns the text of each log file, with its name.
    pub fn run_to_log(&self) -> Vec<(String, String)> {
        let mut sim = Simulation::new(self.plan(), true);
        for server in &mut sim.servers {
            server.loses_storage = self.loses_storage;
        }
        for (when, what) in self.script {
            match *when {
                LessonTime::At(moment) => {
                    // Time advances from event to event; an event that does nothing brings it there.
                    let wait = moment.saturating_sub(sim.sim_env.now());
                    sim.sim_env.schedule(wait, SimEvent::Heal(ActiveFault::Cut(Vec::new())));
                    sim.run_unchecked_until(moment, |_| false);
                }
                LessonTime::Seen(server, words) => {
                    sim.run_unchecked_until(self.end, |sim| has_logged(sim, server, words))
                }
            }
            self.perform(&mut sim, *what);
        }
        sim.run_unchecked_until(self.end, |_| false);
        sim.take_lines()
    }

    /// Plays the scene; returns its log lines as a run.
    pub fn run(&self) -> Result<Run, RunError> {
        let mut run = Run::default();
        for (name, text) in self.run_to_log() {
            run.add(&name, text.as_bytes(), u64::MAX)?;
        }
        Ok(run)
    }

    /// A plan without faults: the script adds its own.
    fn plan(&self) -> RunPlan {
        let link_faults = LinkFaults::delays(700, 500);
        RunPlan {
            servers: self.servers,
            clients: 0,
            link_faults,
            processor: 20..=40,
            sync: 250..=450,
            clocks: vec![100; usize::from(self.servers)],
            fault_phase_end: 60 * SECOND,
            healthy: ServerSet::first(self.servers),
            fault_duration_max: 3_600 * SECOND,
            starts_admitted: true,
            ..RunPlan::new(7, FaultSet::NONE, Some(self.protocol))
        }
    }

    fn perform(&self, sim: &mut Simulation, what: LessonAction) {
        match what {
            LessonAction::Put(server, pairs) => {
                let put = |(key, value): &(&str, &str)| {
                    let (key, value) = (key.as_bytes().to_vec(), value.as_bytes().to_vec());
                    ClientStep::Write(Op::Put { key, value: value.into(), if_version: None })
                };
                add_client(sim, server, pairs.iter().map(put).collect());
            }
            LessonAction::Get(server, key) => {
                add_client(sim, server, [ClientStep::Read(key.as_bytes().to_vec())].into())
            }
            LessonAction::Crash(server, role) => {
                let order = CrashRequest { point: CrashPoint::BeforeStep, cause: CrashCause::Admin, down: None };
                sim.at_server(ServerId(server), |one, sim_env| one.crash(sim_env, role, order));
            }
            LessonAction::Restart(server, role) => {
                sim.at_server(ServerId(server), |one, sim_env| one.restart_role(sim_env, role));
            }
            LessonAction::Nothing => {}
            LessonAction::Cut(a, b) => cut(sim, a, b, true),
            LessonAction::Join(a, b) => cut(sim, a, b, false),
        }
    }
}

fn cut(sim: &mut Simulation, a: u8, b: u8, on: bool) {
    let [a, b] = [a, b].map(|server| Endpoint::Server(ServerId(server)));
    for (from, to) in [(a, b), (b, a)] {
        sim.sim_env.network.cut(from, to, on);
    }
}

fn add_client(sim: &mut Simulation, server: u8, client_steps: VecDeque<ClientStep>) {
    let number = sim.clients.len();
    let pace = (MS..=2 * MS, 10 * SECOND);
    let cluster = sim.plan.cluster();
    let client = SimClient::new(&mut sim.sim_env, number, cluster, client_steps, ServerId(server), pace, true);
    sim.clients.push(client);
}

fn has_logged(sim: &Simulation, server: u8, pattern: &str) -> bool {
    let process = sim.servers[usize::from(server) - 1].process.as_ref();
    process.is_some_and(|process| process.core.trace.text().contains(pattern))
}
