//! The way in for the requests of one client: their unfinished parts need room in the budget of all clients.
//!
//! A reader that finds no room waits for others to finish, or to be let go. So a burst of honest clients is served one
//! after the other, and what has not been read stays with the callers' own systems.

use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::clock;
use crate::host::budget::{Budget, GRACE, Holder, Reservation, Share};
use crate::net::Allowance;

/// A request that finds no room for this long is given up, and its connection closed.
const PATIENCE: Duration = Duration::from_secs(1);
/// Turns become old while a reader waits, so it asks again after this time though nobody gave anything back.
const ASK_AGAIN: Duration = Duration::from_millis(GRACE.as_millis() as u64 / 5);

/// A client's socket, as the budgets know it.
#[derive(Debug)]
pub struct ClientSocket {
    /// The connection.
    pub stream: Arc<TcpStream>,
    /// Its other end.
    pub address: SocketAddr,
}

impl Holder for ClientSocket {
    fn let_go(&self) {
        // It may be closed already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The requests of all clients that are on their way in.
#[derive(Debug)]
pub struct RequestReader {
    budget: Arc<Budget>,
    waiting: Mutex<()>,
    /// Told when somebody has given back.
    freed: Condvar,
}

/// What one client's reader holds of it.
#[derive(Debug)]
struct ReadInProgress {
    share: Share,
    intake: Arc<RequestReader>,
}

impl RequestReader {
    /// The readers of this budget.
    pub fn new(budget: &Arc<Budget>) -> Arc<RequestReader> {
        Arc::new(RequestReader { budget: budget.clone(), waiting: Mutex::default(), freed: Condvar::new() })
    }

    /// What one reader may hold.
    pub fn allowance(self: &Arc<RequestReader>, caller: ClientSocket) -> Box<dyn Allowance> {
        Box::new(ReadInProgress { share: Share::new(&self.budget, Arc::new(caller)), intake: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Allowance for ReadInProgress {
    fn grow(&mut self, bytes: usize) -> bool {
        let deadline = Instant::now() + PATIENCE;
        // Under the lock nobody gives back unnoticed.
        let mut waiting = self.intake.lock();
        loop {
            match self.share.take(bytes, clock::now()) {
                Reservation::Granted => return true,
                Reservation::LetGo => return false,
                Reservation::Full if Instant::now() >= deadline => {
                    self.share.give_up();
                    return false;
                }
                Reservation::Full => {
                    let waited = self.intake.freed.wait_timeout(waiting, ASK_AGAIN);
                    waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    fn frame_done(&mut self, frame: usize, given_back: usize) {
        // Small frames are no progress of a connection that holds the room of a large one.
        if given_back > 0 || frame >= self.share.bytes() / 2 {
            self.share.give_back(given_back);
            self.share.begin_anew(clock::now());
        }
        if given_back > 0 {
            drop(self.intake.lock());
            self.intake.freed.notify_all();
        }
    }

    fn is_let_go(&self) -> bool {
        self.share.is_let_go()
    }
}

impl Drop for ReadInProgress {
    fn drop(&mut self) {
        self.share.give_back(self.share.bytes());
        drop(self.intake.lock());
        self.intake.freed.notify_all();
    }
}

#[cfg(test)]
#[path = "request_reader_tests.rs"]
mod tests;
