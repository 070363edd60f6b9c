//! The way back to one client: whoever has its reply writes it, and nobody waits for a client that takes its time.
//!
//! A reply is appended to what the connection has pending, and a group of replies goes out with one write that takes no
//! more than the socket takes at once. What is left then is handed to a thread of its own, which lives as long as there
//! is something left: the price of a slow client is paid by that client alone.
//!
//! Everything has an end. The requests under way are limited, for a connection and for all together. So is what is
//! pending: a value that does not fit becomes a failed read, and a part of the state one that is not there yet. The
//! connection's reader takes no further request while too much is pending. When all connections together have too much
//! pending, those are closed that have not read for longest.

use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::clock;
use super::request_reader::ClientSocket;
use crate::host::budget::Share;
use crate::host::limits::{self, UNTAKEN_FREE_BYTES, UNTAKEN_MAX_BYTES};
use crate::host::rate_limit::RateLimit;
use crate::host::{ClientConnection, ReplyHandle, RequestLoad, Usage};
use crate::net::{ClientReply, ConnectionPermit, write_before, write_now};

/// A client that does not take what is pending within so long is let go.
const TAKE: Duration = Duration::from_secs(30);
/// An empty buffer that is larger is given back.
const KEEP_BYTES: usize = 16 << 10;
/// The thread that writes to a slow client needs little.
const STACK_BYTES: usize = 128 << 10;

/// One client connection, as whoever replies sees it.
#[derive(Debug)]
pub struct ReplyWriter {
    stream: Arc<TcpStream>,
    address: SocketAddr,
    requests: Usage,
    /// Sessions that this connection may open.
    opens: RateLimit,
    load: Arc<RequestLoad>,
    pending: Mutex<UnsentReplies>,
    /// Told when less is pending, or nothing ever will be.
    drained: Condvar,
    /// Kept until the last reply is out: a client that says no more still counts.
    _place: Option<ConnectionPermit>,
}

#[derive(Debug)]
struct UnsentReplies {
    /// Replies that nobody is writing yet.
    bytes: Vec<u8>,
    /// How many bytes are pending, those included that a thread is writing.
    share: Share,
    /// Somebody is about to write `bytes`.
    in_hand: bool,
    closed: bool,
}

/// Who writes a reply that was appended.
enum Appended {
    /// The caller must, with [`ReplyWriter::write`].
    InHand { is_large: bool },
    /// Another thread does, or the connection is closed.
    ForOthers,
}

impl ReplyWriter {
    /// The outgoing side of a connection, which has this place among the connections of its port.
    pub fn new(
        stream: Arc<TcpStream>,
        address: SocketAddr,
        load: Arc<RequestLoad>,
        place: Option<ConnectionPermit>,
    ) -> Arc<ReplyWriter> {
        let caller = ClientSocket { stream: stream.clone(), address };
        let share = Share::new(&load.untaken, Arc::new(caller));
        let pending = Mutex::new(UnsentReplies { bytes: Vec::new(), share, in_hand: false, closed: false });
        let (requests, opens, drained) = (Usage::default(), limits::opens(), Condvar::new());
        Arc::new(ReplyWriter { stream, address, requests, opens, load, pending, drained, _place: place })
    }

    /// Waits until the client has taken enough of what is pending that another request may be taken; false if the
    /// connection is closed.
    pub fn await_room(&self) -> bool {
        let full = |pending: &mut UnsentReplies| pending.share.bytes() > UNTAKEN_MAX_BYTES && !pending.closed;
        let pending = self.drained.wait_while(self.lock(), full);
        !pending.unwrap_or_else(PoisonError::into_inner).closed
    }

    /// Closes the connection; what is pending is lost.
    pub fn close(&self) {
        self.close_locked(&mut self.lock());
    }

    fn close_locked(&self, pending: &mut UnsentReplies) {
        let all = pending.share.bytes();
        pending.share.give_back(all);
        pending.bytes = Vec::new();
        (pending.in_hand, pending.closed) = (false, true);
        self.drained.notify_all();
        // It may be closed already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Appends a reply.
    fn append(&self, reply: &mut ClientReply) -> Appended {
        let mut pending = self.lock();
        let UnsentReplies { bytes, share, closed, .. } = &mut *pending;
        if *closed {
            return Appended::ForOthers;
        }
        if !limits::append(reply, bytes, share, clock::now()) {
            self.close_locked(&mut pending);
            return Appended::ForOthers;
        }
        if std::mem::replace(&mut pending.in_hand, true) {
            return Appended::ForOthers;
        }
        Appended::InHand { is_large: pending.bytes.len() > UNTAKEN_FREE_BYTES }
    }

    /// Writes what is pending, as much as is taken at once. The rest is left to a thread of its own.
    fn write(self: &Arc<ReplyWriter>) {
        let mut pending = self.lock();
        if pending.closed {
            return;
        }
        let Ok(count) = write_now(&self.stream, &pending.bytes) else { return self.close_locked(&mut pending) };
        self.written(&mut pending, count);
        if count == pending.bytes.len() {
            pending.bytes.clear();
            pending.bytes.shrink_to(KEEP_BYTES);
            pending.in_hand = false;
            return;
        }
        pending.bytes.drain(..count);
        let writer = self.clone();
        let thread = std::thread::Builder::new().name("slow-client".to_string()).stack_size(STACK_BYTES);
        if thread.spawn(move || writer.write_blocking()).is_err() {
            self.close_locked(&mut pending);
        }
    }

    /// The thread of a slow client: writes until nothing is left, or for too long.
    fn write_blocking(&self) {
        loop {
            let mut pending = self.lock();
            let bytes = std::mem::take(&mut pending.bytes);
            if bytes.is_empty() || pending.closed {
                pending.in_hand = false;
                return;
            }
            drop(pending);
            let written = write_before(&self.stream, &bytes, Instant::now() + TAKE);
            let mut pending = self.lock();
            match written {
                Ok(()) if pending.closed => {}
                Ok(()) => {
                    self.written(&mut pending, bytes.len());
                    // The client reads, slowly or not.
                    pending.share.begin_anew(clock::now());
                }
                Err(_) => self.close_locked(&mut pending),
            }
        }
    }

    fn written(&self, pending: &mut UnsentReplies, count: usize) {
        pending.share.give_back(count);
        if count > 0 {
            self.drained.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, UnsentReplies> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientConnection for Arc<ReplyWriter> {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn requests(&self) -> &Usage {
        &self.requests
    }

    fn load(&self) -> &RequestLoad {
        &self.load
    }

    fn opens(&self) -> &RateLimit {
        &self.opens
    }
}

/// Sends replies, with one write a connection; large ones go out as they come, so that they are not all held at once.
pub fn send(replies: impl IntoIterator<Item = (ReplyHandle<Arc<ReplyWriter>>, ClientReply)>) {
    let mut in_hand = Vec::new();
    for (asker, mut reply) in replies {
        match asker.connection.append(&mut reply) {
            Appended::InHand { is_large: true } => asker.connection.write(),
            Appended::InHand { is_large: false } => in_hand.push(asker.connection.clone()),
            Appended::ForOthers => {}
        }
    }
    for writer in in_hand {
        writer.write();
    }
}

#[cfg(test)]
#[path = "reply_writer_tests.rs"]
mod tests;
