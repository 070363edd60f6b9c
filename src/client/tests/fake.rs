//! Fake servers that speak the client protocol and act as a test says.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::client::ClientOptions;
use crate::cluster::Cluster;
use crate::kv::WriteResult;
use crate::net::{
    CLIENT_FRAME_MAX_BYTES, ClientReply, ClientRequest, FrameReader, Hello, HelloReply, Reply, Request, Welcome,
    accept_handshake, frame, reject,
};
use crate::paxos::Slot;
use crate::role::{ServerId, ServerSet};
use crate::trace::TraceContext;

/// Maximum time for a try in these tests; long enough for a busy machine.
pub const TRY: Duration = Duration::from_millis(400);

/// The action of a fake server on a request.
#[derive(Clone, Debug)]
pub enum FakeAction {
    /// Replies.
    Reply(Reply),
    /// Replies after this time.
    Late(Duration, Reply),
    /// Sends unrequested replies first, whose numbers are the right one plus each of these, and then the right reply.
    Unrequested(Vec<u64>, Reply),
    /// Sends these bytes.
    Bytes(Vec<u8>),
    /// Closes the connection.
    Close,
    /// Replies and closes the connection.
    ReplyAndClose(Reply),
    /// Does nothing, and keeps the connection open.
    Nothing,
}

/// Decides the action on a request; the first argument counts the requests from 0.
type Decide = Box<dyn FnMut(usize, &Request) -> FakeAction + Send>;

/// The behavior of a fake server.
pub enum Fake {
    /// Accepts clients and decides on each request.
    Serves(Decide),
    /// Does not listen.
    Absent,
    /// Accepts connections and sends nothing.
    Mute,
    /// Refuses every client in the handshake.
    TurnsAway,
}

/// A server that accepts clients and acts so on each request.
pub fn serves(act: impl FnMut(usize, &Request) -> FakeAction + Send + 'static) -> Fake {
    Fake::Serves(Box::new(act))
}

/// A correct server, whose writes get one slot after the other.
pub fn good() -> Fake {
    serves(|n, request| FakeAction::Reply(good_reply(n as u64 + 1, request)))
}

/// The reply of a correct server.
pub fn good_reply(slot: u64, request: &Request) -> Reply {
    match request {
        Request::Open { .. } => Reply::Opened { session: 7, history: 1 },
        Request::Write { .. } => Reply::Applied {
            slot: Slot(slot),
            written: WriteResult::Done { version: slot },
            accepted_by: ServerSet::NONE,
        },
        Request::Get { .. } => Reply::Value { slot: Slot(slot), value: Some(b"value".to_vec().into()), version: slot },
        Request::Status
        | Request::State { .. }
        | Request::Crash { .. }
        | Request::Restart { .. }
        | Request::Cut { .. }
        | Request::Join { .. } => Reply::Done,
    }
}

/// A server that opens sessions and acts so on all other requests.
pub fn opens_and(mut act: impl FnMut(usize, &Request) -> FakeAction + Send + 'static) -> Fake {
    serves(move |n, request| match request {
        Request::Open { .. } => FakeAction::Reply(Reply::Opened { session: 7, history: 1 }),
        other => act(n, other),
    })
}

/// A cluster of fake servers.
pub struct FakeCluster {
    /// The cluster, as the client configures it.
    pub cluster: Cluster,
    /// The cluster file.
    pub file: tempfile::NamedTempFile,
    /// Every request that a server has received, in order.
    pub received: Arc<Mutex<Vec<(ServerId, Request)>>>,
    /// Keeps the addresses of absent servers reserved.
    reserved: Vec<Socket>,
}

impl FakeCluster {
    /// Starts servers 1, 2, 3 ... with these behaviors.
    pub fn start(fakes: Vec<Fake>) -> FakeCluster {
        let received = Arc::new(Mutex::new(Vec::new()));
        let (mut text, mut reserved) = ("cluster = \"fake\"\n".to_string(), Vec::new());
        for (n, fake) in fakes.into_iter().enumerate() {
            let server = ServerId(n as u8 + 1);
            let address = match fake {
                Fake::Absent => {
                    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
                    let address = socket.local_addr().unwrap().as_socket().unwrap();
                    reserved.push(socket);
                    address
                }
                other => {
                    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                    let address = listener.local_addr().unwrap();
                    accept(server, listener, other, received.clone());
                    address
                }
            };
            let id = server.0;
            text.push_str(&format!("[[server]]\nid = {id}\npeer = \"127.0.0.1:{id}\"\nclient = \"{address}\"\n"));
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        FakeCluster { cluster: Cluster::read(file.path()).unwrap(), file, received, reserved }
    }

    /// Client options: server 1 first, short tries.
    pub fn options(&self) -> ClientOptions {
        ClientOptions {
            first_server: Some(ServerId(1)),
            timeout: 4 * TRY,
            try_timeout: TRY,
            ..ClientOptions::new(self.cluster.clone(), "c1")
        }
    }

    /// Starts the only absent server, with this behavior.
    pub fn wake(&mut self, fake: Fake) {
        let socket = self.reserved.remove(0);
        socket.listen(16).unwrap();
        accept(ServerId(1), socket.into(), fake, self.received.clone());
    }

    /// The requests received so far, with their servers.
    pub fn requests(&self) -> Vec<(u8, Request)> {
        self.received.lock().unwrap().iter().map(|(server, request)| (server.0, request.clone())).collect()
    }
}

fn accept(server: ServerId, listener: TcpListener, fake: Fake, received: Arc<Mutex<Vec<(ServerId, Request)>>>) {
    let fake = Arc::new(Mutex::new((0, fake)));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (fake, received) = (fake.clone(), received.clone());
            thread::spawn(move || serve(server, stream, &fake, &received));
        }
    });
}

/// Serves one connection, until the client or the test ends it.
fn serve(
    server: ServerId,
    stream: TcpStream,
    fake: &Mutex<(usize, Fake)>,
    received: &Mutex<Vec<(ServerId, Request)>>,
) -> Option<()> {
    let mut reader = FrameReader::new(stream, CLIENT_FRAME_MAX_BYTES);
    match fake.lock().unwrap().1 {
        Fake::Serves(_) => {}
        Fake::TurnsAway => {
            reject(reader.stream(), "not today");
            return None;
        }
        // The client closes the connection.
        Fake::Mute | Fake::Absent => {
            let _ = reader.read_raw(1 << 20, std::time::Instant::now() + Duration::from_secs(60));
            return None;
        }
    }
    accept_handshake(&mut reader, welcome).ok()??;
    loop {
        let ClientRequest { number, request, .. } = reader.read(None).ok()??;
        received.lock().unwrap().push((server, request.clone()));
        let act = {
            let mut fake = fake.lock().unwrap();
            let (n, Fake::Serves(act)) = &mut *fake else { return None };
            *n += 1;
            act(*n - 1, &request)
        };
        let reply = |number, reply| {
            let bytes = frame(&ClientReply { number, context: TraceContext::default(), reply });
            std::io::Write::write_all(&mut reader.stream(), &bytes).ok()
        };
        match act {
            FakeAction::Reply(said) => reply(number, said)?,
            FakeAction::Late(wait, said) => {
                thread::sleep(wait);
                reply(number, said)?;
            }
            FakeAction::Unrequested(others, said) => {
                for other in others {
                    reply(number + other, said.clone())?;
                }
                reply(number, said)?;
            }
            FakeAction::Bytes(bytes) => std::io::Write::write_all(&mut reader.stream(), &bytes).ok()?,
            FakeAction::ReplyAndClose(said) => {
                reply(number, said)?;
                return None;
            }
            FakeAction::Close => return None,
            FakeAction::Nothing => {}
        }
    }
}

/// A handshake answer that accepts every client.
pub fn welcome(hello: &Hello) -> HelloReply {
    HelloReply::Welcome(Welcome { history: 1, members: hello.members })
}
