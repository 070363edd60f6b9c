//! A server for the fuzzer that runs in one thread and without time: its decisions are the real ones, in an environment
//! of its own. Only disks and connections are in memory.

use std::cell::Cell;
use std::convert::Infallible;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use super::options::Protocol;
use super::reply_writer::{self, ReplyWriter};
use crate::codec;
use crate::host::checkpoints::{Checkpointer, LoadedState};
use crate::host::role_disk::RoleDisk;
use crate::host::{
    Admission, Config, CrashRequest, Env, Hosted, LabRequest, MailboxItem, ReplyHandle, RoleHost, RunEnd, ServerCore,
    Sizes, TurnStart,
};
use crate::kv::Kv;
use crate::net::{CLIENT_FRAME_MAX_BYTES, ClientReply, ClientRequest, Envelope, FrameReader, PeerMessage, ThreadGroup};
use crate::paxos::{
    Acceptor, AcceptorRecord, Ballot, Incarnation, Learner, Proposer, ProposerRecord, Quorums, Retention,
};
use crate::random::Random;
use crate::role::{NoStableStore, Role, RoleKind, ServerId, ServerSet, StableStore};
use crate::storage::disk::MemoryFiles;
use crate::time::Time;
use crate::trace::{CrashCause, CrashPoint, Trace, TraceContext};

/// The number of this server.
pub const ME: ServerId = ServerId(1);
/// Bytes of a snapshot chunk: a few keys.
const PART_BYTES: usize = 200;
/// Checkpoints are frequent, and little of the log is kept.
const RETENTION: Retention = Retention { checkpoint_slots: 8, keep_slots: 4, ..Retention::KEEP_ALL };

/// The fuzzer's server.
pub struct BenchServer {
    core: ServerCore<Arc<ReplyWriter>>,
    env: BenchEnv,
    checkpointer: Checkpointer<MemoryFiles>,
    proposer: BenchRole<Proposer, BenchDisk<ProposerRecord>>,
    acceptor: BenchRole<Acceptor, BenchDisk<AcceptorRecord>>,
    learner: BenchRole<Learner<Kv>, NoStableStore>,
    incarnations: u32,
}

/// The environment of the server: a clock that stands still.
#[derive(Default)]
struct BenchEnv {
    now: Cell<Time>,
}

impl Env for BenchEnv {
    type Connection = Arc<ReplyWriter>;

    fn now(&self) -> Time {
        self.now.get()
    }

    fn wake(&self, _role: RoleKind) {}

    fn to_peers(&self, _to: ServerSet, _message: &PeerMessage, _frame: Vec<u8>) {}

    fn flush_peers(&self) {}

    fn write_replies(&self, replies: Vec<(ReplyHandle<Arc<ReplyWriter>>, ClientReply)>) {
        reply_writer::send(replies);
    }

    fn wake_checkpointer(&self) {}

    fn lab_request(&self, _order: LabRequest) -> Result<(), String> {
        Err("this server has no supervisor".to_string())
    }

    fn show_operator(&self, _sentence: &str) {}
}

/// An incarnation of a role, and its disk, which survives it.
struct BenchRole<R: Hosted, D> {
    host: RoleHost<R, D>,
    disk: D,
    /// The time of the role's timers.
    now: Time,
}

/// The records of a disk, as it returns them. Clones are handles of the same disk.
struct BenchDisk<Record>(Arc<Mutex<Vec<Record>>>);

impl<Record> Clone for BenchDisk<Record> {
    fn clone(&self) -> BenchDisk<Record> {
        BenchDisk(self.0.clone())
    }
}

impl<Record> Default for BenchDisk<Record> {
    fn default() -> BenchDisk<Record> {
        BenchDisk(Arc::default())
    }
}

impl<Record: Clone> BenchDisk<Record> {
    fn records(&self) -> Vec<Record> {
        self.0.lock().expect("no thread has panicked").clone()
    }
}

impl<Record: serde::Serialize + serde::de::DeserializeOwned> StableStore<Record> for BenchDisk<Record> {
    type Error = Infallible;

    fn commit(&mut self, records: &[Record]) -> Result<(), Infallible> {
        let again = |record| codec::decode(&codec::encode(record)).expect("what is written can be read");
        self.0.lock().expect("no thread has panicked").extend(records.iter().map(again));
        Ok(())
    }
}

impl<Record: serde::Serialize + serde::de::DeserializeOwned> RoleDisk<Record> for BenchDisk<Record> {}

/// The connection of one client.
pub struct BenchConnection {
    writer: Arc<ReplyWriter>,
    replies: FrameReader,
}

impl BenchConnection {
    /// Takes the replies that have arrived.
    pub fn replies(&mut self) -> Vec<ClientReply> {
        let mut replies = Vec::new();
        loop {
            while let Some(reply) = self.replies.next_received().expect("a server's frames are whole") {
                replies.push(reply);
            }
            match self.replies.receive_now() {
                Ok(Some(count)) if count > 0 => {}
                _ => return replies,
            }
        }
    }
}

/// A role of the server.
#[derive(Clone, Copy, Debug)]
pub enum Which {
    /// The proposer.
    Proposer,
    /// The acceptor.
    Acceptor,
    /// The learner.
    Learner,
}

impl BenchServer {
    /// A server of a cluster with this number of servers, under this protocol.
    pub fn new(servers: u8, protocol: Protocol) -> BenchServer {
        BenchServer::writing_to(Trace::disabled(), servers, protocol)
    }

    /// The same, with its log lines in `trace`.
    pub fn writing_to(trace: Trace, servers: u8, protocol: Protocol) -> BenchServer {
        let quorums = Quorums::majority(ServerSet::first(servers));
        let config = Config {
            name: "stage".to_string(),
            boot: 1,
            me: ME,
            cluster: quorums.servers(),
            quorums,
            protocol,
            incarnation: 1,
            pid: 1,
            forgets: false,
            lab: false,
            wake_hints: true,
            retention: RETENTION,
            sizes: Sizes { snapshot_bytes: PART_BYTES, ..Sizes::usual(1 << 20) },
        };
        let (core, env) = (ServerCore::new(config, trace, Admission::active()), BenchEnv::default());
        let opened = Checkpointer::open(&core, MemoryFiles::new(), 1);
        let (mut checkpointer, _) = opened.expect("an empty disk in memory has no errors");
        let acceptor = BenchRole::new(&core, &env, Acceptor::new(), BenchDisk::default());
        let role = learner(&core, &env, &mut checkpointer, 2);
        let learner = BenchRole::new(&core, &env, role, NoStableStore);
        let role = Proposer::new(ME, quorums, protocol.policy());
        let proposer = BenchRole::new(&core, &env, role, BenchDisk::default());
        let mut bench = BenchServer { core, env, checkpointer, proposer, acceptor, learner, incarnations: 2 };
        bench.settle();
        bench
    }

    /// The promise of the acceptor.
    pub fn promised(&self) -> Ballot {
        self.acceptor.host.role().promised()
    }

    /// The active ballot of the proposer.
    pub fn at_work(&self) -> Option<Ballot> {
        self.proposer.host.role().active_ballot()
    }

    /// The digest of the state.
    pub fn digest(&self) -> u64 {
        self.core.shared_status.read().digest
    }

    /// Connects a client.
    pub fn connect(&self) -> BenchConnection {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets can be made");
        theirs.set_nonblocking(true).expect("a socket can be told not to wait");
        let [ours, theirs] = [ours, theirs].map(|end| Arc::new(TcpStream::from(OwnedFd::from(end))));
        let address = SocketAddr::from(([127, 0, 0, 1], 9));
        let writer = ReplyWriter::new(ThreadGroup::new(), ours, address, self.core.load.clone(), None);
        BenchConnection { writer, replies: FrameReader::new(theirs, CLIENT_FRAME_MAX_BYTES) }
    }

    /// Handles a client's request. An error is a request for which its connection is closed.
    pub fn ask(&mut self, connection: &BenchConnection, request: ClientRequest) -> Result<(), String> {
        let size = codec::encode(&request).len();
        let taken = self.core.request(&self.env, &connection.writer, request, size);
        self.settle();
        taken
    }

    /// Handles a message from a peer.
    pub fn hear(&mut self, from: ServerId, message: PeerMessage) {
        self.core.deliver(&self.env, from, Envelope { context: TraceContext::default(), message });
        self.settle();
    }

    /// Lets a role's next timer run out.
    pub fn time_out(&mut self, which: Which) {
        match which {
            Which::Proposer => self.proposer.time_out(),
            Which::Acceptor => self.acceptor.time_out(),
            Which::Learner => self.learner.time_out(),
        }
        self.settle();
    }

    /// Crashes a role and restarts it with the state on its disk.
    pub fn restart(&mut self, which: Which) {
        self.incarnations += 1;
        let BenchServer { core, env, checkpointer, incarnations, .. } = self;
        match which {
            Which::Proposer => {
                let mut role = Proposer::new(ME, core.config.quorums, core.config.protocol.policy());
                self.proposer.disk.records().into_iter().for_each(|record| role.replay(record));
                self.proposer.begin_anew(core, env, |_| role);
            }
            Which::Acceptor => {
                let mut role = Acceptor::new();
                self.acceptor.disk.records().into_iter().for_each(|record| role.replay(record));
                let checkpoint = core.shared_status.read().checkpoint;
                self.acceptor.begin_anew(core, env, |_| role.finish_recovery(checkpoint));
            }
            Which::Learner => {
                let incarnation = *incarnations;
                self.learner.begin_anew(core, env, |core| learner(core, env, checkpointer, incarnation));
            }
        }
        self.settle();
    }

    /// Runs turns and jobs until none is left.
    fn settle(&mut self) {
        let BenchServer { core, env, checkpointer, .. } = self;
        loop {
            let has_worked =
                self.acceptor.work(core, env) | self.learner.work(core, env) | self.proposer.work(core, env);
            let has_jobs = !core.checkpoints.is_empty() || checkpointer.has_work();
            if has_jobs {
                let done = checkpointer.run_one(core, env);
                assert!(done.expect("a disk in memory has no errors").is_none(), "no thread has requested the state");
            }
            if !has_worked && !has_jobs {
                return core.flush_replies(env);
            }
        }
    }
}

fn learner(
    core: &ServerCore<Arc<ReplyWriter>>,
    env: &BenchEnv,
    checkpointer: &mut Checkpointer<MemoryFiles>,
    incarnation: u32,
) -> Learner<Kv> {
    core.checkpoints.load();
    let (slot, state): LoadedState = loop {
        let loaded = checkpointer.run_one(core, env).expect("a disk in memory has no errors");
        if let Some(loaded) = loaded {
            break loaded;
        }
    };
    let config = &core.config;
    Learner::new(ME, config.quorums, Incarnation(incarnation), slot, state)
        .with_retention(config.retention)
        .with_policy(config.protocol.policy())
}

impl<R, D> BenchRole<R, D>
where
    R: Hosted,
    D: RoleDisk<R::Record, Error = Infallible> + Clone,
{
    fn new(core: &ServerCore<Arc<ReplyWriter>>, env: &BenchEnv, role: R, disk: D) -> BenchRole<R, D> {
        R::mailbox(core).open();
        let host = RoleHost::new(core, env, role, disk.clone(), Random::new(1, R::NAME as u64));
        BenchRole { host, disk, now: Time(0) }
    }

    fn begin_anew(
        &mut self,
        core: &ServerCore<Arc<ReplyWriter>>,
        env: &BenchEnv,
        recover: impl FnOnce(&ServerCore<Arc<ReplyWriter>>) -> R,
    ) {
        let order = CrashRequest { point: CrashPoint::BeforeStep, cause: CrashCause::Admin, down: None };
        let _ = core.enqueue_control::<R, _>(env, MailboxItem::Crash(order));
        self.work(core, env);
        env.now.set(self.now);
        let next = BenchRole { now: self.now, ..BenchRole::new(core, env, recover(core), self.disk.clone()) };
        *self = next;
    }

    fn time_out(&mut self) {
        self.now = self.host.due().unwrap_or(self.now).max(self.now);
    }

    /// Runs turns until the role is idle; false if it was idle already.
    fn work(&mut self, core: &ServerCore<Arc<ReplyWriter>>, env: &BenchEnv) -> bool {
        let mut has_worked = false;
        loop {
            env.now.set(self.now);
            match self.host.begin(core, env) {
                TurnStart::Idle => return has_worked,
                TurnStart::Ended(ended) => {
                    self.host.on_crash(core, env, &ended);
                    assert!(matches!(ended, RunEnd::Crashed(_)), "it was told to crash, and nothing else: {ended:?}");
                    return true;
                }
                TurnStart::Group(group) => match self.host.commit(group) {
                    Ok(released) => self.host.release(core, env, released),
                    Err(ended) => panic!("a disk in memory has no errors: {ended:?}"),
                },
            }
            has_worked = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::LABEL_MAX_BYTES;
    use crate::net::Request;
    use crate::trace::ProcessId;

    fn get(context: TraceContext) -> ClientRequest {
        ClientRequest { number: 1, context, request: Request::Get { key: b"k".to_vec() } }
    }

    #[test]
    fn invalid_label_ends_the_connection() {
        let mut bench = BenchServer::new(1, Protocol::BasicPaxos);
        let connection = bench.connect();
        let mut ask =
            |label: &str| bench.ask(&connection, get(TraceContext { parent: None, req: Some(label.to_string()) }));
        assert_eq!(ask("c1-1"), Ok(()));
        assert_eq!(ask(&"c".repeat(LABEL_MAX_BYTES)), Ok(()));
        for label in ["c1 req=c2-1", "c1\n", "\u{e4}", &"c".repeat(LABEL_MAX_BYTES + 1)] {
            assert!(ask(label).is_err(), "{label:?}");
        }
    }

    #[test]
    fn client_cannot_name_a_line_of_a_server_as_parent() {
        let trace = Trace::to_memory(ProcessId::server(ME, 1));
        let mut bench = BenchServer::writing_to(trace.clone(), 1, Protocol::BasicPaxos);
        let connection = bench.connect();
        for re in ["c1.4", "s1.7"] {
            let context = TraceContext { parent: Some(re.parse().unwrap()), req: Some(format!("of-{re}")) };
            bench.ask(&connection, get(context)).unwrap();
        }
        let text = trace.text();
        assert!(text.lines().any(|line| line.contains("REQUEST  req=of-c1.4") && line.ends_with("re=c1.4")), "{text}");
        assert!(text.lines().any(|line| line.contains("REQUEST  req=of-s1.7") && !line.contains(" re=")), "{text}");
    }
}
