//! A server that runs in one thread and without time, for the fuzzer: its front desk, its roles and what their shells do are
//! the real ones, and so is the keeper of its checkpoint. Only disks and connections are in memory.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use super::clients::FrontDesk;
use super::house::House;
use super::keeper::Keeper;
use super::linked::Linked;
use super::mailbox::Inbox;
use super::options::Options;
use super::outlet::Outlet;
use super::runner::Shell;
use super::shells::{AcceptorShell, LearnerShell, ProposerShell};
use super::standing::Standing;
use super::supervisor::Orders;
use crate::cluster::Cluster;
use crate::codec;
use crate::host::queue::Item;
use crate::kv::Kv;
use crate::net::{CLIENT_FRAME_MAX_BYTES, ClientReply, ClientRequest, Envelope, FrameReader, Said};
use crate::paxos::{
    Acceptor, AcceptorRecord, Ballot, Learner, Life, Proposer, ProposerRecord, ProposerRequest, Quorums, Retention,
};
use crate::role::{Action, Disk, Input, NoDisk, Role, Server, turn};
use crate::storage::Checkpoint;
use crate::storage::disk::MemoryFiles;
use crate::trace::{Context, Trace};

/// It is this server.
pub const ME: Server = Server(1);
/// A part of a state has so many bytes: a few keys.
const PART_BYTES: usize = 200;
/// Checkpoints are made often, and of the log not much is kept.
const RETENTION: Retention = Retention { checkpoint_slots: 8, keep_slots: 4, ..Retention::EVERYTHING };

/// A server.
pub struct Stage {
    house: Arc<House>,
    desk: FrontDesk,
    quorums: Quorums,
    proposer: Seat<Proposer, ProposerShell, Memory<ProposerRecord>>,
    acceptor: Seat<Acceptor, AcceptorShell, Memory<AcceptorRecord>>,
    learner: Seat<Learner<Kv>, LearnerShell, NoDisk>,
    lives: u32,
}

/// A role and what belongs to it.
struct Seat<R: Role, S, D> {
    role: R,
    shell: S,
    disk: D,
    inbox: Inbox<R>,
    armed: Vec<R::Timer>,
}

/// Records, as a disk gives them back.
struct Memory<Record>(Vec<Record>);

impl<Record: serde::Serialize + serde::de::DeserializeOwned> Disk<Record> for Memory<Record> {
    type Error = Infallible;

    fn commit(&mut self, records: &[Record]) -> Result<(), Infallible> {
        let again = |record| codec::decode(&codec::encode(record)).expect("what is written can be read");
        self.0.extend(records.iter().map(again));
        Ok(())
    }
}

/// One client's connection.
pub struct Connection {
    outlet: Arc<Outlet>,
    replies: FrameReader,
}

impl Connection {
    /// The replies that have come.
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

/// Which role.
#[derive(Clone, Copy, Debug)]
pub enum Which {
    /// The proposer.
    Proposer,
    /// The acceptor.
    Acceptor,
    /// The learner.
    Learner,
}

impl Stage {
    /// A server of a cluster of so many, under this protocol.
    pub fn new(servers: u8, protocol: &str) -> Stage {
        Stage::writing_to(Trace::disabled(), servers, protocol)
    }

    /// The same, whose lines go there.
    pub fn writing_to(trace: Trace, servers: u8, protocol: &str) -> Stage {
        let options = Options::of(&["--protocol", protocol]);
        let file: String = (1..=servers).map(member).collect();
        let cluster = Cluster::parse(Path::new("stage"), &format!("cluster = \"stage\"\n{file}")).expect("a cluster");
        let quorums = Quorums::majority(cluster.servers());
        let house = House::new(ME, cluster.servers(), options, trace, Standing::member());
        let house = Arc::new(house);
        let (checkpoint, state) = Checkpoint::open(MemoryFiles::new(), 1, PART_BYTES, Kv::default()).expect("no error");
        Keeper::run(&house, checkpoint, state).expect("there is a thread");
        let desk =
            FrontDesk { house: house.clone(), cluster, life: 1, linked: Linked::default(), orders: Orders::unheard() };
        let policy = house.options.protocol.policy();
        let proposer = Seat::new(Proposer::new(ME, quorums, policy), ProposerShell(house.clone()), Memory(Vec::new()));
        let acceptor = Seat::new(Acceptor::new(Life(1)), AcceptorShell(house.clone()), Memory(Vec::new()));
        let learner = learner(&house, quorums, 2);
        let learner = Seat::new(learner, LearnerShell::new(house.clone()), NoDisk);
        let mut stage = Stage { house, desk, quorums, proposer, acceptor, learner, lives: 2 };
        stage.acceptor.take(Input::Start);
        stage.learner.take(Input::Start);
        stage.proposer.take(Input::Start);
        stage.settle();
        stage
    }

    /// What its acceptor is bound to.
    pub fn promised(&self) -> Ballot {
        self.acceptor.role.promised()
    }

    /// The ballot that its proposer is at.
    pub fn at_work(&self) -> Option<Ballot> {
        self.proposer.role.at_work()
    }

    /// The digest of its state.
    pub fn digest(&self) -> u64 {
        self.house.board.read().digest
    }

    /// A client connects.
    pub fn connect(&self) -> Connection {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets can be made");
        theirs.set_nonblocking(true).expect("a socket can be told not to wait");
        let [ours, theirs] = [ours, theirs].map(|end| Arc::new(TcpStream::from(OwnedFd::from(end))));
        let address = SocketAddr::from(([127, 0, 0, 1], 9));
        let outlet = Outlet::new(ours, address, self.house.load.clone());
        Connection { outlet, replies: FrameReader::new(theirs, CLIENT_FRAME_MAX_BYTES) }
    }

    /// A client asks. An error is a request for which its connection is closed.
    pub fn ask(&mut self, connection: &Connection, request: ClientRequest) -> Result<(), String> {
        let size = codec::encode(&request).len();
        let taken = self.desk.take(request, size, &connection.outlet);
        self.settle();
        taken
    }

    /// A peer says something.
    pub fn hear(&mut self, from: Server, message: Said) {
        self.house.deliver(from, Envelope { context: Context::default(), message });
        self.settle();
    }

    /// A timer runs out: the one armed first.
    pub fn time_out(&mut self, which: Which) {
        match which {
            Which::Proposer => self.proposer.time_out(),
            Which::Acceptor => self.acceptor.time_out(),
            Which::Learner => self.learner.time_out(),
        }
        self.settle();
    }

    /// A role dies and lives again, with what its disk holds.
    pub fn restart(&mut self, which: Which) {
        self.lives += 1;
        let (house, quorums, life) = (self.house.clone(), self.quorums, self.lives);
        match which {
            Which::Proposer => {
                let mut role = Proposer::new(ME, quorums, house.options.protocol.policy());
                self.proposer.disk.0.iter().for_each(|record| role.replay(record.clone()));
                self.proposer.begin_anew(role);
            }
            Which::Acceptor => {
                let mut role = Acceptor::new(Life(life));
                self.acceptor.disk.0.iter().for_each(|record| role.replay(record.clone()));
                self.acceptor.begin_anew(role.with_checkpoint(house.board.read().checkpoint));
            }
            Which::Learner => {
                self.proposer.take(Input::Request(ProposerRequest::LearnerDown));
                self.learner.begin_anew(learner(&house, quorums, life));
            }
        }
        self.settle();
    }

    /// Until nobody has anything to do.
    fn settle(&mut self) {
        while self.acceptor.work() || self.learner.work() || self.proposer.work() {}
        self.house.send_replies();
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.house.keeper.get().into_iter().for_each(Keeper::end);
    }
}

fn member(id: u8) -> String {
    format!(
        "[[server]]\nid = {id}\npeer = \"127.0.0.1:{}\"\nclient = \"127.0.0.1:{}\"\n",
        7_100 + u16::from(id),
        7_200 + u16::from(id)
    )
}

fn learner(house: &House, quorums: Quorums, life: u32) -> Learner<Kv> {
    let loaded = house.keeper.get().and_then(Keeper::load);
    let (slot, state) = loaded.expect("the keeper is there");
    Learner::new(ME, quorums, Life(life), slot, state).with_retention(RETENTION).under(house.options.protocol.policy())
}

impl<R, S, D> Seat<R, S, D>
where
    R: Role<Message: Into<Said>>,
    S: Shell<R>,
    D: Disk<R::Record, Error = Infallible>,
{
    fn new(role: R, shell: S, disk: D) -> Seat<R, S, D> {
        let inbox = shell.mailbox().open();
        Seat { role, shell, disk, inbox, armed: Vec::new() }
    }

    fn begin_anew(&mut self, role: R) {
        self.shell.mailbox().close();
        self.inbox = self.shell.mailbox().open();
        (self.role, self.armed) = (role, Vec::new());
        self.take(Input::Start);
    }

    fn time_out(&mut self) {
        if !self.armed.is_empty() {
            let timer = self.armed.remove(0);
            self.take(Input::Timeout(timer));
        }
    }

    /// Takes what is in the mailbox; false if there is nothing.
    fn work(&mut self) -> bool {
        let mut has_worked = false;
        while let Some(item) = self.inbox.take_one() {
            has_worked = true;
            if let Item::Mail(mail) = item {
                self.take(mail.input);
            }
        }
        has_worked
    }

    fn take(&mut self, input: Input<R>) {
        let Ok(actions) = turn(&mut self.role, [(Context::default(), input)], &mut self.disk, true);
        self.shell.publish(&self.role);
        for (context, action) in
            actions.into_iter().flat_map(|(context, all)| all.into_iter().map(move |one| (context.clone(), one)))
        {
            match action {
                Action::Send { to, message } => self.shell.house().send(to, message.into(), context),
                Action::Arm(timer) => {
                    let variant = std::mem::discriminant(&timer);
                    self.armed.retain(|armed| std::mem::discriminant(armed) != variant);
                    self.armed.push(timer);
                }
                Action::Outcome(outcome) => self.shell.outcome(outcome, context),
                Action::Fact(fact) => drop(self.shell.draft(&fact, &context)),
            }
        }
    }
}
