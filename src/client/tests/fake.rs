//! Servers that speak the protocol of clients and otherwise do what a test says.

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
use crate::role::ServerId;
use crate::trace::TraceContext;

/// A try in these tests; long enough for a machine that has other things to do.
pub const TRY: Duration = Duration::from_millis(400);

/// What a fake server does with a request.
#[derive(Clone, Debug)]
pub enum Act {
    /// Answers it.
    Reply(Reply),
    /// Answers it after a while.
    Late(Duration, Reply),
    /// Sends replies to requests with these numbers added to the right one, and then the right one.
    Unrequested(Vec<u64>, Reply),
    /// Sends bytes.
    Bytes(Vec<u8>),
    /// Closes the connection.
    Close,
    /// Answers it and closes the connection.
    ReplyAndClose(Reply),
    /// Does nothing, and keeps the connection.
    Nothing,
}

/// Decides what to do with a request: the function gets its number, from 0.
type Decide = Box<dyn FnMut(usize, &Request) -> Act + Send>;

/// What a fake server does with a connection.
pub enum Fake {
    /// Takes requests.
    Serves(Decide),
    /// Nobody listens there.
    Absent,
    /// Accepts connections and says nothing.
    Mute,
    /// Refuses every greeting.
    TurnsAway,
}

/// A server that takes requests.
pub fn serves(act: impl FnMut(usize, &Request) -> Act + Send + 'static) -> Fake {
    Fake::Serves(Box::new(act))
}

/// A server that does everything right, writing to slot after slot.
pub fn good() -> Fake {
    serves(|n, request| Act::Reply(good_reply(n as u64 + 1, request)))
}

/// What a good server replies.
pub fn good_reply(slot: u64, request: &Request) -> Reply {
    match request {
        Request::Open { .. } => Reply::Opened { session: 7, history: 1 },
        Request::Write { .. } => Reply::Applied { slot: Slot(slot), written: WriteResult::Done { version: slot } },
        Request::Get { .. } => Reply::Value { slot: Slot(slot), value: Some(b"value".to_vec().into()), version: slot },
        Request::Status | Request::State { .. } | Request::Crash { .. } | Request::Restart { .. } => Reply::Done,
    }
}

/// A server that opens sessions and does this with everything else.
pub fn opens_and(mut act: impl FnMut(usize, &Request) -> Act + Send + 'static) -> Fake {
    serves(move |n, request| match request {
        Request::Open { .. } => Act::Reply(Reply::Opened { session: 7, history: 1 }),
        other => act(n, other),
    })
}

/// A cluster of fake servers.
pub struct FakeCluster {
    /// As the client sees it.
    pub cluster: Cluster,
    /// As a file.
    pub file: tempfile::NamedTempFile,
    /// Every request that any of them has received, in order.
    pub received: Arc<Mutex<Vec<(ServerId, Request)>>>,
    /// Keeps the addresses of absent servers from being given to others.
    reserved: Vec<Socket>,
}

impl FakeCluster {
    /// Starts servers 1, 2, 3 ... that behave so.
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

    /// A client's options: server 1 first, short tries.
    pub fn options(&self) -> ClientOptions {
        ClientOptions {
            first_server: Some(ServerId(1)),
            timeout: 4 * TRY,
            try_timeout: TRY,
            ..ClientOptions::new(self.cluster.clone(), "c1")
        }
    }

    /// The first absent server, which is the only one, comes up and behaves so.
    pub fn wake(&mut self, fake: Fake) {
        let socket = self.reserved.remove(0);
        socket.listen(16).unwrap();
        accept(ServerId(1), socket.into(), fake, self.received.clone());
    }

    /// The requests received so far, as `server: request`.
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

/// One connection, until the client or the test ends it.
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
        // The other end closes it.
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
            Act::Reply(said) => reply(number, said)?,
            Act::Late(wait, said) => {
                thread::sleep(wait);
                reply(number, said)?;
            }
            Act::Unrequested(others, said) => {
                for other in others {
                    reply(number + other, said.clone())?;
                }
                reply(number, said)?;
            }
            Act::Bytes(bytes) => std::io::Write::write_all(&mut reader.stream(), &bytes).ok()?,
            Act::ReplyAndClose(said) => {
                reply(number, said)?;
                return None;
            }
            Act::Close => return None,
            Act::Nothing => {}
        }
    }
}

/// The words of a server that lets in whoever comes.
pub fn welcome(hello: &Hello) -> HelloReply {
    HelloReply::Welcome(Welcome { history: 1, members: hello.members })
}
