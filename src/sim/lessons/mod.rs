//! Lessons: scenes of a minute, each about one idea, played by the real roles in virtual time. The result is the page of
//! [`timeline`](crate::trace::timeline), with the lesson beside it.
//!
//! A scene is a script: at a moment, or once a line has been written, something happens. Everything else happens by
//! itself, and always alike. To add one, write a file with a [`Lesson`] and put it into [`LESSONS`].

mod adopt;
mod blocked;
pub mod cli;
mod duel;
mod lost_acceptor;
mod lost_memory;
mod one_value;
mod stable_leader;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use super::client::{SimClient, Wish};
use super::faults::{Faults, Trouble};
use super::nature::{Event, MS, Micros, SECOND};
use super::network::{LANE_BYTES, Node, Weather};
use super::plan::Plan;
use super::world::World;
use crate::host::queue::CrashOrder;
use crate::kv::Op;
use crate::protocol::Protocol;
use crate::role::{RoleName, Server, Servers};
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
    script: &'static [(When, Do)],
    /// When the scene ends.
    end: Micros,
}

/// When something happens: the steps of a script come one after the other.
#[derive(Clone, Copy, Debug)]
enum When {
    /// At a moment.
    At(Micros),
    /// Once a server has written a line that holds these words.
    Seen(u8, &'static str),
}

/// What happens.
#[derive(Clone, Copy, Debug)]
enum Do {
    /// A client does these, one after the other: PUT key value.
    Put(u8, &'static [(&'static str, &'static str)]),
    /// A client reads a key.
    Get(u8, &'static str),
    /// A role dies, until it is started again.
    Crash(u8, RoleName),
    /// It lives again.
    Restart(u8, RoleName),
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
        let mut world = World::new(self.plan(), true);
        for server in &mut world.servers {
            server.forgets = self.forgets;
        }
        for (when, what) in self.script {
            match *when {
                When::At(moment) => {
                    // Time goes on from event to event: one that does nothing brings it there.
                    let wait = moment.saturating_sub(world.nature.now());
                    world.nature.after(wait, Event::Heal(Trouble::Cut(Vec::new())));
                    world.play_until(moment, |_| false);
                }
                When::Seen(server, words) => world.play_until(self.end, |world| has_said(world, server, words)),
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
    fn plan(&self) -> Plan {
        let weather = Weather {
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
        Plan {
            servers: self.servers,
            clients: 0,
            weather,
            processor: 20..=40,
            sync: 250..=450,
            clocks: vec![100; usize::from(self.servers)],
            safety: 60 * SECOND,
            healthy: Servers::first(self.servers),
            fault_lasts: 3_600 * SECOND,
            is_acquainted: true,
            ..Plan::new(7, Faults::NONE, Some(self.protocol))
        }
    }

    fn act(&self, world: &mut World, what: Do) {
        match what {
            Do::Put(server, pairs) => {
                let put = |(key, value): &(&str, &str)| {
                    let (key, value) = (key.as_bytes().to_vec(), value.as_bytes().to_vec());
                    Wish::Write(Op::Put { key, value: value.into(), if_version: None })
                };
                add_client(world, server, pairs.iter().map(put).collect());
            }
            Do::Get(server, key) => add_client(world, server, [Wish::Read(key.as_bytes().to_vec())].into()),
            Do::Crash(server, role) => {
                let order = CrashOrder { point: CrashPoint::BeforeStep, cause: CrashCause::Admin, down: None };
                world.at(Server(server), |one, nature| one.crash(nature, role, order));
            }
            Do::Restart(server, role) => {
                world.at(Server(server), |one, nature| one.bring_back(nature, role));
            }
            Do::Nothing => {}
            Do::Cut(a, b) => cut(world, a, b, true),
            Do::Join(a, b) => cut(world, a, b, false),
        }
    }
}

fn cut(world: &mut World, a: u8, b: u8, on: bool) {
    let [a, b] = [a, b].map(|server| Node::Server(Server(server)));
    for (from, to) in [(a, b), (b, a)] {
        world.nature.network.cut(from, to, on);
    }
}

fn add_client(world: &mut World, server: u8, wishes: VecDeque<Wish>) {
    let number = world.clients.len();
    let pace = (MS..=2 * MS, 10 * SECOND);
    let cluster = world.plan.cluster();
    let client = SimClient::new(&mut world.nature, number, cluster, wishes, Server(server), pace, true);
    world.clients.push(client);
}

fn has_said(world: &World, server: u8, words: &str) -> bool {
    let process = world.servers[usize::from(server) - 1].process.as_ref();
    process.is_some_and(|process| process.core.trace.text().contains(words))
}
