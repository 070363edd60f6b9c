//! The request readers of the clients: unfinished requests take their memory from one budget for all clients.
//!
//! A reader that finds no room waits until other requests finish, or their connections are closed. So a burst of honest
//! clients is served one after the other, and unread bytes stay in the clients' own systems.

use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::clock;
use crate::host::budget::{Budget, GRACE, Holder, Reservation, Share};
use crate::net::Allowance;

/// A request that finds no room for this long is given up, and its connection is closed.
const PATIENCE: Duration = Duration::from_secs(1);
/// Turns grow old while a reader waits, so it asks again after this time even if no bytes were returned.
const ASK_AGAIN: Duration = Duration::from_millis(GRACE.as_millis() as u64 / 5);

/// A client's socket, as the budgets see it.
#[derive(Debug)]
pub struct ClientSocket {
    /// The connection.
    pub stream: Arc<TcpStream>,
    /// The client's address.
    pub address: SocketAddr,
}

impl Holder for ClientSocket {
    fn close_connection(&self) {
        // An error is possible if the socket is closed already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The unfinished requests of all clients.
#[derive(Debug)]
pub struct RequestReader {
    budget: Arc<Budget>,
    waiting: Mutex<()>,
    /// Notified when bytes are returned.
    freed: Condvar,
}

/// The share of one client's reader.
#[derive(Debug)]
struct ReadInProgress {
    share: Share,
    request_reader: Arc<RequestReader>,
}

impl RequestReader {
    /// The readers of this budget.
    pub fn new(budget: &Arc<Budget>) -> Arc<RequestReader> {
        Arc::new(RequestReader { budget: budget.clone(), waiting: Mutex::default(), freed: Condvar::new() })
    }

    /// The allowance of one reader.
    pub fn allowance(self: &Arc<RequestReader>, caller: ClientSocket) -> Box<dyn Allowance> {
        Box::new(ReadInProgress { share: Share::new(&self.budget, Arc::new(caller)), request_reader: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Allowance for ReadInProgress {
    fn grow(&mut self, bytes: usize) -> bool {
        let deadline = Instant::now() + PATIENCE;
        // Under this lock, no bytes are returned unnoticed.
        let mut waiting = self.request_reader.lock();
        loop {
            match self.share.take(bytes, clock::now()) {
                Reservation::Granted => return true,
                Reservation::LetGo => return false,
                Reservation::Full if Instant::now() >= deadline => {
                    self.share.give_up();
                    return false;
                }
                Reservation::Full => {
                    let waited = self.request_reader.freed.wait_timeout(waiting, ASK_AGAIN);
                    waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    fn frame_done(&mut self, frame: usize, returned: usize) {
        // Small frames are no progress for a connection that holds the room of a large one.
        if returned > 0 || frame >= self.share.bytes() / 2 {
            self.share.return_bytes(returned);
            self.share.begin_anew(clock::now());
        }
        if returned > 0 {
            drop(self.request_reader.lock());
            self.request_reader.freed.notify_all();
        }
    }

    fn is_closed(&self) -> bool {
        self.share.is_closed()
    }
}

impl Drop for ReadInProgress {
    fn drop(&mut self) {
        self.share.return_bytes(self.share.bytes());
        drop(self.request_reader.lock());
        self.request_reader.freed.notify_all();
    }
}

#[cfg(test)]
#[path = "request_reader_tests.rs"]
mod tests;
