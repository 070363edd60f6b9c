//! Listening: one thread that accepts, one thread a connection, and a limit on how many there are.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use thiserror::Error;

/// The stack of a connection's thread: it holds no large arrays.
const STACK_BYTES: usize = 256 << 10;
/// After an error of `accept`, such as "too many open files", the listener waits this long before it tries again.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// A connection whose other end is silent for so long is asked whether it is there, so often, and so many times before it
/// counts as dead: a machine that vanished without a word holds its place for a minute.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);
/// So many callers may wait to be accepted: when a server comes back, all its clients call at once.
const BACKLOG: i32 = 1_024;

/// So many sockets and files may be open, if the system's own limit allows it.
const FILES_MAX: u64 = 4_096;

/// A thousand connections are more than a process may usually have. What the system allows is taken; whoever meets the
/// limit all the same is told so when it happens.
pub fn allow_many_sockets() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(FILES_MAX).min(FILES_MAX);
    if limit.current.is_some_and(|current| current < wanted) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum });
    }
}

/// Counts connections up to a limit.
#[derive(Clone, Debug)]
pub struct Connections {
    open: Arc<AtomicUsize>,
    limit: usize,
}

/// One connection that counts; dropped, it no longer does.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Connections {
    /// At most so many connections at once.
    pub fn up_to(limit: usize) -> Connections {
        Connections { open: Arc::default(), limit }
    }

    fn take(&self) -> Option<Place> {
        let place = Place(self.open.clone());
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        (before < self.limit).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why an address cannot be bound.
#[derive(Debug, Error)]
pub enum BindError {
    /// Somebody else has it.
    #[error(
        "the {what} address {address} is taken by another process. Stop that one, or give this server another address in \
         the cluster file"
    )]
    Taken {
        /// The address.
        address: SocketAddr,
        /// What it is called.
        what: &'static str,
    },
    /// It is another machine's.
    #[error("the {what} address {address} is not an address of this machine")]
    Elsewhere {
        /// The address.
        address: SocketAddr,
        /// What it is called.
        what: &'static str,
    },
    /// The system's reason.
    #[error("cannot listen at the {what} address {address}: {cause}")]
    Io {
        /// The address.
        address: SocketAddr,
        /// What it is called.
        what: &'static str,
        /// The reason.
        cause: io::Error,
    },
}

impl BindError {
    fn of(address: SocketAddr, what: &'static str) -> impl FnOnce(io::Error) -> BindError {
        move |cause| match cause.kind() {
            io::ErrorKind::AddrInUse => BindError::Taken { address, what },
            io::ErrorKind::AddrNotAvailable => BindError::Elsewhere { address, what },
            _ => BindError::Io { address, what, cause },
        }
    }
}

/// Binds an address and listens.
pub fn bind(address: SocketAddr, what: &'static str) -> Result<TcpListener, BindError> {
    // The second listen only makes the queue of callers longer.
    let bound = TcpListener::bind(address).and_then(|listener| {
        SockRef::from(&listener).listen(BACKLOG)?;
        Ok(listener)
    });
    bound.map_err(BindError::of(address, what))
}

/// Whether an address can be bound. Nobody is listened to, so nobody takes this for a server.
pub fn check_free(address: SocketAddr, what: &'static str) -> Result<(), BindError> {
    let bound = Socket::new(Domain::for_address(address), Type::STREAM, None).and_then(|socket| {
        // As a listener does: connections that have just ended are not in its way.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())
    });
    bound.map_err(BindError::of(address, what))
}

/// Accepts for ever, each connection in a thread of its own; beyond the limit `busy` has the last word with it. When no
/// connection can be taken on, `trouble` hears why, once until one can again.
pub fn listen(
    name: &'static str,
    listener: TcpListener,
    connections: Connections,
    serve: impl Fn(TcpStream, SocketAddr) + Send + Sync + 'static,
    busy: impl Fn(TcpStream) + Send + 'static,
    trouble: impl Fn(&io::Error) + Send + 'static,
) -> io::Result<()> {
    let serve = Arc::new(serve);
    let accept = move || {
        let mut in_trouble = false;
        loop {
            match accept_one(name, &listener, &connections, &serve, &busy) {
                Ok(()) => in_trouble = false,
                Err(error) => {
                    if !in_trouble {
                        trouble(&error);
                    }
                    in_trouble = true;
                    std::thread::sleep(ACCEPT_BACKOFF);
                }
            }
        }
    };
    std::thread::Builder::new().name(format!("{name}-accept")).spawn(accept)?;
    Ok(())
}

/// Takes the next connection on. If there is no thread to be had for it, it is closed by being dropped.
fn accept_one(
    name: &str,
    listener: &TcpListener,
    connections: &Connections,
    serve: &Arc<impl Fn(TcpStream, SocketAddr) + Send + Sync + 'static>,
    busy: &impl Fn(TcpStream),
) -> io::Result<()> {
    let (stream, address) = match listener.accept() {
        // The caller has gone again: that is its trouble, not ours.
        Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => return Ok(()),
        accepted => accepted?,
    };
    let Some(place) = connections.take() else {
        busy(stream);
        return Ok(());
    };
    let (time, interval, retries) = KEEPALIVE;
    let keepalive = TcpKeepalive::new().with_time(time).with_interval(interval).with_retries(retries);
    // Both only help: without them the connection works as well.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
    let serve = serve.clone();
    let thread = std::thread::Builder::new().name(name.to_string()).stack_size(STACK_BYTES);
    thread.spawn(move || {
        serve(stream, address);
        drop(place);
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn connections_beyond_the_limit_are_turned_away_until_one_ends() {
        let listener = bind("127.0.0.1:0".parse().unwrap(), "test").unwrap();
        let address = listener.local_addr().unwrap();
        let serve = |mut stream: TcpStream, _| {
            let _ = stream.read(&mut [0]);
        };
        let (turned_away, heard) = crossbeam_channel::unbounded();
        let busy = move |stream| turned_away.send(stream).unwrap();
        let connections = Connections::up_to(2);
        listen("test", listener, connections.clone(), serve, busy, |error| panic!("{error}")).unwrap();
        let first = TcpStream::connect(address).unwrap();
        let _second = TcpStream::connect(address).unwrap();
        let _third = TcpStream::connect(address).unwrap();
        heard.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(connections.open.load(Ordering::Relaxed), 2);
        drop(first);
        while connections.open.load(Ordering::Relaxed) > 1 {
            std::thread::yield_now();
        }
        let mut fourth = TcpStream::connect(address).unwrap();
        fourth.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert!(fourth.read(&mut [0]).is_err(), "the fourth is held, not closed");
        assert!(heard.is_empty());
    }

    #[test]
    fn a_taken_address_is_told_by_name() {
        let first = bind("127.0.0.1:0".parse().unwrap(), "peer").unwrap();
        let address = first.local_addr().unwrap();
        let error = bind(address, "peer").unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("taken by another process"), "{error}");
        assert_eq!(check_free(address, "peer").unwrap_err().to_string(), error);
        drop(first);
        check_free(address, "peer").unwrap();
        let error = bind("192.0.2.1:1".parse().unwrap(), "client").unwrap_err().to_string();
        assert!(error.contains("192.0.2.1:1") && error.contains("not an address of this machine"), "{error}");
    }
}
