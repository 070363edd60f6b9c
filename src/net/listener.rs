//! The listener: one thread accepts, one thread serves each connection, and the number of connections is limited.
//!
//! A caller is a *stranger* until it has identified itself. Strangers have few permits. When all are taken, the
//! stranger that came first is closed, so slow or silent callers keep no other caller out. Known callers have permits
//! of their own, in groups that the port defines.

use std::collections::BTreeMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::{Errno, ioctl_fionread};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use thiserror::Error;

use super::thread_group::ThreadGroup;

/// Stack size of a connection's thread, in bytes: it holds no large arrays.
const STACK_BYTES: usize = 256 << 10;
/// The listener waits this long after an error of `accept`, such as "too many open files", before it tries again.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// Time for which a stranger may be silent before it is closed for others. When a server restarts, a thousand clients
/// may call at once, and each is about to identify itself.
const GRACE: Duration = Duration::from_millis(250);
/// If there are too many connections, the listener waits this long for one to end before it refuses a caller.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(1);
/// Idle time before the first keepalive probe, interval between probes, and number of probes before a connection counts
/// as broken. So a machine that vanished holds its permit for a minute.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);
/// Maximum number of callers that wait to be accepted: when a server restarts, all its clients call at once.
const BACKLOG: i32 = 1_024;

/// Maximum number of open sockets and files, if the system's own limit allows it.
const FILES_MAX: u64 = 4_096;

/// Raises the limit on open files, since a thousand connections are more than the usual one. It is raised as far as the
/// system allows; a server that still reaches the limit reports it then.
pub fn allow_many_sockets() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(FILES_MAX).min(FILES_MAX);
    if limit.current.is_some_and(|current| current < wanted) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum });
    }
}

/// The group that a connection counts in: unidentified callers, or a group of known callers with a number that the
/// server chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ConnectionClass {
    Strangers,
    Known(u8),
}

/// The limits on the connections of one port.
#[derive(Clone, Debug)]
pub struct ConnectionLimit {
    unidentified_max: usize,
    all_max: usize,
    grace: Duration,
    port: Arc<PortState>,
}

#[derive(Debug, Default)]
struct PortState {
    held: Mutex<OpenConnections>,
    /// Signaled when a permit is free.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct OpenConnections {
    /// Number of arrivals so far; joining a group counts as one.
    arrivals: u64,
    /// Number of permits in use. It includes closed connections whose thread has not ended yet.
    places: usize,
    /// The connections of each group, in the order in which they joined it.
    connections: BTreeMap<(ConnectionClass, u64), AcceptedConnection>,
}

#[derive(Debug)]
struct AcceptedConnection {
    stream: Arc<TcpStream>,
    since: Instant,
}

/// The permit of one connection; dropping it frees the permit.
#[derive(Debug)]
pub struct ConnectionPermit {
    port: Arc<PortState>,
    at: (ConnectionClass, u64),
}

impl ConnectionLimit {
    /// Allows at most `strangers` at once: one more closes the oldest, unless that one has only just come. In addition
    /// there may be `known` callers, which join by [`ConnectionPermit::join`] or [`ConnectionPermit::join_last`].
    pub fn new(unidentified: usize, known: usize) -> ConnectionLimit {
        // Closed strangers keep their permit for a moment.
        let all_max = known + 2 * unidentified;
        ConnectionLimit { unidentified_max: unidentified, all_max, grace: GRACE, port: Arc::default() }
    }

    /// A permit for a stranger; None if there are far too many connections.
    fn take(&self, stream: &Arc<TcpStream>) -> Option<ConnectionPermit> {
        let mut held = self.port.lock();
        if held.places >= self.all_max {
            // Closed connections are about to end, but callers come faster. Waiting here leaves the next callers in
            // their queue.
            held.close_first(ConnectionClass::Strangers);
            let is_full = |held: &mut OpenConnections| held.places >= self.all_max;
            let waited = self.port.ended.wait_timeout_while(held, PERMIT_TIMEOUT, is_full);
            held = waited.unwrap_or_else(PoisonError::into_inner).0;
            if held.places >= self.all_max {
                return None;
            }
        }
        held.make_room(self.unidentified_max, self.grace);
        held.places += 1;
        let caller = AcceptedConnection { stream: stream.clone(), since: Instant::now() };
        let at = held.insert(ConnectionClass::Strangers, caller);
        Some(ConnectionPermit { port: self.port.clone(), at })
    }

    /// Frees a file descriptor by closing a stranger.
    fn make_room(&self) {
        let mut held = self.port.lock();
        let most = held.count(ConnectionClass::Strangers);
        held.make_room(most, self.grace);
    }
}

impl ConnectionPermit {
    /// Moves the caller into this group of at most `most` members. False if the group is full or the caller was closed;
    /// in a full group it stays a stranger.
    pub fn join(&mut self, group: u8, most: usize) -> bool {
        let mut held = self.port.lock();
        held.count(ConnectionClass::Known(group)) < most && held.change(&mut self.at, ConnectionClass::Known(group))
    }

    /// Like [`join`](ConnectionPermit::join), but a full group closes its oldest member. False if the caller was
    /// closed.
    pub fn join_last(&mut self, group: u8, most: usize) -> bool {
        let mut held = self.port.lock();
        let has_joined = held.change(&mut self.at, ConnectionClass::Known(group));
        if held.count(ConnectionClass::Known(group)) > most {
            held.close_first(ConnectionClass::Known(group));
        }
        has_joined
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut held = self.port.lock();
        held.places -= 1;
        held.connections.remove(&self.at);
        self.port.ended.notify_one();
    }
}

impl OpenConnections {
    fn of(&self, group: ConnectionClass) -> impl Iterator<Item = (&(ConnectionClass, u64), &AcceptedConnection)> {
        self.connections.range((group, 0)..=(group, u64::MAX))
    }

    fn count(&self, group: ConnectionClass) -> usize {
        self.of(group).count()
    }

    fn insert(&mut self, group: ConnectionClass, caller: AcceptedConnection) -> (ConnectionClass, u64) {
        self.arrivals += 1;
        let at = (group, self.arrivals);
        self.connections.insert(at, caller);
        at
    }

    /// Moves a connection to another group; false if it was closed.
    fn change(&mut self, at: &mut (ConnectionClass, u64), group: ConnectionClass) -> bool {
        let caller = self.connections.remove(at);
        caller.map(|caller| *at = self.insert(group, caller)).is_some()
    }

    /// Closes the oldest strangers if there are `most` or more, so that one more fits. A stranger whose bytes have
    /// arrived unread is spared: the delay is this server's.
    fn make_room(&mut self, most: usize, grace: Duration) {
        let is_late = |caller: &AcceptedConnection| {
            let has_spoken = ioctl_fionread(&*caller.stream).is_ok_and(|unread| unread > 0);
            !has_spoken && caller.since.elapsed() >= grace
        };
        let too_many = (self.count(ConnectionClass::Strangers) + 1).saturating_sub(most);
        let late = self.of(ConnectionClass::Strangers).filter(|(_, caller)| is_late(caller)).map(|(at, _)| *at);
        let late: Vec<(ConnectionClass, u64)> = late.take(too_many).collect();
        late.into_iter().for_each(|at| self.close(at));
    }

    fn close_first(&mut self, group: ConnectionClass) {
        let first = self.of(group).next().map(|(at, _)| *at);
        first.into_iter().for_each(|at| self.close(at));
    }

    /// Closes a connection: its thread sees the end of the stream.
    fn close(&mut self, at: (ConnectionClass, u64)) {
        if let Some(caller) = self.connections.remove(&at) {
            // It may be closed already.
            let _ = caller.stream.shutdown(Shutdown::Both);
        }
    }
}

impl PortState {
    fn lock(&self) -> MutexGuard<'_, OpenConnections> {
        // Each change under this lock is complete, also if a thread panics.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why an address cannot be bound.
#[derive(Debug, Error)]
pub enum BindError {
    /// Another process has the address.
    #[error(
        "the {what} address {address} is in use by another process. Stop that process, or change the address in the \
         cluster file"
    )]
    Taken {
        /// The address.
        address: SocketAddr,
        /// Its purpose.
        what: &'static str,
    },
    /// The address is not one of this machine.
    #[error("the {what} address {address} is not an address of this machine")]
    Elsewhere {
        /// The address.
        address: SocketAddr,
        /// Its purpose.
        what: &'static str,
    },
    /// Any other reason of the operating system.
    #[error("cannot listen on the {what} address {address}: {cause}")]
    Io {
        /// The address.
        address: SocketAddr,
        /// Its purpose.
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

/// Whether an address can be bound. It does not listen, so no caller takes it for a server.
pub fn check_free(address: SocketAddr, what: &'static str) -> Result<(), BindError> {
    let bound = Socket::new(Domain::for_address(address), Type::STREAM, None).and_then(|socket| {
        // As for a listener: connections that have just ended do not block the address.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())
    });
    bound.map_err(BindError::of(address, what))
}

/// Accepts until the group stops. Each connection has its own thread, and is a stranger until its [`ConnectionPermit`]
/// joins a group of connections. If there are far too many, `busy` receives the connection. When no connection can be
/// accepted, `trouble` receives the error, once until one can be accepted again.
pub fn listen(
    threads: &Arc<ThreadGroup>,
    name: &'static str,
    listener: TcpListener,
    connections: ConnectionLimit,
    serve: impl Fn(Arc<TcpStream>, SocketAddr, ConnectionPermit) + Send + Sync + 'static,
    busy: impl Fn(Arc<TcpStream>) + Send + 'static,
    trouble: impl Fn(&io::Error) + Send + 'static,
) -> io::Result<()> {
    let (listener, serve) = (Arc::new(listener), Arc::new(serve));
    let (open, group) = (threads.watch(listener.clone()), threads.clone());
    let accept = move || {
        let _open = open;
        let mut in_trouble = false;
        while !group.is_stopping() {
            match accept_one(&group, name, &listener, &connections, &serve, &busy) {
                Ok(()) => in_trouble = false,
                // The group has shut the listener down.
                Err(_) if group.is_stopping() => {}
                Err(error) => {
                    if !in_trouble {
                        trouble(&error);
                    }
                    in_trouble = true;
                    group.rest(ACCEPT_BACKOFF);
                }
            }
        }
    };
    threads.spawn(format!("{name}-accept"), accept).map(drop)
}

/// Accepts the next connection. If no thread can be started for it, dropping it closes it.
fn accept_one(
    threads: &Arc<ThreadGroup>,
    name: &str,
    listener: &TcpListener,
    connections: &ConnectionLimit,
    serve: &Arc<impl Fn(Arc<TcpStream>, SocketAddr, ConnectionPermit) + Send + Sync + 'static>,
    busy: &impl Fn(Arc<TcpStream>),
) -> io::Result<()> {
    let (stream, address) = match listener.accept() {
        // The caller has closed already; no other connection is affected.
        Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => return Ok(()),
        Err(error) => {
            if matches!(Errno::from_io_error(&error), Some(Errno::MFILE | Errno::NFILE)) {
                connections.make_room();
            }
            return Err(error);
        }
        Ok((stream, address)) => (Arc::new(stream), address),
    };
    let Some(permit) = connections.take(&stream) else {
        busy(stream);
        return Ok(());
    };
    let (time, interval, retries) = KEEPALIVE;
    let keepalive = TcpKeepalive::new().with_time(time).with_interval(interval).with_retries(retries);
    // Both are optional: the connection also works without them.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&*stream).set_tcp_keepalive(&keepalive);
    let (open, serve) = (threads.watch(stream.clone()), serve.clone());
    let serve = move || {
        let _open = open;
        serve(stream, address, permit);
    };
    threads.spawn_with_stack(name, STACK_BYTES, serve).map(drop)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);
    /// The group that a known caller names.
    const KNOWN_CALLER: u8 = 7;

    /// At most `strangers` strangers, and none is spared for having just come.
    fn strict(unidentified: usize, known: usize) -> ConnectionLimit {
        ConnectionLimit { grace: Duration::ZERO, ..ConnectionLimit::new(unidentified, known) }
    }

    /// A port where a caller sends a byte, its group, and receives it back. A group up to 99 closes its oldest member
    /// for a third; a higher one is full with two.
    fn port(connections: ConnectionLimit) -> (SocketAddr, crossbeam_channel::Receiver<Arc<TcpStream>>) {
        let listener = bind("127.0.0.1:0".parse().unwrap(), "test").unwrap();
        let address = listener.local_addr().unwrap();
        let serve = |stream: Arc<TcpStream>, _, mut permit: ConnectionPermit| {
            let mut byte = [0];
            while (&*stream).read(&mut byte).is_ok_and(|count| count > 0) {
                let joined = if byte[0] > 99 { permit.join(byte[0], 2) } else { permit.join_last(byte[0], 2) };
                let _ = (&*stream).write_all(&[if joined { byte[0] } else { 0 }]);
            }
        };
        let (turned_away, heard) = crossbeam_channel::unbounded();
        // The receiver is gone when a test is over.
        let busy = move |stream| drop(turned_away.send(stream));
        listen(&ThreadGroup::new(), "test", listener, connections, serve, busy, |error| panic!("{error}")).unwrap();
        (address, heard)
    }

    fn call(address: SocketAddr) -> TcpStream {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends a byte and returns the reply; None if the connection is closed.
    fn say(mut stream: &TcpStream, byte: u8) -> Option<u8> {
        let mut answer = [0];
        stream.write_all(&[byte]).ok()?;
        stream.read_exact(&mut answer).ok().map(|()| answer[0])
    }

    fn is_closed(mut stream: &TcpStream) -> bool {
        matches!(stream.read(&mut [0]), Ok(0))
    }

    #[test]
    fn oldest_stranger_makes_room_and_no_known_caller_does() {
        let (address, _turned_away) = port(strict(3, 2));
        let known_caller = call(address);
        assert_eq!(say(&known_caller, KNOWN_CALLER), Some(KNOWN_CALLER));
        let silent: Vec<TcpStream> = (0..150).map(|_| call(address)).collect();
        assert!(silent[..147].iter().all(is_closed));
        assert_eq!(say(&call(address), KNOWN_CALLER), Some(KNOWN_CALLER), "a caller that names itself");
        assert_eq!(say(&known_caller, KNOWN_CALLER), Some(KNOWN_CALLER));
        assert_eq!(say(&silent[149], KNOWN_CALLER), Some(KNOWN_CALLER), "the last of the silent ones is still heard");
    }

    #[test]
    fn many_concurrent_callers_all_have_time_for_their_hello() {
        let (address, turned_away) = port(ConnectionLimit { grace: PATIENCE, ..ConnectionLimit::new(3, 100) });
        let callers: Vec<TcpStream> = (0..100).map(|_| call(address)).collect();
        for (caller, group) in callers.iter().zip(0..) {
            assert_eq!(say(caller, group % 50), Some(group % 50));
        }
        assert!(turned_away.is_empty());
    }

    #[test]
    fn stranger_that_has_sent_bytes_is_not_closed_first() {
        let connections = strict(2, 0);
        let listener = bind("127.0.0.1:0".parse().unwrap(), "test").unwrap();
        let address = listener.local_addr().unwrap();
        let enter = || {
            let caller = call(address);
            let stream = Arc::new(listener.accept().unwrap().0);
            (caller, connections.take(&stream).unwrap(), stream)
        };
        let (mut speaks, _speaks, heard) = enter();
        speaks.write_all(b"x").unwrap();
        // The byte has arrived when it can be seen from here.
        assert_eq!(heard.peek(&mut [0]).unwrap(), 1);
        let (silent, _silent, _) = enter();
        let (later, _later, _) = enter();
        assert!(is_closed(&silent), "it came later, and has said nothing");
        drop(later);
        assert!(connections.port.lock().connections.contains_key(&(ConnectionClass::Strangers, 1)));
    }

    #[test]
    fn full_group_closes_its_oldest_connection_or_takes_no_more() {
        let (address, _turned_away) = port(ConnectionLimit::new(3, 9));
        let friends: Vec<TcpStream> = (0..3).map(|_| call(address)).collect();
        assert!(friends.iter().all(|known_caller| say(known_caller, KNOWN_CALLER) == Some(KNOWN_CALLER)));
        assert!(is_closed(&friends[0]));
        assert_eq!(say(&friends[1], KNOWN_CALLER + 1), Some(KNOWN_CALLER + 1), "another group has places of its own");
        let clients: Vec<TcpStream> = (0..3).map(|_| call(address)).collect();
        let heard: Vec<_> = clients.iter().map(|client| say(client, 100)).collect();
        assert_eq!(heard, [Some(100), Some(100), Some(0)]);
    }

    #[test]
    fn callers_beyond_all_limits_are_refused_until_a_place_is_free() {
        let connections = ConnectionLimit::new(1, 2);
        let (address, turned_away) = port(connections.clone());
        let known: Vec<TcpStream> = (1..=4)
            .map(|group| (call(address), group))
            .map(|(stream, group)| {
                assert_eq!(say(&stream, group), Some(group));
                stream
            })
            .collect();
        let _fifth = call(address);
        turned_away.recv_timeout(PATIENCE).unwrap();
        drop(known);
        while connections.port.lock().places > 0 {
            std::thread::yield_now();
        }
        assert_eq!(say(&call(address), KNOWN_CALLER), Some(KNOWN_CALLER));
        assert!(turned_away.is_empty());
    }

    #[test]
    fn address_in_use_is_reported_by_name() {
        let first = bind("127.0.0.1:0".parse().unwrap(), "peer").unwrap();
        let address = first.local_addr().unwrap();
        let error = bind(address, "peer").unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("in use by another process"), "{error}");
        assert_eq!(check_free(address, "peer").unwrap_err().to_string(), error);
        drop(first);
        check_free(address, "peer").unwrap();
        let error = bind("192.0.2.1:1".parse().unwrap(), "client").unwrap_err().to_string();
        assert!(error.contains("192.0.2.1:1") && error.contains("not an address of this machine"), "{error}");
    }
}
