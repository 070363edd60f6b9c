//! Budgets for the memory that connections make a server hold, in bytes, for all connections of a class together.
//!
//! A client that sends half a request, or does not read its replies, makes the server hold bytes. Each connection has a
//! small allowance. Bytes beyond the allowance count against the common budget.
//!
//! A connection's *turn* begins when it first takes bytes from the budget. It begins anew when the connection has made
//! progress in proportion to the bytes that it holds, and ends when it returns all of them. The turn of an honest
//! client is short.
//!
//! When a budget is nearly used up, the server closes the connections with the longest turns until there is room again.
//! A flood therefore closes its own connections, and later clients are served.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::time::Time;

/// A turn shorter than this is never ended: a client that sends at full speed keeps its connection.
pub const GRACE: Duration = Duration::from_millis(250);

/// A connection, as a budget sees it.
pub trait Holder: std::fmt::Debug + Send + Sync {
    /// Closes the connection. Its thread then drops the [`Share`].
    fn close_connection(&self);
    /// The address of the client.
    fn address(&self) -> SocketAddr;
}

/// A number of bytes for all connections of a class.
#[derive(Debug)]
pub struct Budget {
    max_bytes: usize,
    /// The allowance of each connection, in bytes.
    free_bytes: usize,
    state: Mutex<BudgetState>,
}

#[derive(Debug, Default)]
struct BudgetState {
    /// Bytes that all connections hold.
    used: usize,
    /// Bytes held by connections that were closed and have not returned them yet.
    leaving: usize,
    turns_started: u64,
    /// By turn number: the first turn has lasted longest.
    turns: BTreeMap<u64, BudgetTurn>,
    closed: Option<Closed>,
}

#[derive(Debug)]
struct BudgetTurn {
    bytes: usize,
    since: Time,
    /// None once the connection was closed.
    holder: Option<Arc<dyn Holder>>,
}

/// The connections closed since the last report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Number of connections.
    pub count: u64,
    /// Bytes that they held.
    pub bytes: usize,
    /// The address of the first one.
    pub first: SocketAddr,
}

/// The result of asking for more bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reservation {
    /// The bytes are granted.
    Granted,
    /// Not now. Other connections were closed if their turns have lasted long enough.
    Full,
    /// The asking connection was closed itself.
    LetGo,
}

/// The bytes that one connection holds of a budget. Dropping it returns them all.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    holder: Arc<dyn Holder>,
    /// All bytes that the connection holds; those beyond the budget's `free_bytes` count.
    bytes: usize,
    turn: Option<u64>,
}

impl Budget {
    /// A budget of `max_bytes` for all connections, in addition to `free_bytes` for each.
    pub fn new(max_bytes: usize, free_bytes: usize) -> Arc<Budget> {
        Arc::new(Budget { max_bytes, free_bytes, state: Mutex::default() })
    }

    /// The limit for all connections, in bytes.
    pub fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// Bytes that all connections hold beyond their allowances.
    pub fn used(&self) -> usize {
        self.lock().used
    }

    /// Takes the report of the connections closed since the last call.
    pub fn take_closed(&self) -> Option<Closed> {
        self.lock().closed.take()
    }

    /// Above this level the oldest turns end. The rest stays free for requests that arrive meanwhile: a closed
    /// connection returns its bytes only when its thread has noticed.
    fn high_water(&self) -> usize {
        self.max_bytes - self.max_bytes / 4
    }

    fn lock(&self) -> MutexGuard<'_, BudgetState> {
        // Every change under this lock is complete.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// The share of a connection that holds nothing yet.
    pub fn new(budget: &Arc<Budget>, holder: Arc<dyn Holder>) -> Share {
        Share { budget: budget.clone(), holder, bytes: 0, turn: None }
    }

    /// Bytes that the connection holds, its allowance included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Asks for more bytes. Never waits.
    pub fn take(&mut self, bytes: usize, now: Time) -> Reservation {
        let counted = self.counted(self.bytes + bytes) - self.counted(self.bytes);
        if counted > 0 {
            let (room, oldest) = self.take_counted(counted, now);
            // After the lock is released, since each of these is a system call.
            oldest.iter().for_each(|holder| holder.close_connection());
            if room != Reservation::Granted {
                return room;
            }
        }
        self.bytes += bytes;
        Reservation::Granted
    }

    fn take_counted(&mut self, bytes: usize, now: Time) -> (Reservation, Vec<Arc<dyn Holder>>) {
        let mut state = self.budget.lock();
        let oldest = state.end_oldest_turns(self.budget.high_water().saturating_sub(bytes), now);
        let room = match self.turn.and_then(|turn| state.turns.get(&turn)) {
            Some(turn) if turn.holder.is_none() => Reservation::LetGo,
            _ if state.used + bytes > self.budget.max_bytes => Reservation::Full,
            _ => Reservation::Granted,
        };
        if room == Reservation::Granted {
            let turn = *self.turn.get_or_insert_with(|| state.begin_turn(now, self.holder.clone()));
            state.used += bytes;
            state.turns.entry(turn).and_modify(|turn| turn.bytes += bytes);
        }
        (room, oldest)
    }

    /// Returns some bytes; the turn ends when the last of them is returned.
    pub fn return_bytes(&mut self, bytes: usize) {
        let left = self.bytes.saturating_sub(bytes);
        let counted = self.counted(self.bytes) - self.counted(left);
        self.bytes = left;
        let Some(turn) = self.turn.filter(|_| counted > 0) else { return };
        if self.budget.lock().return_bytes(turn, counted) {
            self.turn = None;
        }
    }

    /// The connection has made progress: the bytes that it still holds count as a new turn.
    pub fn begin_anew(&mut self, now: Time) {
        let Some(before) = self.turn else { return };
        let mut state = self.budget.lock();
        // A closed connection stays closed.
        if state.turns.get(&before).is_some_and(|turn| turn.holder.is_some()) {
            let turn = state.turns.remove(&before).map(|turn| BudgetTurn { since: now, ..turn });
            self.turn = turn.map(|turn| state.insert(turn));
        }
    }

    /// The connection gives up, since it has waited for room in vain. It is reported with the closed connections.
    pub fn give_up(&mut self) {
        let mut state = self.budget.lock();
        state.note_closed(self.bytes, self.holder.address());
    }

    /// Whether the connection was closed.
    pub fn is_closed(&self) -> bool {
        let state = self.budget.lock();
        self.turn.and_then(|turn| state.turns.get(&turn)).is_some_and(|turn| turn.holder.is_none())
    }

    fn counted(&self, bytes: usize) -> usize {
        bytes.saturating_sub(self.budget.free_bytes)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.return_bytes(self.bytes);
    }
}

impl BudgetState {
    /// Ends the oldest turns until the remaining ones hold at most `most` bytes.
    fn end_oldest_turns(&mut self, most: usize, now: Time) -> Vec<Arc<dyn Holder>> {
        let mut excess = (self.used - self.leaving).saturating_sub(most);
        let mut oldest = Vec::new();
        for turn in self.turns.values_mut() {
            if excess == 0 || now.since(turn.since) < GRACE {
                break;
            }
            let Some(holder) = turn.holder.take() else { continue };
            excess = excess.saturating_sub(turn.bytes);
            self.leaving += turn.bytes;
            oldest.push((turn.bytes, holder));
        }
        oldest.iter().for_each(|(bytes, holder)| self.note_closed(*bytes, holder.address()));
        oldest.into_iter().map(|(_, holder)| holder).collect()
    }

    fn begin_turn(&mut self, now: Time, holder: Arc<dyn Holder>) -> u64 {
        self.insert(BudgetTurn { bytes: 0, since: now, holder: Some(holder) })
    }

    fn insert(&mut self, turn: BudgetTurn) -> u64 {
        self.turns_started += 1;
        self.turns.insert(self.turns_started, turn);
        self.turns_started
    }

    /// True if the turn has ended.
    fn return_bytes(&mut self, at: u64, bytes: usize) -> bool {
        let Some(turn) = self.turns.get_mut(&at) else { return true };
        turn.bytes -= bytes;
        self.used -= bytes;
        if turn.holder.is_none() {
            self.leaving -= bytes;
        }
        let has_ended = turn.bytes == 0;
        if has_ended {
            self.turns.remove(&at);
        }
        has_ended
    }

    fn note_closed(&mut self, bytes: usize, address: SocketAddr) {
        let closed = self.closed.get_or_insert(Closed { count: 0, bytes: 0, first: address });
        closed.count += 1;
        closed.bytes += bytes;
    }
}

#[cfg(test)]
#[path = "budget_tests.rs"]
pub(super) mod tests;
