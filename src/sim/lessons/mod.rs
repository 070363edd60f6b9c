//! Lessons: scenes of a minute, each about one idea, played by the real roles in virtual time. The result is the page
//! of [`timeline`](crate::trace::timeline), with the lesson beside it.
//!
//! A scene is a script: at a moment, or once a line has been written, something happens. Everything else happens by
//! itself, and always alike. To add one, write a file with a [`Lesson`] and put it into [`LESSONS`].

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
use super::network::{Endpoint, LANE_BYTES, LinkFaults};
use super::plan::RunPlan;
use super::simulation::Simulation;
use crate::host::mail_queue::CrashRequest;
use crate::kv::Op;
use crate::protocol::Protocol;
use crate::role::{RoleKind, ServerId, ServerSet};
use crate::trace::parse::{Run, RunError};
use crate::trace::{CrashCause, CrashPoint};

/// All of them, in the order in which they are best read.
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
    /// What it is called.
    pub title: &'static str,
    /// What happens, and why it matters.
    pub says: &'static str,
    /// Where to look, in order: a sentence, and a part of the line that it is about.
    pub look: &'static [(&'static str, &'static str)],
    /// What to think about at the end.
    pub question: &'static str,
    /// Where the answer stands.
    pub answer: &'static str,
    /// How many servers there are.
    servers: u8,
    /// How they agree.
    protocol: Protocol,
    /// Acceptors come back without their memory.
    forgets: bool,
    script: &'static [(LessonTime, LessonAction)],
    /// When the scene ends.
    end: Micros,
}

/// When something happens: the steps of a script come one after the other.
#[derive(Clone, Copy, Debug)]
enum LessonTime {
    /// At a moment.
    At(Micros),
    /// Once a server has written a line that holds these words.
    Seen(u8, &'static str),
}

/// What happens.
#[derive(Clone, Copy, Debug)]
enum LessonAction {
    /// A client does these, one after the other: PUT key value.
    Put(u8, &'static [(&'static str, &'static str)]),
    /// A client reads a key.
    Get(u8, &'static str),
    /// A role dies, until it is started again.
    Crash(u8, RoleKind),
    /// It lives again.
    Restart(u8, RoleKind),
    /// Nothing: a step of the script that only waits.
    Nothing,
    /// Two servers do not hear each other any more.
    Cut(u8, u8),
    /// They do again.
    Join(u8, u8),
}

impl Lesson {
    /// The lesson of this name.
    pub fn named(name: &str) -> Option<&'static Lesson> {
        LESSONS.iter().find(|lesson| lesson.name == name)
    }

    /// Plays the scene: its lines, by file.
    pub fn play(&self) -> Vec<(String, String)> {
        let mut world = Simulation::new(self.plan(), true);
        for server in &mut world.servers {
            server.forgets = self.forgets;
        }
        for (when, what) in self.script {
            match *when {
                LessonTime::At(moment) => {
                    // Time goes on from event to event: one that does nothing brings it there.
                    let wait = moment.saturating_sub(world.sim_env.now());
                    world.sim_env.after(wait, SimEvent::Heal(ActiveFault::Cut(Vec::new())));
                    world.play_until(moment, |_| false);
                }
                LessonTime::Seen(server, words) => world.play_until(self.end, |world| has_said(world, server, words)),
            }
            self.act(&mut world, *what);
        }
        world.play_until(self.end, |_| false);
        world.take_lines()
    }

    /// The lines as a run.
    pub fn run(&self) -> Result<Run, RunError> {
        let mut run = Run::default();
        for (name, text) in self.play() {
            run.add(&name, text.as_bytes(), u64::MAX)?;
        }
        Ok(run)
    }

    /// A calm place: what goes wrong is in the script.
    fn plan(&self) -> RunPlan {
        let link_faults = LinkFaults {
            latency: 700,
            jitter: 500,
            reorders: false,
            loss: 0,
            accept_loss: 0,
            late: 0,
            duplicate: 0,
            replay: 0,
            corrupt: 0,
            rate: None,
            lane_bytes: LANE_BYTES,
        };
        RunPlan {
            servers: self.servers,
            clients: 0,
            link_faults,
            processor: 20..=40,
            sync: 250..=450,
            clocks: vec![100; usize::from(self.servers)],
            safety: 60 * SECOND,
            healthy: ServerSet::first(self.servers),
            fault_lasts: 3_600 * SECOND,
            is_acquainted: true,
            ..RunPlan::new(7, FaultSet::NONE, Some(self.protocol))
        }
    }

    fn act(&self, world: &mut Simulation, what: LessonAction) {
        match what {
            LessonAction::Put(server, pairs) => {
                let put = |(key, value): &(&str, &str)| {
                    let (key, value) = (key.as_bytes().to_vec(), value.as_bytes().to_vec());
                    ClientStep::Write(Op::Put { key, value: value.into(), if_version: None })
                };
                add_client(world, server, pairs.iter().map(put).collect());
            }
            LessonAction::Get(server, key) => {
                add_client(world, server, [ClientStep::Read(key.as_bytes().to_vec())].into())
            }
            LessonAction::Crash(server, role) => {
                let order = CrashRequest { point: CrashPoint::BeforeStep, cause: CrashCause::Admin, down: None };
                world.at(ServerId(server), |one, sim_env| one.crash(sim_env, role, order));
            }
            LessonAction::Restart(server, role) => {
                world.at(ServerId(server), |one, sim_env| one.bring_back(sim_env, role));
            }
            LessonAction::Nothing => {}
            LessonAction::Cut(a, b) => cut(world, a, b, true),
            LessonAction::Join(a, b) => cut(world, a, b, false),
        }
    }
}

fn cut(world: &mut Simulation, a: u8, b: u8, on: bool) {
    let [a, b] = [a, b].map(|server| Endpoint::Server(ServerId(server)));
    for (from, to) in [(a, b), (b, a)] {
        world.sim_env.network.cut(from, to, on);
    }
}

fn add_client(world: &mut Simulation, server: u8, wishes: VecDeque<ClientStep>) {
    let number = world.clients.len();
    let pace = (MS..=2 * MS, 10 * SECOND);
    let cluster = world.plan.cluster();
    let client = SimClient::new(&mut world.sim_env, number, cluster, wishes, ServerId(server), pace, true);
    world.clients.push(client);
}

fn has_said(world: &Simulation, server: u8, words: &str) -> bool {
    let process = world.servers[usize::from(server) - 1].process.as_ref();
    process.is_some_and(|process| process.core.trace.text().contains(words))
}
