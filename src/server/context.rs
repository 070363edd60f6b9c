//! The context of one server: its [`ServerCore`], and the threads and sockets around it.

use std::collections::BTreeMap;
use std::process;
use std::sync::{Arc, Condvar, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};

use super::clock;
use super::options::{RecoveryMode, ServerOptions};
use super::reply_writer::{self, ReplyWriter};
use super::supervisor::LabHandle;
use crate::host::checkpoints::LoadedState;
use crate::host::{Admission, Config, Env, LabRequest, ReplyHandle, ServerCore, Sizes};
use crate::net::{ClientReply, Envelope, Link, PeerMessage, ThreadGroup};
use crate::random::Random;
use crate::role::{RoleKind, ServerId, ServerSet};
use crate::storage::identity::Owner;
use crate::time::Time;
use crate::trace::{Event, Speaker, Trace, TraceContext};

/// How long a failing process waits for its terminal.
const FLUSH: Duration = Duration::from_millis(200);

/// The data shared by all threads of a server.
pub struct ServerContext {
    /// The core, which makes the decisions.
    pub core: ServerCore<Arc<ReplyWriter>>,
    /// The command line of the server.
    pub options: ServerOptions,
    /// The environment of the core.
    pub threads: Threads,
}

/// The environment of a core: sleeping threads, sockets, and the clock of this process.
pub struct Threads {
    /// All threads of the server, and their sockets.
    pub group: Arc<ThreadGroup>,
    /// The links to the other servers; set once, when the server's own ports are open.
    pub links: OnceLock<BTreeMap<ServerId, Link>>,
    /// The handle to the supervisor; set once, before any client is admitted.
    pub lab_handle: OnceLock<LabHandle>,
    /// Notified when a role that sleeps at its mailbox has mail.
    pub arrived: [Condvar; RoleKind::ALL.len()],
    /// Wakes the checkpointer's thread: one token is enough for any number of jobs.
    jobs: (Sender<()>, Receiver<()>),
    /// The state that the checkpointer has read for a learner that begins an incarnation.
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
            // Dropping is safe: every message that Paxos needs is sent again.
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
        // If there is a token already, that one is enough.
        let _ = self.jobs.0.try_send(());
    }

    fn lab_request(&self, order: LabRequest) -> Result<(), String> {
        self.lab_handle
            .get()
            .map_or_else(|| Err("the server has not started yet".to_string()), |orders| orders.send(order))
    }

    fn show_operator(&self, sentence: &str) {
        print_last(sentence.to_string());
    }
}

impl Threads {
    fn new() -> Threads {
        Threads {
            group: ThreadGroup::new(),
            links: OnceLock::new(),
            lab_handle: OnceLock::new(),
            arrived: Default::default(),
            jobs: bounded(1),
            loaded: bounded(1),
        }
    }

    /// Blocks the checkpointer until it has a job, unless it has other work; false if the server stops.
    pub fn await_job(&self, has_work: bool) -> bool {
        let patience = if has_work { Duration::ZERO } else { Duration::MAX };
        select! {
            // The sender is in the same struct, so it never goes away.
            recv(self.jobs.1) -> _ => true,
            recv(self.group.stopped()) -> _ => false,
            default(patience) => has_work,
        }
    }

    /// Passes the state that the checkpointer has read to the waiting learner.
    pub fn submit(&self, loaded: LoadedState) {
        // There is always room: there is one learner, and it asks once per incarnation.
        let _ = self.loaded.0.try_send(loaded);
    }
}

impl ServerContext {
    /// A server whose roles are still down. `life` is the incarnation of this process on its data directory.
    pub fn new(
        owner: Owner<'_>,
        options: ServerOptions,
        incarnation: u32,
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
            incarnation,
            pid: process::id(),
            forgets: options.restart == RecoveryMode::Lost,
            lab: options.lab,
            wake_hints: true,
            retention: options.retention(),
            sizes: Sizes::usual(options.segment_bytes()),
        };
        ServerContext { core: ServerCore::new(config, trace, admission), options, threads: Threads::new() }
    }

    /// Sends a message to servers, possibly also to this one. It leaves with the next [`ServerContext::flush`].
    pub fn send(&self, to: ServerSet, message: PeerMessage, context: TraceContext) {
        self.core.send(&self.threads, to, message, context);
    }

    /// Flushes queued messages, with one `write` per peer.
    pub fn flush(&self) {
        self.threads.flush_peers();
    }

    /// Delivers a message to its receiving roles.
    pub fn deliver(&self, from: ServerId, envelope: Envelope) {
        self.core.deliver(&self.threads, from, envelope);
    }

    /// Sends the queued replies.
    pub fn send_replies(&self) {
        self.core.flush_replies(&self.threads);
    }

    /// Traces a failure outside the protocol; the server continues.
    pub fn trace_fault(&self, part: &str, cause: &str, why: &str) {
        self.core.trace_fault(part, cause, why);
    }

    /// Writes one line.
    pub fn trace_line(&self, event: Event, why: Option<String>) {
        self.core.trace_with_reason(Speaker::Server, &TraceContext::default(), event, why);
    }

    /// The state of the last checkpoint; waits until it is read.
    pub fn load(&self) -> LoadedState {
        self.core.checkpoints.load();
        self.threads.wake_checkpointer();
        match self.threads.loaded.1.recv() {
            Ok(loaded) => loaded,
            Err(error) => self.fatal(&format!("the checkpoint thread has ended: {error}")),
        }
    }

    /// Ends the process: the content of the disk, or the state of the program, is unknown.
    pub fn fatal(&self, sentence: &str) -> ! {
        self.trace_fault("server", "stopped", sentence);
        let me = self.core.config.me.0;
        print_last(format!("error: server {me} stops: {sentence}. Acknowledged writes are safe"));
        self.core.trace.flush(FLUSH);
        process::exit(1)
    }
}

/// Prints a sentence on the terminal, but waits at most [`FLUSH`] for a terminal that accepts nothing.
fn print_last(sentence: String) {
    let (said, heard) = bounded(1);
    let say = move || {
        eprintln!("{sentence}");
        // The receiver is gone if the wait is over.
        let _ = said.send(());
    };
    // Without a thread, the sentence is at least in the log file.
    if std::thread::Builder::new().spawn(say).is_ok() {
        let _ = heard.recv_deadline(Instant::now() + FLUSH);
    }
}
