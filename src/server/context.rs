//! One server: its [`ServerCore`], and the threads and sockets around it.

use std::collections::BTreeMap;
use std::process;
use std::sync::{Arc, Condvar, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::clock;
use super::options::{RecoveryMode, ServerOptions};
use super::reply_writer::{self, ReplyWriter};
use super::supervisor::LabHandle;
use crate::host::checkpoints::LoadedState;
use crate::host::{Admission, Config, Env, LabRequest, ReplyHandle, ServerCore, Sizes, Time};
use crate::net::{ClientReply, Envelope, Link, PeerMessage};
use crate::random::Random;
use crate::role::{RoleKind, ServerId, ServerSet};
use crate::storage::identity::Owner;
use crate::trace::{Event, Speaker, Trace, TraceContext};

/// How long a dying process waits for its terminal.
const FLUSH: Duration = Duration::from_millis(200);

/// A server of threads.
pub struct ServerContext {
    /// What it decides.
    pub core: ServerCore<Arc<ReplyWriter>>,
    /// How it was started.
    pub options: ServerOptions,
    /// What is around that.
    pub threads: Threads,
}

/// The surroundings of a core: threads that sleep, sockets, and the clock of this process.
pub struct Threads {
    /// The links to the other servers; set once, when the server's own ports are open.
    pub links: OnceLock<BTreeMap<ServerId, Link>>,
    /// To the supervisor; set once, before any client is let in.
    pub orders: OnceLock<LabHandle>,
    /// Told when a role that sleeps beside its mailbox has mail.
    pub arrived: [Condvar; RoleKind::ALL.len()],
    /// Wakes the checkpointer's thread: one word is enough, however much there is to do.
    jobs: (Sender<()>, Receiver<()>),
    /// What the checkpointer has read for the learner that begins a life.
    loaded: (Sender<LoadedState>, Receiver<LoadedState>),
}

impl Env for Threads {
    type Connection = Arc<ReplyWriter>;

    fn now(&self) -> Time {
        clock::now()
    }

    fn wake(&self, role: RoleKind) {
        self.arrived[role as usize].notify_one();
    }

    fn to_peers(&self, to: ServerSet, message: &PeerMessage, frame: Vec<u8>) {
        let Some(links) = self.links.get() else { return };
        let (frame, lane) = (Arc::new(frame), message.lane());
        for link in to.iter().filter_map(|server| links.get(&server)) {
            // A link that is down or full drops: Paxos sends again.
            link.push(&frame, lane);
        }
    }

    fn flush_peers(&self) {
        self.links.get().into_iter().flat_map(BTreeMap::values).for_each(Link::flush);
    }

    fn write_replies(&self, replies: Vec<(ReplyHandle<Arc<ReplyWriter>>, ClientReply)>) {
        reply_writer::send(replies);
    }

    fn wake_checkpointer(&self) {
        // If there is a word already, that one is enough.
        let _ = self.jobs.0.try_send(());
    }

    fn give(&self, order: LabRequest) -> Result<(), String> {
        self.orders.get().map_or_else(|| Err("the server is not up yet".to_string()), |orders| orders.give(order))
    }

    fn tell_operator(&self, sentence: &str) {
        print_last(sentence.to_string());
    }
}

impl Threads {
    fn new() -> Threads {
        Threads {
            links: OnceLock::new(),
            orders: OnceLock::new(),
            arrived: Default::default(),
            jobs: bounded(1),
            loaded: bounded(1),
        }
    }

    /// The checkpointer waits until it has something to do.
    pub fn await_job(&self) {
        // The other end is here too: it never goes away.
        let _ = self.jobs.1.recv();
    }

    /// The checkpointer has read what the learner waits for.
    pub fn submit(&self, loaded: LoadedState) {
        // Nobody else has asked: there is one learner, and it asks once a life.
        let _ = self.loaded.0.try_send(loaded);
    }
}

impl ServerContext {
    /// A server whose roles are still down, and the number of this process on its data folder.
    pub fn new(
        owner: Owner<'_>,
        options: ServerOptions,
        life: u32,
        trace: Trace,
        admission: Admission,
    ) -> ServerContext {
        let Owner { cluster, quorums, server: me } = owner;
        let config = Config {
            name: cluster.to_string(),
            boot: Random::unseeded().next(),
            me,
            cluster: quorums.servers(),
            quorums,
            protocol: options.protocol,
            life,
            pid: process::id(),
            forgets: options.restart == RecoveryMode::Lost,
            lab: options.lab,
            wake_hints: true,
            retention: options.retention(),
            sizes: Sizes::usual(options.segment_bytes()),
        };
        ServerContext { core: ServerCore::new(config, trace, admission), options, threads: Threads::new() }
    }

    /// Sends a message to servers, this one perhaps among them. It leaves with the next [`ServerContext::flush`].
    pub fn send(&self, to: ServerSet, message: PeerMessage, context: TraceContext) {
        self.core.send(&self.threads, to, message, context);
    }

    /// Writes what is to be said to other servers, with one write a server.
    pub fn flush(&self) {
        self.threads.flush_peers();
    }

    /// Hands a message to the roles that hear it.
    pub fn deliver(&self, from: ServerId, envelope: Envelope) {
        self.core.deliver(&self.threads, from, envelope);
    }

    /// Sends what has been told since the last time.
    pub fn send_replies(&self) {
        self.core.flush_replies(&self.threads);
    }

    /// Something outside failed, and the server goes on.
    pub fn trace_fault(&self, part: &str, cause: &str, why: &str) {
        self.core.trace_fault(part, cause, why);
    }

    /// Writes one line.
    pub fn trace_line(&self, event: Event, why: Option<String>) {
        self.core.trace_with_reason(Speaker::Server, &TraceContext::default(), event, why);
    }

    /// The state as it was last written; waits until it is read.
    pub fn load(&self) -> LoadedState {
        self.core.checkpoints.load();
        self.threads.wake_checkpointer();
        match self.threads.loaded.1.recv() {
            Ok(loaded) => loaded,
            Err(error) => self.fatal(&format!("nobody reads the checkpoint: {error}")),
        }
    }

    /// Ends the process: nobody knows any more what is on the disk, or what the program does.
    pub fn fatal(&self, sentence: &str) -> ! {
        self.trace_fault("server", "stopped", sentence);
        let me = self.core.config.me.0;
        print_last(format!("error: server {me} stops: {sentence}. What it acknowledged is safe"));
        self.core.trace.flush(FLUSH);
        process::exit(1)
    }
}

/// Shows a sentence on the terminal, but does not wait long for one that takes nothing.
fn print_last(sentence: String) {
    let (said, heard) = bounded(1);
    let say = move || {
        eprintln!("{sentence}");
        // Whoever waited may have gone.
        let _ = said.send(());
    };
    // If there is no thread to be had, the line in the file has said it.
    if std::thread::Builder::new().spawn(say).is_ok() {
        let _ = heard.recv_deadline(Instant::now() + FLUSH);
    }
}
