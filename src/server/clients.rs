//! The front desk: a thread a client connection, which takes request after request and waits for none of them.
//!
//! Many requests of one connection may be under way. Each is answered by whoever has its outcome, in the order in which
//! the outcomes come: replies carry the number of their request. How much may be under way is in [`outlet`](super::outlet).

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::clock;
use super::house::House;
use super::lines;
use super::linked::Linked;
use super::outlet::Outlet;
use super::peers::{check_hello, tell_malformed, tell_trouble, welcome};
use super::supervisor::{Order, Orders};
use crate::cluster::Cluster;
use crate::host::queue::{Lost, Mail};
use crate::host::{Asker, Connection, Ticket};
use crate::kv::{Command, Get, KEY_MAX_BYTES, LABEL_MAX_BYTES};
use crate::net::{
    Answer, CLIENT_FRAME_MAX_BYTES, ClientRequest, Connections, FrameError, FrameReader, HandshakeError, Hello, Place,
    Reply, Request, RoleStatus, ServerStatus, Who, WhyNotApplied, answer, listen, turn_away,
};
use crate::paxos::{LearnerRequest, PartName, ProposerRequest, Slot};
use crate::role::{Input, RoleName};
use crate::trace::{Context, RoleTag};
use crate::two_phase_commit::{CoordinatorRequest, ParticipantRequest};

/// At most so many clients at once.
const CLIENTS_MAX: usize = 1_200;
/// The only group of connections at this port.
const CLIENTS: u8 = 0;
/// At most this many callers may be about to greet; when one more comes, the oldest is closed.
const STRANGERS_MAX: usize = 128;
/// What a caller is told for whom there is no place.
const TOO_MANY: &str = "too many clients already; try another server";
/// A client that asks nothing for so long is let go.
const IDLE: Duration = Duration::from_secs(600);
/// How often the desk looks for those who have waited too long.
const LOOK: Duration = Duration::from_millis(100);

/// So long a client that asks for a part of the state is made to wait before it is told to ask again.
const STATE_PATIENCE: Duration = Duration::from_millis(500);

/// What the front desk needs.
pub struct FrontDesk {
    /// The server.
    pub house: Arc<House>,
    /// The cluster.
    pub cluster: Cluster,
    /// The server's life on it.
    pub life: u32,
    /// The links that are up.
    pub linked: Linked,
    /// To the supervisor, for crash and restart.
    pub orders: Orders,
}

/// Listens to clients.
pub fn serve(desk: FrontDesk, listener: TcpListener) -> std::io::Result<()> {
    let busy = |stream: Arc<TcpStream>| turn_away(&stream, TOO_MANY);
    let trouble = tell_trouble(desk.house.clone(), "no connection from a client can be taken on");
    let house = desk.house.clone();
    std::thread::Builder::new().name("desk-clock".to_string()).spawn(move || watch_the_clock(&house))?;
    let serve = move |stream, address, place: &Place| desk.serve(stream, address, place);
    listen("client", listener, Connections::new(STRANGERS_MAX, CLIENTS_MAX), serve, busy, trouble)
}

/// Nobody waits for ever.
fn watch_the_clock(house: &House) {
    loop {
        std::thread::sleep(LOOK);
        house.pending.expire(clock::now());
        house.send_replies();
    }
}

impl FrontDesk {
    /// One client connection.
    fn serve(&self, stream: Arc<TcpStream>, address: SocketAddr, place: &Place) {
        let mut reader = FrameReader::new(stream, CLIENT_FRAME_MAX_BYTES);
        let judge = |hello: &Hello| {
            let judged = check_hello(hello, &self.cluster, self.house.me).and_then(|()| match hello.who {
                Who::Client if place.join(CLIENTS, CLIENTS_MAX) => Ok(()),
                Who::Client => Err(TOO_MANY.to_string()),
                Who::Peer { .. } => Err("this is the address for clients; servers have another one".to_string()),
            });
            match judged {
                Ok(()) => welcome(&self.house, &self.cluster),
                Err(why) => Answer::Refused { why },
            }
        };
        match answer(&mut reader, judge) {
            Ok(Some(_)) => {}
            Ok(None) => return,
            // It has said nothing wrong.
            Err(HandshakeError::Refused(why)) if why == TOO_MANY => return,
            Err(error) => return tell_malformed(&self.house, address, &error),
        }
        let outlet = Outlet::new(reader.shared_stream(), address, self.house.load.clone());
        // A client that says no more may still wait for replies: its connection ends with the last of them.
        if let Err(error) = self.take_all(&mut reader, &outlet) {
            outlet.close();
            tell_malformed(&self.house, address, &HandshakeError::Broken(error));
        }
    }

    /// Takes requests until the client has no more; an error ends the connection at once.
    fn take_all(&self, reader: &mut FrameReader, outlet: &Arc<Outlet>) -> Result<(), FrameError> {
        while outlet.await_room() {
            match reader.read::<ClientRequest>(Some(Instant::now() + IDLE)) {
                Ok(Some(request)) => {
                    let size = reader.last_frame_bytes();
                    let malformed = |what| FrameError::Malformed { length: size, what };
                    let taken = self.take(request, size as usize, outlet).map_err(malformed);
                    // What was answered at once goes out when all that has come is taken.
                    if taken.is_err() || !reader.has_frame() {
                        self.house.send_replies();
                    }
                    taken?;
                }
                Ok(None) => return Ok(()),
                Err(FrameError::Broken(_) | FrameError::TimedOut { received: 0, .. }) => break,
                Err(error) => return Err(error),
            }
        }
        outlet.close();
        Ok(())
    }

    /// One request: its line, and either its answer or its place among those who wait. An error is a request that no
    /// honest client sends.
    pub(super) fn take(&self, request: ClientRequest, size: usize, outlet: &Arc<Outlet>) -> Result<(), String> {
        let ClientRequest { number, context, request } = request;
        let label = context.req.clone().unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if label.len() > LABEL_MAX_BYTES || !label.chars().all(plain) {
            return Err("its label is not a short plain word".to_string());
        }
        // A client names lines of its own: one that names a server's would make that server's log seem to lack them.
        let re = context.re.filter(|line| line.process.as_server().is_none());
        let context = self.tell_request(&request, Context { re, ..context }, outlet.address());
        let mut asker = outlet.ask(number, context);
        let reply = match request {
            Request::Open { .. } if !(outlet.may_open() && self.house.opens.lets_through()) => {
                Reply::NotApplied(WhyNotApplied::Busy)
            }
            Request::Open { nonce } => return self.write(Command::Open { nonce, label }, asker, size),
            Request::Write { session, nonce, sequence, first_open, op } => {
                return self.write(Command::Write { session, nonce, sequence, first_open, label, op }, asker, size);
            }
            Request::Get { key } if key.len() > KEY_MAX_BYTES => return Err("its key is too long".to_string()),
            Request::Get { key } if asker.is_admitted(size) => {
                self.read(key, asker);
                return Ok(());
            }
            Request::Get { .. } => Reply::NotApplied(WhyNotApplied::Busy),
            Request::Status => Reply::Status(Box::new(self.status())),
            Request::State { at_least, part } => self.state(at_least, part),
            Request::Crash { role, down_ms } => {
                let down = down_ms.map(Duration::from_millis);
                self.order(|role| Order::Crash { role, down }, role)
            }
            Request::Restart { role } => self.order(|role| Order::Restart { role }, role),
        };
        self.house.pending.tell(asker, reply, Context::default());
        Ok(())
    }

    /// The line of a request; gives what goes on with it. When no steps are shown nobody reads the label either.
    fn tell_request(&self, request: &Request, context: Context, from: SocketAddr) -> Context {
        if !self.house.trace.steps() {
            return Context::default();
        }
        match lines::request(request, from) {
            Some(event) => self.house.line(RoleTag::Server, &context, event),
            None => context,
        }
    }

    /// A write: registered, and handed over once, to one proposer life.
    fn write(&self, command: Command, mut asker: Asker<Arc<Outlet>>, size: usize) -> Result<(), String> {
        if !command.is_well_formed() {
            return Err("its write breaks a limit of key, value or sequence number".to_string());
        }
        let house = &self.house;
        if !asker.is_admitted(size) {
            house.pending.tell(asker, Reply::NotApplied(WhyNotApplied::Busy), Context::default());
            return Ok(());
        }
        let (id, context) = (command.id(), asker.context.clone());
        // Registered first: if a role dies from here on, whoever waits is told.
        let ticket = house.pending.await_write(id, asker);
        if let Err(why) = self.hand_over(command, context) {
            house.pending.refuse_write(id, ticket, why);
        }
        Ok(())
    }

    /// Gives a command to the proposer, if there is hope for it on this server. An error is certain.
    fn hand_over(&self, command: Command, context: Context) -> Result<(), WhyNotApplied> {
        let house = &self.house;
        let is_paxos = house.options.protocol.is_paxos();
        let needed = house.options.protocol.roles_of_writes();
        if let Some(role) = needed.into_iter().find(|role| !house.is_up(*role)) {
            return Err(WhyNotApplied::RoleDown(role));
        }
        if let Some(why) = house.standing.refusal() {
            return Err(why);
        }
        if house.is_disk_full() {
            // Others may still have room; if nobody has, the client hears at once, and for certain.
            return Err(WhyNotApplied::DiskFull);
        }
        let command = command.to_paxos();
        let size = command.payload.len();
        if !is_paxos {
            let input = Input::Request(CoordinatorRequest::Propose(command));
            let posted = house.coordinator.post(Mail { context, input, size });
            return posted.map_err(|lost| not_taken(RoleName::Coordinator, lost));
        }
        let input = Input::Request(ProposerRequest::Propose(command));
        // A leader that has something under way does not begin anything small before that is done.
        let is_little = |waiting| waiting < house.demand.worth.load(Ordering::Relaxed);
        house
            .proposer
            .leave(Mail { context, input, size }, is_little)
            .map_err(|lost| not_taken(RoleName::Proposer, lost))
    }

    /// A read: asked of the own learner.
    fn read(&self, key: Vec<u8>, asker: Asker<Arc<Outlet>>) {
        let (house, context) = (&self.house, asker.context.clone());
        if let Some(why) = house.standing.refusal() {
            return house.pending.tell(asker, Reply::NotApplied(why), Context::default());
        }
        let ticket: Ticket = house.pending.await_read(asker);
        if !house.options.protocol.is_paxos() {
            let request = ParticipantRequest::Read { token: ticket, query: Get { key } };
            if let Err(lost) = house.participant.post(Mail { context, input: Input::Request(request), size: 0 }) {
                let reply = Reply::NotApplied(not_taken(RoleName::Participant, lost));
                house.pending.tell_read(ticket, reply, &Context::default());
            }
            return;
        }
        let request = LearnerRequest::Read { token: ticket, query: Get { key } };
        // It is for the next round of questions: the end of the one under way wakes the learner.
        let is_early = |_| house.demand.round.load(Ordering::Relaxed) != 0;
        if let Err(lost) = house.learner.leave(Mail { context, input: Input::Request(request), size: 0 }, is_early) {
            let reply = Reply::NotApplied(not_taken(RoleName::Learner, lost));
            house.pending.tell_read(ticket, reply, &Context::default());
        }
    }

    fn order(&self, order: impl Fn(RoleName) -> Order, role: Option<RoleName>) -> Reply {
        if !self.house.options.lab {
            return Reply::Refused("the server was not started with --lab: its roles cannot be crashed".to_string());
        }
        let all = self.house.options.protocol.roles();
        let roles = role.map_or(all.to_vec(), |role| vec![role]);
        if let Some(stranger) = roles.iter().find(|role| !all.contains(role)) {
            let (role, protocol) = (stranger.word(), self.house.options.protocol);
            return Reply::Refused(format!("under {protocol} a server has no {role}"));
        }
        match roles.into_iter().try_for_each(|role| self.orders.give(order(role))) {
            Ok(()) => Reply::Done,
            Err(why) => Reply::Refused(why),
        }
    }

    /// A part of the state. If it is not written down yet, it soon will be, unless nobody can write it down: this server has
    /// not applied so much.
    fn state(&self, at_least: Slot, part: Option<PartName>) -> Reply {
        if let Some(why) = self.house.standing.refusal() {
            return Reply::NotApplied(why);
        }
        let Some(keeper) = self.house.keeper.get() else {
            return Reply::Refused("under two-phase commit there is no log and no checkpoint: no backup".to_string());
        };
        if at_least > self.house.board.read().applied {
            return Reply::State(None);
        }
        let part = keeper.part(part, at_least, Instant::now() + STATE_PATIENCE);
        if part.is_none() && keeper.grants_wish() {
            let input = Input::Request(LearnerRequest::WantCheckpoint);
            // If the learner is down or busy, the client asks again.
            let _ = self.house.learner.post(Mail { context: Context::default(), input, size: 0 });
        }
        Reply::State(part)
    }

    /// How the server is.
    pub(super) fn status(&self) -> ServerStatus {
        let house = &self.house;
        let shown = house.board.read();
        let role = |role: &RoleName| RoleStatus { role: *role, up: house.is_up(*role), crashes: shown.crashes(*role) };
        ServerStatus {
            server: house.me,
            version: env!("CARGO_PKG_VERSION").to_string(),
            protocol: house.options.protocol.to_string(),
            restart: house.options.restart.to_string(),
            life: self.life,
            pid: std::process::id(),
            roles: house.options.protocol.roles_as_named().iter().map(role).collect(),
            promised: shown.promised,
            accepted: shown.accepted,
            known: shown.known,
            applied: shown.applied,
            digest: shown.digest,
            history: shown.history,
            keys: shown.keys,
            sessions: shown.sessions,
            dropped: house.dropped(),
            disk_full: house.is_disk_full(),
            checkpoint: shown.checkpoint,
            truncated_below: shown.truncated_below,
            damaged: shown.damaged,
            fenced: shown.fenced,
            newcomer: house.standing.newness(),
            linked: self.linked.reached(),
            hears: self.linked.heard(Instant::now()),
            refusals: self.linked.refusals(),
            leader: shown.leader().filter(|_| house.proposer.is_open()),
            in_doubt: shown.in_doubt,
            doubts: shown.doubts,
        }
    }
}

/// The role has not even seen the request.
fn not_taken(role: RoleName, lost: Lost) -> WhyNotApplied {
    match lost {
        Lost::Down => WhyNotApplied::RoleDown(role),
        Lost::Full => WhyNotApplied::Busy,
    }
}

#[cfg(test)]
mod tests {
    use super::super::stage::{ME, Stage};
    use super::*;
    use crate::trace::{Process, Trace};

    fn get(context: Context) -> ClientRequest {
        ClientRequest { number: 1, context, request: Request::Get { key: b"k".to_vec() } }
    }

    #[test]
    fn a_label_that_is_no_short_plain_word_ends_the_connection() {
        let mut stage = Stage::new(1, "basic-paxos");
        let connection = stage.connect();
        let mut ask = |label: &str| stage.ask(&connection, get(Context { re: None, req: Some(label.to_string()) }));
        assert_eq!(ask("c1-1"), Ok(()));
        assert_eq!(ask(&"c".repeat(LABEL_MAX_BYTES)), Ok(()));
        for label in ["c1 req=c2-1", "c1\n", "\u{e4}", &"c".repeat(LABEL_MAX_BYTES + 1)] {
            assert!(ask(label).is_err(), "{label:?}");
        }
    }

    #[test]
    fn a_client_cannot_name_a_line_of_a_server_as_its_own() {
        let trace = Trace::to_memory(Process::server(ME, 1));
        let mut stage = Stage::writing_to(trace.clone(), 1, "basic-paxos");
        let connection = stage.connect();
        for re in ["c1.4", "s1.7"] {
            let context = Context { re: Some(re.parse().unwrap()), req: Some(format!("of-{re}")) };
            stage.ask(&connection, get(context)).unwrap();
        }
        let text = trace.text();
        assert!(text.lines().any(|line| line.contains("REQUEST  req=of-c1.4") && line.ends_with("re=c1.4")), "{text}");
        assert!(text.lines().any(|line| line.contains("REQUEST  req=of-s1.7") && !line.contains(" re=")), "{text}");
    }
}
