//! The front desk: a thread a client connection, which takes one request after the other.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::desk::{Ticket, Told};
use super::house::House;
use super::lines;
use super::mailbox::{Lost, Mail};
use super::peers::{Linked, check_hello, tell_malformed, tell_trouble};
use super::supervisor::{Order, Orders};
use crate::cluster::Cluster;
use crate::kv::{Command, Get, KEY_MAX_BYTES, LABEL_MAX_BYTES};
use crate::net::{
    CLIENT_FRAME_MAX_BYTES, ClientReply, ClientRequest, Connections, FrameError, FrameReader, HandshakeError, Hello,
    Reply, Request, RoleStatus, ServerStatus, Unknown, Who, WhyNotApplied, answer, frame, listen, turn_away,
    write_before,
};
use crate::paxos::{LearnerRequest, ProposerRequest, RoleName};
use crate::role::Input;
use crate::trace::{Context, RoleTag};

/// At most so many clients at once.
const CLIENTS_MAX: usize = 1_200;
/// A request without an outcome is answered "unknown" after so long: its client has gone on to the next server.
const PATIENCE: Duration = Duration::from_secs(2);
/// A client that asks nothing for so long is let go.
const IDLE: Duration = Duration::from_secs(600);
/// A client that has not taken its whole reply after so long is let go.
const TAKE: Duration = Duration::from_secs(30);

/// What the front desk needs.
pub struct FrontDesk {
    /// The server.
    pub house: Arc<House>,
    /// The cluster.
    pub cluster: Cluster,
    /// The id of the data folder.
    pub storage: u64,
    /// The server's life on it.
    pub life: u32,
    /// The links that are up.
    pub linked: Linked,
    /// To the supervisor, for crash and restart.
    pub orders: Orders,
}

/// Listens to clients.
pub fn serve(desk: FrontDesk, listener: TcpListener) -> std::io::Result<()> {
    let busy = |stream| turn_away(&stream, "too many clients already; try another server");
    let trouble = tell_trouble(desk.house.clone(), "no connection from a client can be taken on");
    let serve = move |stream, address| desk.serve(stream, address);
    listen("client", listener, Connections::up_to(CLIENTS_MAX), serve, busy, trouble)
}

impl FrontDesk {
    /// One client connection.
    fn serve(&self, stream: TcpStream, address: SocketAddr) {
        let mut reader = FrameReader::new(stream, CLIENT_FRAME_MAX_BYTES);
        let check = |hello: &Hello| match hello.who {
            Who::Client => check_hello(hello, &self.cluster, self.house.me),
            Who::Peer { .. } => Err("this is the address for clients; servers have another one".to_string()),
        };
        match answer(&mut reader, self.storage, check) {
            Ok(Some(_)) => {}
            Ok(None) => return,
            Err(error) => return tell_malformed(&self.house, address, &error),
        }
        loop {
            match reader.read::<ClientRequest>(Some(Instant::now() + IDLE)) {
                Ok(Some(request)) => {
                    let reply = match self.take(request, address) {
                        Ok(reply) => reply,
                        Err(what) => {
                            let error = FrameError::Malformed { length: reader.last_frame_bytes(), what };
                            return tell_malformed(&self.house, address, &HandshakeError::Broken(error));
                        }
                    };
                    if write_before(reader.stream(), &frame(&reply), Instant::now() + TAKE).is_err() {
                        return;
                    }
                }
                Ok(None) | Err(FrameError::Broken(_) | FrameError::TimedOut { received: 0, .. }) => return,
                Err(error) => return tell_malformed(&self.house, address, &HandshakeError::Broken(error)),
            }
        }
    }

    /// One request, from its line to the line of its reply. An error is a request that no honest client sends.
    fn take(&self, request: ClientRequest, address: SocketAddr) -> Result<ClientReply, String> {
        let begun = Instant::now();
        let ClientRequest { number, context, request } = request;
        let label = context.req.clone().unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if label.len() > LABEL_MAX_BYTES || !label.chars().all(plain) {
            return Err("its label is not a short plain word".to_string());
        }
        let event = lines::request(&request, address);
        let context = match event {
            Some(event) => self.house.line(RoleTag::Server, &context, event),
            None => context,
        };
        let (reply, cause) = match request {
            Request::Open { nonce } => self.write(Command::Open { nonce, label }, &context)?,
            Request::Write { session, sequence, first_open, op } => {
                self.write(Command::Write { session, sequence, first_open, label, op }, &context)?
            }
            Request::Get { key } if key.len() > KEY_MAX_BYTES => return Err("its key is too long".to_string()),
            Request::Get { key } => self.read(key, &context),
            Request::Status => (Reply::Status(Box::new(self.status())), context),
            Request::Crash { role, down_ms } => {
                let down = down_ms.map(Duration::from_millis);
                (self.order(|role| Order::Crash { role, down }, role), context)
            }
            Request::Restart { role } => (self.order(|role| Order::Restart { role }, role), context),
        };
        let context = match lines::response(&reply, begun.elapsed(), address) {
            Some(event) => self.house.line(RoleTag::Server, &cause, event),
            None => cause,
        };
        Ok(ClientReply { number, context, reply })
    }

    /// A write: registered, handed over once, to one proposer life, and waited for.
    fn write(&self, command: Command, context: &Context) -> Result<Told, String> {
        if !command.is_well_formed() {
            return Err("its write breaks a limit of key, value or sequence number".to_string());
        }
        let house = &self.house;
        let ticket = house.desk.await_write(command.id());
        for (role, up) in [(RoleName::Proposer, house.proposer.is_open()), (RoleName::Learner, house.learner.is_open())]
        {
            if !up {
                return Ok((Reply::NotApplied(WhyNotApplied::RoleDown(role)), context.clone()));
            }
        }
        if house.disk_full.load(Ordering::Relaxed) {
            // Others may still have room; if nobody has, the client hears at once, and for certain.
            return Ok((Reply::NotApplied(WhyNotApplied::DiskFull), context.clone()));
        }
        let command = command.to_paxos();
        let size = command.payload.len();
        let input = Input::Request(ProposerRequest::Propose(command));
        if let Err(lost) = house.proposer.post(Mail { context: context.clone(), input, size }) {
            return Ok((not_taken(RoleName::Proposer, lost), context.clone()));
        }
        Ok(await_reply(&ticket, Reply::Unknown(Unknown::TimedOut), context))
    }

    /// A read: asked of the own learner.
    fn read(&self, key: Vec<u8>, context: &Context) -> Told {
        let ticket = self.house.desk.await_read();
        let request = LearnerRequest::Read { token: ticket.token, query: Get { key } };
        let mail = Mail { context: context.clone(), input: Input::Request(request), size: 0 };
        if let Err(lost) = self.house.learner.post(mail) {
            return (not_taken(RoleName::Learner, lost), context.clone());
        }
        await_reply(&ticket, Reply::NotApplied(WhyNotApplied::Busy), context)
    }

    fn order(&self, order: impl Fn(RoleName) -> Order, role: Option<RoleName>) -> Reply {
        if !self.house.options.lab {
            return Reply::Refused("the server was not started with --lab: its roles cannot be crashed".to_string());
        }
        let roles = role.map_or(RoleName::ALL.to_vec(), |role| vec![role]);
        match roles.into_iter().try_for_each(|role| self.orders.give(order(role))) {
            Ok(()) => Reply::Done,
            Err(why) => Reply::Refused(why),
        }
    }

    /// How the server is.
    pub(super) fn status(&self) -> ServerStatus {
        let house = &self.house;
        let shown = house.board.read();
        let role = |role, up| RoleStatus { role, up, crashes: shown.crashes(role) };
        ServerStatus {
            server: house.me,
            version: env!("CARGO_PKG_VERSION").to_string(),
            protocol: house.options.protocol.to_string(),
            restart: house.options.restart.to_string(),
            life: self.life,
            pid: std::process::id(),
            roles: vec![
                role(RoleName::Proposer, house.proposer.is_open()),
                role(RoleName::Acceptor, house.acceptor.is_open()),
                role(RoleName::Learner, house.learner.is_open()),
            ],
            promised: shown.promised,
            accepted: shown.accepted,
            known: shown.known,
            applied: shown.applied,
            digest: shown.digest,
            keys: shown.keys,
            sessions: shown.sessions,
            dropped: house.dropped(),
            disk_full: house.disk_full.load(Ordering::Relaxed),
            linked: self.linked.servers(),
        }
    }
}

/// The role has not even seen the request.
fn not_taken(role: RoleName, lost: Lost) -> Reply {
    Reply::NotApplied(match lost {
        Lost::Down => WhyNotApplied::RoleDown(role),
        Lost::Full => WhyNotApplied::Busy,
    })
}

/// Waits at the desk; `late` if nothing is said in time.
fn await_reply(ticket: &Ticket<'_>, late: Reply, context: &Context) -> Told {
    match ticket.told.recv_timeout(PATIENCE) {
        Ok((reply, cause)) => {
            // What told us comes from a line, but perhaps of another request's: the label stays ours.
            let re = cause.re.or_else(|| context.re.clone());
            (reply, Context { re, req: context.req.clone() })
        }
        Err(_) => (late, context.clone()),
    }
}
