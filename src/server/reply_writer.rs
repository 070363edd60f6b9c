//! The reply writer of one client connection: the thread that has a reply writes it, and no thread waits for a slow
//! client.
//!
//! A reply is appended to the connection's unsent bytes. A batch of replies leaves with one `write` of at most the
//! bytes that the socket takes at once. A separate thread writes the rest, and ends when no bytes are left: a slow
//! client delays only itself.
//!
//! Every quantity has a limit. Requests in flight are limited per connection and for all together, and so are unsent
//! bytes: a value that does not fit becomes a failed read, and a snapshot chunk becomes "not ready". The connection's
//! reader takes no further request while too many bytes are unsent. When all connections together have too many unsent
//! bytes, those that have not read for longest are closed.

use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::clock;
use super::request_reader::ClientSocket;
use crate::host::budget::Share;
use crate::host::limits::{self, UNREAD_REPLIES_FREE_BYTES, UNREAD_REPLIES_MAX_BYTES};
use crate::host::rate_limit::RateLimit;
use crate::host::{ClientConnection, ReplyHandle, RequestLoad, Usage};
use crate::net::{ClientReply, ConnectionPermit, ThreadGroup, write_before, write_now};

/// A client that does not read its unsent replies within this time is closed.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// An empty buffer with more capacity than this is shrunk.
const KEEP_BYTES: usize = 16 << 10;
/// Stack of the thread that writes to a slow client: it needs little.
const STACK_BYTES: usize = 128 << 10;

/// One client connection, as the threads that reply see it.
#[derive(Debug)]
pub struct ReplyWriter {
    threads: Arc<ThreadGroup>,
    stream: Arc<TcpStream>,
    address: SocketAddr,
    requests: Usage,
    /// The limit of the sessions that this connection may open.
    opens: RateLimit,
    load: Arc<RequestLoad>,
    pending: Mutex<UnsentReplies>,
    /// Notified when fewer bytes are unsent, or when the connection closes.
    drained: Condvar,
    /// Kept until the last reply is written: a client that sends no more requests still counts.
    _place: Option<ConnectionPermit>,
}

#[derive(Debug)]
struct UnsentReplies {
    /// Bytes of replies that no thread is writing yet.
    bytes: Vec<u8>,
    /// The unsent bytes, including those that a thread is writing.
    share: Share,
    /// A thread is about to write `bytes`.
    is_queued_for_write: bool,
    closed: bool,
}

/// Which thread writes an appended reply.
enum Appended {
    /// The caller must, with [`ReplyWriter::write`].
    InHand { is_large: bool },
    /// Another thread does, or the connection is closed.
    ForOthers,
}

impl ReplyWriter {
    /// The reply writer of a connection. `place` counts the connection at its port.
    pub fn new(
        threads: Arc<ThreadGroup>,
        stream: Arc<TcpStream>,
        address: SocketAddr,
        load: Arc<RequestLoad>,
        place: Option<ConnectionPermit>,
    ) -> Arc<ReplyWriter> {
        let caller = ClientSocket { stream: stream.clone(), address };
        let share = Share::new(&load.unread_replies, Arc::new(caller));
        let pending = Mutex::new(UnsentReplies { bytes: Vec::new(), share, is_queued_for_write: false, closed: false });
        let (requests, opens, drained) = (Usage::default(), limits::opens(), Condvar::new());
        Arc::new(ReplyWriter { threads, stream, address, requests, opens, load, pending, drained, _place: place })
    }

    /// Waits until the client has read enough unsent bytes that another request may be taken; false if the connection
    /// is closed.
    pub fn await_space(&self) -> bool {
        let full = |pending: &mut UnsentReplies| pending.share.bytes() > UNREAD_REPLIES_MAX_BYTES && !pending.closed;
        let pending = self.drained.wait_while(self.lock(), full);
        !pending.unwrap_or_else(PoisonError::into_inner).closed
    }

    /// Closes the connection; unsent bytes are lost.
    pub fn close(&self) {
        self.close_locked(&mut self.lock());
    }

    fn close_locked(&self, pending: &mut UnsentReplies) {
        let all = pending.share.bytes();
        pending.share.return_bytes(all);
        pending.bytes = Vec::new();
        (pending.is_queued_for_write, pending.closed) = (false, true);
        self.drained.notify_all();
        // An error is possible if the socket is closed already.
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
        if std::mem::replace(&mut pending.is_queued_for_write, true) {
            return Appended::ForOthers;
        }
        Appended::InHand { is_large: pending.bytes.len() > UNREAD_REPLIES_FREE_BYTES }
    }

    /// Writes as many unsent bytes as the socket takes at once. A separate thread writes the rest.
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
            pending.is_queued_for_write = false;
            return;
        }
        pending.bytes.drain(..count);
        let (writer, open) = (self.clone(), self.threads.watch(self.stream.clone()));
        let write = move || {
            let _open = open;
            writer.write_blocking();
        };
        if self.threads.spawn_with_stack("slow-client", STACK_BYTES, write).is_err() {
            self.close_locked(&mut pending);
        }
    }

    /// The thread of a slow client: writes until no bytes are left, or a write takes too long.
    fn write_blocking(&self) {
        loop {
            let mut pending = self.lock();
            let bytes = std::mem::take(&mut pending.bytes);
            if bytes.is_empty() || pending.closed {
                pending.is_queued_for_write = false;
                return;
            }
            drop(pending);
            let written = write_before(&self.stream, &bytes, Instant::now() + WRITE_TIMEOUT);
            let mut pending = self.lock();
            match written {
                Ok(()) if pending.closed => {}
                Ok(()) => {
                    self.written(&mut pending, bytes.len());
                    // The client reads, even if slowly.
                    pending.share.begin_anew(clock::now());
                }
                Err(_) => self.close_locked(&mut pending),
            }
        }
    }

    fn written(&self, pending: &mut UnsentReplies, count: usize) {
        pending.share.return_bytes(count);
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

/// Sends replies, with one write per connection. A large reply is written at once, so that few of them are in memory.
pub fn send(replies: impl IntoIterator<Item = (ReplyHandle<Arc<ReplyWriter>>, ClientReply)>) {
    let mut in_hand = Vec::new();
    for (handle, mut reply) in replies {
        match handle.connection.append(&mut reply) {
            Appended::InHand { is_large: true } => handle.connection.write(),
            Appended::InHand { is_large: false } => in_hand.push(handle.connection.clone()),
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
