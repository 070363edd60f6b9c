//! Lessons: short scenes, each about one idea, played by the real roles in virtual time. The result is the page of
//! [`timeline`](paxos_kv::trace::timeline), together with the lesson's text.
//!
//! A scene is a script: an action follows at a moment, or once a log line has been written. Everything else follows
//! from the protocol, always in the same way. Before each scene, `set_up` connects the servers and opens the sessions
//! of all clients, so that a scene begins with its first request. To add a lesson, write a file with a [`Lesson`] and
//! add it to [`LESSONS`].

mod adopt;
mod blocked;
mod duel;
pub mod lesson_command;
mod lost_acceptor;
mod lost_memory;
mod one_value;
mod set_up;
mod stable_leader;
#[cfg(test)]
mod tests;

use jiff::Timestamp;

use super::client::ClientStep;
use super::env::{MS, Micros, SECOND};
use super::faults::FaultSet;
use super::network::LinkFaults;
use super::plan::RunPlan;
use super::server::time_of;
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
    /// The situation at the beginning.
    pub says: &'static str,
    /// Where to look, in order.
    pub points: &'static [Point],
    /// What the scene has shown.
    pub moral: &'static str,
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
    /// How long a client waits for the result of a write.
    patience: Micros,
    script: &'static [(LessonTime, LessonAction)],
    /// When the scene ends, in virtual microseconds.
    end: Micros,
}

/// A place to look at.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// What is to be seen there.
    pub says: &'static str,
    /// A part of the log line concerned, the first of the scene; a prefix such as `s1.*` restricts the server.
    pub line: &'static str,
    /// What a reader is asked before this point is shown. The first point has none: the page opens there.
    pub asks: Option<Prediction>,
}

/// A question about what comes next.
#[derive(Clone, Copy, Debug)]
pub struct Prediction {
    /// The question.
    pub question: &'static str,
    /// Two to four answers.
    pub choices: &'static [&'static str],
    /// The index of the right answer.
    pub right: usize,
}

impl Point {
    /// The point at which the page opens.
    const fn first(says: &'static str, line: &'static str) -> Point {
        Point { says, line, asks: None }
    }

    /// A point that the reader predicts; the right answer stands at this index.
    const fn after(
        question: &'static str,
        choices: &'static [&'static str],
        right: usize,
        says: &'static str,
        line: &'static str,
    ) -> Point {
        Point { says, line, asks: Some(Prediction { question, choices, right }) }
    }
}

/// When an action takes place; a script runs its steps in order.
#[derive(Clone, Copy, Debug)]
enum LessonTime {
    /// At a moment, counted from the beginning of the scene.
    At(Micros),
    /// Once a server has written a log line that holds these words.
    Seen(u8, &'static str),
}

/// An action of a script.
#[derive(Clone, Copy, Debug)]
enum LessonAction {
    /// The next client, at this server, writes these keys and values, one after the other.
    Put(u8, &'static [(&'static str, &'static str)]),
    /// The next client, at this server, reads a key.
    Get(u8, &'static str),
    /// A role crashes, and stays down until it is restarted.
    Crash(u8, RoleKind),
    /// A role restarts.
    Restart(u8, RoleKind),
    /// No action: a step of the script that only waits.
    Nothing,
    /// Cuts both directions between a server and these.
    Cut(u8, &'static [u8]),
    /// Joins them again.
    Join(u8, &'static [u8]),
}

/// A scene that was played.
pub struct PlayedLesson {
    /// Its log lines.
    pub run: Run,
    /// The time at which the set-up has ended.
    pub scene_start: Timestamp,
}

impl Lesson {
    /// The lesson of this name.
    pub fn named(name: &str) -> Option<&'static Lesson> {
        LESSONS.iter().find(|lesson| lesson.name == name)
    }

    /// Plays the scene; returns the text of each log file with its name, and when the scene began.
    pub fn run_to_log(&self) -> (Vec<(String, String)>, Micros) {
        let mut sim = Simulation::new(self.plan(), true);
        sim.sim_env.network.record_losses();
        for server in &mut sim.servers {
            server.loses_storage = self.loses_storage;
        }
        let asked: Vec<_> = self.script.iter().filter_map(|(_, action)| action.client()).collect();
        set_up::connect_and_open_sessions(&mut sim, &asked, self.patience);
        let (start, mut client) = (sim.sim_env.now(), 0);
        let end = start + self.end;
        // The words of the set-up do not count.
        let set_up_lengths: Vec<usize> = (1..=self.servers).map(|server| log_text(&sim, server).len()).collect();
        for (when, what) in self.script {
            match *when {
                LessonTime::At(moment) => set_up::run_until(&mut sim, start + moment),
                LessonTime::Seen(server, words) => {
                    let before = set_up_lengths[usize::from(server) - 1];
                    sim.run_unchecked_until(end, |sim| log_text(sim, server)[before..].contains(words))
                }
            }
            self.perform(&mut sim, *what, &mut client);
        }
        sim.run_unchecked_until(end, |_| false);
        (sim.take_lines(), start)
    }

    /// Plays the scene; returns its log lines as a run.
    pub fn play(&self) -> Result<PlayedLesson, RunError> {
        let (mut run, (files, start)) = (Run::default(), self.run_to_log());
        for (name, text) in files {
            run.add(&name, text.as_bytes(), u64::MAX)?;
        }
        Ok(PlayedLesson { run, scene_start: time_of(start) })
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

    fn perform(&self, sim: &mut Simulation, what: LessonAction, client: &mut usize) {
        match what {
            LessonAction::Put(_, pairs) => {
                let put = |(key, value): &(&str, &str)| {
                    let (key, value) = (key.as_bytes().to_vec(), value.as_bytes().to_vec());
                    ClientStep::Write(Op::Put { key, value: value.into(), if_version: None })
                };
                request(sim, client, pairs.iter().map(put));
            }
            LessonAction::Get(_, key) => request(sim, client, [ClientStep::Read(key.as_bytes().to_vec())]),
            LessonAction::Crash(server, role) => {
                let order = CrashRequest { point: CrashPoint::BeforeStep, cause: CrashCause::Admin, down: None };
                sim.at_server(ServerId(server), |one, sim_env| one.crash(sim_env, role, order));
            }
            LessonAction::Restart(server, role) => {
                sim.at_server(ServerId(server), |one, sim_env| one.restart_role(sim_env, role));
            }
            LessonAction::Nothing => {}
            LessonAction::Cut(one, others) => sim.partition(ServerSet::only(ServerId(one)), set_of(others), true),
            LessonAction::Join(one, others) => sim.partition(ServerSet::only(ServerId(one)), set_of(others), false),
        }
    }
}

impl LessonAction {
    /// The client that makes these requests: its server, and whether it needs a session.
    fn client(&self) -> Option<(ServerId, bool)> {
        match self {
            LessonAction::Put(server, _) => Some((ServerId(*server), true)),
            LessonAction::Get(server, _) => Some((ServerId(*server), false)),
            _ => None,
        }
    }
}

fn set_of(servers: &[u8]) -> ServerSet {
    servers.iter().copied().map(ServerId).collect()
}

/// The next client makes these requests.
fn request(sim: &mut Simulation, client: &mut usize, client_steps: impl IntoIterator<Item = ClientStep>) {
    sim.clients[*client].request(&mut sim.sim_env, client_steps);
    *client += 1;
}

/// The lines of a server so far.
fn log_text(sim: &Simulation, server: u8) -> String {
    let process = sim.servers[usize::from(server) - 1].process.as_ref();
    process.map(|process| process.core.trace.text()).unwrap_or_default()
}
