//! Listening: one thread that accepts, one thread a connection, and a limit on how many there are.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// The stack of a connection's thread: it holds no large arrays.
const STACK_BYTES: usize = 256 << 10;
/// After an error of `accept`, such as "too many open files", the listener waits this long before it tries again.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// A connection whose other end is silent for so long is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(30);

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

/// Binds an address; the error says which one and why.
pub fn bind(address: SocketAddr, what: &str) -> Result<TcpListener, String> {
    TcpListener::bind(address).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "the {what} address {address} is taken by another process. Stop that one, or give this server another \
             address in the cluster file"
        ),
        io::ErrorKind::AddrNotAvailable => format!("the {what} address {address} is not an address of this machine"),
        _ => format!("cannot listen at the {what} address {address}: {error}"),
    })
}

/// Accepts for ever, each connection in a thread of its own; beyond the limit `busy` has the last word with it.
pub fn listen(
    name: &'static str,
    listener: TcpListener,
    connections: Connections,
    serve: impl Fn(TcpStream, SocketAddr) + Send + Sync + 'static,
    busy: impl Fn(TcpStream) + Send + 'static,
) -> io::Result<()> {
    let serve = Arc::new(serve);
    let accept = move || {
        loop {
            let Ok((stream, address)) = listener.accept() else {
                std::thread::sleep(ACCEPT_BACKOFF);
                continue;
            };
            let Some(place) = connections.take() else {
                busy(stream);
                continue;
            };
            // Both only help: without them the connection works as well.
            let _ = stream.set_nodelay(true);
            let _ = SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
            let serve = serve.clone();
            let thread = std::thread::Builder::new().name(name.to_string()).stack_size(STACK_BYTES);
            let spawned = thread.spawn(move || {
                serve(stream, address);
                drop(place);
            });
            if spawned.is_err() {
                // No thread to be had: the connection is closed by being dropped, and the next may find one.
                std::thread::sleep(ACCEPT_BACKOFF);
            }
        }
    };
    std::thread::Builder::new().name(format!("{name}-accept")).spawn(accept)?;
    Ok(())
}
