//! Proxy network between real servers. Each direction between two servers, and from clients to each server, passes
//! through a listener here. Link faults can be switched at any time.
//!
//! Every server is started with its own cluster file, which names the proxies' listeners as the addresses of the other
//! servers. A server verifies the cluster's name, the server's number and its storage id, but not the address, so it
//! does not notice the proxies.
//!
//! A link between servers is one-way: each server dials for the messages that it sends. These messages use *its*
//! direction. The replies on the same connection (the end of the handshake) use the opposite one. So a server that
//! cannot receive from a peer cannot complete a handshake with it either.

mod connection;
mod frames;
mod link_faults;

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use connection::DirectionPump;
pub use connection::ProxyConnection;
pub use link_faults::LinkEffect;
use link_faults::{DirectionFaults, SharedReplayBuffer};

use paxos_kv::random::Random;
use paxos_kv::role::ServerId;

/// Maximum number of concurrent connections of one listener; further ones are closed at once.
const CONNECTIONS_MAX: usize = 256;
const STACK_BYTES: usize = 256 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// An endpoint of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProxyEnd {
    /// All clients.
    Clients,
    /// One server.
    Server(ServerId),
}

/// A direction: source and destination.
pub type Direction = (ProxyEnd, ProxyEnd);

/// All listeners. Dropping it closes all connections.
pub struct ProxyNetwork {
    faults: BTreeMap<Direction, Arc<DirectionFaults>>,
    listeners: Vec<ProxyListener>,
    is_over: Arc<AtomicBool>,
}

struct ProxyListener {
    direction: Direction,
    address: SocketAddr,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// State that the threads of a listener share.
struct ProxyShared {
    target: SocketAddr,
    forward_faults: Arc<DirectionFaults>,
    backward_faults: Arc<DirectionFaults>,
    replay_buffer: Option<Arc<SharedReplayBuffer>>,
    connections: Arc<AtomicUsize>,
    seed: u64,
}

impl ProxyNetwork {
    /// Listens for every direction between the servers, and from clients to each. `targets` gives the servers' real
    /// addresses, for servers and for clients; `address` gives free addresses. If `repeats` is set, the streams between
    /// servers are split into messages.
    pub fn open(
        targets: &BTreeMap<ServerId, (SocketAddr, SocketAddr)>,
        seed: u64,
        repeats: bool,
        mut address: impl FnMut() -> io::Result<TcpListener>,
    ) -> io::Result<ProxyNetwork> {
        let servers: Vec<ServerId> = targets.keys().copied().collect();
        let mut endpoints = vec![ProxyEnd::Clients];
        endpoints.extend(servers.iter().copied().map(ProxyEnd::Server));
        let pairs =
            || endpoints.iter().flat_map(|from| endpoints.iter().map(|to| (*from, *to))).filter(|(a, b)| a != b);
        let faults: BTreeMap<Direction, Arc<DirectionFaults>> = pairs().map(|way| (way, Arc::default())).collect();
        let mut net = ProxyNetwork { faults, listeners: Vec::new(), is_over: Arc::default() };
        for (number, direction) in pairs().enumerate() {
            let (from, ProxyEnd::Server(to)) = direction else { continue };
            let (peer, client) = targets[&to];
            let is_peer = from != ProxyEnd::Clients;
            let shared = ProxyShared {
                target: if is_peer { peer } else { client },
                forward_faults: net.faults[&direction].clone(),
                backward_faults: net.faults[&(direction.1, direction.0)].clone(),
                // A client's connection must deliver each byte once: TCP guarantees that, and the store relies on it.
                replay_buffer: (repeats && is_peer).then(Arc::default),
                connections: Arc::default(),
                seed: seed ^ (number as u64) << 32,
            };
            let listener = address()?;
            let address = listener.local_addr()?;
            let is_over = net.is_over.clone();
            let thread = std::thread::Builder::new()
                .name(format!("door-{number}"))
                .stack_size(STACK_BYTES)
                .spawn(move || shared.listen(&listener, &is_over))?;
            net.listeners.push(ProxyListener { direction, address, thread: Some(thread) });
        }
        Ok(net)
    }

    /// The address at which one endpoint reaches another.
    pub fn address(&self, direction: Direction) -> Option<SocketAddr> {
        self.listeners.iter().find(|door| door.direction == direction).map(|door| door.address)
    }

    /// Begins a link fault in these directions.
    pub fn begin(&self, fault_number: usize, directions: &[Direction], effect: LinkEffect) {
        directions.iter().filter_map(|way| self.faults.get(way)).for_each(|faults| faults.begin(fault_number, effect));
    }

    /// Ends a link fault in these directions.
    pub fn end(&self, fault_number: usize, directions: &[Direction]) {
        directions.iter().filter_map(|way| self.faults.get(way)).for_each(|faults| faults.end(fault_number));
    }
}

impl Drop for ProxyNetwork {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.faults.values().for_each(|faults| faults.close());
        for door in &mut self.listeners {
            // Wakes the listener's thread.
            let _ = TcpStream::connect_timeout(&door.address, CONNECT_TIMEOUT);
            if let Some(thread) = door.thread.take() {
                let _ = thread.join();
            }
        }
    }
}

impl ProxyShared {
    fn listen(self, listener: &TcpListener, is_over: &AtomicBool) {
        let shared = Arc::new(self);
        for number in 0.. {
            let accepted = listener.accept();
            if is_over.load(Ordering::Relaxed) {
                return;
            }
            let Ok((caller, _)) = accepted else {
                std::thread::sleep(Duration::from_millis(50));
                continue;
            };
            if shared.connections.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
                shared.connections.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let one = shared.clone();
            let carry = move || {
                // An error ends only this connection.
                let _ = one.proxy_connection(caller, number);
                one.connections.fetch_sub(1, Ordering::Relaxed);
            };
            let spawned = std::thread::Builder::new().name("pump".into()).stack_size(STACK_BYTES).spawn(carry);
            if spawned.is_err() {
                shared.connections.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    fn proxy_connection(&self, caller: TcpStream, number: u64) -> io::Result<()> {
        if !self.forward_faults.await_no_cut(|| false) {
            return Ok(());
        }
        let called = TcpStream::connect_timeout(&self.target, CONNECT_TIMEOUT)?;
        let connection = Arc::new(ProxyConnection::new(caller, called)?);
        self.forward_faults.register(&connection);
        self.backward_faults.register(&connection);
        let pump = |forward: bool| DirectionPump {
            connection: connection.clone(),
            forward,
            faults: if forward { self.forward_faults.clone() } else { self.backward_faults.clone() },
            replay_buffer: self.replay_buffer.clone().filter(|_| forward),
            random: Random::new(self.seed, number << 1 | u64::from(forward)),
            break_count: (0, 0),
        };
        let (there, back) = (pump(true), pump(false));
        let back = std::thread::Builder::new().name("pump".into()).stack_size(STACK_BYTES).spawn(|| back.run())?;
        there.run();
        let _ = back.join();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
