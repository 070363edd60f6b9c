//! The limits of clients: requests in flight per connection and of all connections together, bytes, and the number of
//! connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::budget::{Budget, Reservation, Share};
use super::rate_limit::RateLimit;
use crate::net::{ClientReply, FIRST_BUFFER_BYTES, Reply, WhyNotApplied, frame_into};
use crate::time::Time;

/// Maximum number of requests in flight per connection.
pub const REQUESTS_MAX: usize = 256;
/// Maximum bytes of the requests in flight per connection.
pub const REQUESTS_MAX_BYTES: usize = 8 << 20;
/// Maximum number of requests in flight, all connections together.
pub const ALL_REQUESTS_MAX: usize = 4_096;
/// Maximum bytes of the requests in flight, all connections together.
pub const ALL_REQUESTS_MAX_BYTES: usize = 64 << 20;

/// Maximum number of client connections after the handshake.
pub const CLIENTS_MAX: usize = 1_200;
/// Maximum number of connections at the client port that have not sent a HELLO yet.
pub const CLIENTS_UNIDENTIFIED_MAX: usize = 128;
/// The same limit at the port for servers. Each connection has five seconds for its HELLO.
pub const PEERS_UNIDENTIFIED_MAX: usize = 32;
/// The same limit at the port for browsers.
pub const BROWSERS_UNIDENTIFIED_MAX: usize = 32;

/// Maximum number of browser requests being answered, without those of viewers.
pub const HTTP_REQUESTS_MAX: usize = 64;
/// Maximum number of browsers that watch.
pub const VIEWERS_MAX: usize = 16;
/// Maximum number of servers that fetch the lines for their own viewers: there are never more than 62 of them.
pub const RELAYS_MAX: usize = 64;

/// Maximum bytes of unfinished requests, all clients together.
pub const ALL_UNFINISHED_MAX_BYTES: usize = 32 << 20;
/// The first bytes of a request, which each connection may hold in addition: a small request takes nothing from the
/// budget.
pub const UNFINISHED_FREE_BYTES: usize = FIRST_BUFFER_BYTES;
/// Maximum bytes of replies that clients have not read yet, all connections together.
pub const ALL_UNREAD_REPLIES_MAX_BYTES: usize = 32 << 20;
/// The unread bytes that each connection may have in addition: small replies take nothing from the budget.
pub const UNREAD_REPLIES_FREE_BYTES: usize = 16 << 10;
/// A connection with this many unread bytes gets no more values, and none of its requests is read.
pub const UNREAD_REPLIES_MAX_BYTES: usize = 4 << 20;

/// Maximum bytes of a frame in addition to its value or chunk. The longest such field is the name of the next chunk.
const AROUND_BYTES: usize = 16 << 10;

/// Appends a reply, as a frame, to a client's unread bytes. If a value or a chunk does not fit, the client gets a small
/// reply to ask again. False if not even that fits: the client has not read its replies for a long time, and its
/// connection must be closed.
pub fn append(reply: &mut ClientReply, untaken: &mut Vec<u8>, share: &mut Share, now: Time) -> bool {
    // Room is reserved before encoding, so that refusing a large reply costs little.
    let mut granted = 0;
    if let Some((bytes, instead)) = bulk(&reply.reply) {
        let wanted = bytes + AROUND_BYTES;
        let has_own_room = share.bytes() == 0 || share.bytes() + wanted <= UNREAD_REPLIES_MAX_BYTES;
        if has_own_room && share.take(wanted, now) == Reservation::Granted {
            granted = wanted;
            untaken.reserve(wanted);
        } else {
            reply.reply = instead;
        }
    }
    let before = untaken.len();
    frame_into(reply, untaken);
    let bytes = untaken.len() - before;
    if granted > 0 {
        share.return_bytes(granted.saturating_sub(bytes));
        return true;
    }
    let fits = share.take(bytes, now) == Reservation::Granted;
    if !fits {
        untaken.truncate(before);
    }
    fits
}

/// The bytes of a value or of a chunk, and the reply when there is no room for them: the read failed, or the chunk is
/// not ready. None for a small reply.
fn bulk(reply: &Reply) -> Option<(usize, Reply)> {
    match reply {
        Reply::Value { value: Some(value), .. } => Some((value.len(), Reply::NotApplied(WhyNotApplied::Busy))),
        Reply::Chunk(Some(part)) => Some((part.part.bytes.len(), Reply::Chunk(None))),
        _ => None,
    }
}

/// A connection opens at most this many sessions in this period. A client needs one, and another when that one has
/// ended.
const OPENS: (u32, Duration) = (16, Duration::from_secs(10));

/// The limit of the sessions that one connection may open.
pub fn opens() -> RateLimit {
    RateLimit::over(OPENS.1, OPENS.0)
}

/// A client's connection, as the code that answers its requests sees it.
pub trait ClientConnection: Clone {
    /// The client's address.
    fn address(&self) -> SocketAddr;
    /// The connection's requests in flight.
    fn requests(&self) -> &Usage;
    /// The requests in flight of all connections to this server.
    fn load(&self) -> &RequestLoad;
    /// The limit of the sessions that this connection may open.
    fn opens(&self) -> &RateLimit;
}

/// The load of all client connections of a server. Other servers take nothing from it: their connections have their own
/// limits.
#[derive(Debug)]
pub struct RequestLoad {
    /// Requests without a reply.
    pub requests: Usage,
    /// Requests that have arrived in part.
    pub unfinished: Arc<Budget>,
    /// Replies that clients have not read yet.
    pub unread_replies: Arc<Budget>,
}

impl Default for RequestLoad {
    fn default() -> RequestLoad {
        RequestLoad {
            requests: Usage::default(),
            unfinished: Budget::new(ALL_UNFINISHED_MAX_BYTES, UNFINISHED_FREE_BYTES),
            unread_replies: Budget::new(ALL_UNREAD_REPLIES_MAX_BYTES, UNREAD_REPLIES_FREE_BYTES),
        }
    }
}

/// Requests in flight: their number and their bytes.
#[derive(Debug, Default)]
pub struct Usage {
    count: AtomicUsize,
    bytes: AtomicUsize,
}

impl Usage {
    /// Counts one more request, and returns whether it is within the limits. It counts first and takes back on failure,
    /// so two concurrent requests cannot both take the last room.
    fn take(&self, bytes: usize, max: usize, max_bytes: usize) -> bool {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let all = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let fits = count <= max && all <= max_bytes;
        if !fits {
            self.return_bytes(bytes);
        }
        fits
    }

    fn return_bytes(&self, bytes: usize) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Counts a request of this size as in flight on a connection; false if that exceeds a limit.
pub fn admit(connection: &impl ClientConnection, bytes: usize) -> bool {
    if !connection.requests().take(bytes, REQUESTS_MAX, REQUESTS_MAX_BYTES) {
        return false;
    }
    let fits = connection.load().requests.take(bytes, ALL_REQUESTS_MAX, ALL_REQUESTS_MAX_BYTES);
    if !fits {
        connection.requests().return_bytes(bytes);
    }
    fits
}

/// Ends an admitted request: it is answered, or given up.
pub fn release(connection: &impl ClientConnection, bytes: usize) {
    connection.requests().return_bytes(bytes);
    connection.load().requests.return_bytes(bytes);
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::budget::tests::TestHolder;
    use super::*;
    use crate::paxos::Slot;
    use crate::trace::TraceContext;

    /// A connection without a client.
    #[derive(Clone, Debug)]
    pub(in crate::host) struct TestConnection {
        own: Arc<Usage>,
        load: Arc<RequestLoad>,
        opens: Arc<RateLimit>,
    }

    impl Default for TestConnection {
        fn default() -> TestConnection {
            TestConnection { own: Arc::default(), load: Arc::default(), opens: Arc::new(opens()) }
        }
    }

    impl ClientConnection for TestConnection {
        fn address(&self) -> SocketAddr {
            SocketAddr::from(([127, 0, 0, 1], 9))
        }

        fn requests(&self) -> &Usage {
            &self.own
        }

        fn load(&self) -> &RequestLoad {
            &self.load
        }

        fn opens(&self) -> &RateLimit {
            &self.opens
        }
    }

    #[test]
    fn large_reply_without_room_is_not_encoded() {
        let budget = Budget::new(0, 1 << 10);
        let mut share = Share::new(&budget, TestHolder::at(1));
        let mut untaken = Vec::new();
        let value = Reply::Value { slot: Slot(1), value: Some(vec![7; 1 << 20].into()), version: 1 };
        let mut reply = ClientReply { number: 1, context: TraceContext::default(), reply: value };
        assert!(append(&mut reply, &mut untaken, &mut share, Time(0)));
        assert_eq!(reply.reply, Reply::NotApplied(WhyNotApplied::Busy));
        assert_eq!(untaken.len(), share.bytes());
        assert!(untaken.capacity() < 1 << 10, "{} bytes", untaken.capacity());
        // A small reply that does not fit is not appended.
        reply.reply = Reply::Refused("x".repeat(1 << 10));
        let before = untaken.len();
        assert!(!append(&mut reply, &mut untaken, &mut share, Time(0)));
        assert_eq!((untaken.len(), share.bytes()), (before, before));
    }

    #[test]
    fn requests_in_flight_are_limited_per_connection_and_in_total() {
        let load: Arc<RequestLoad> = Arc::default();
        let connection = |_| TestConnection { load: load.clone(), ..TestConnection::default() };
        let connections: Vec<_> = (0..=ALL_REQUESTS_MAX / REQUESTS_MAX).map(connection).collect();
        let (last, others) = connections.split_last().unwrap();
        for one in others {
            assert!((0..REQUESTS_MAX).all(|_| admit(one, 1)));
            assert!(!admit(one, 1), "a connection has its limit");
        }
        assert!(!admit(last, 1), "and so have all together");
        release(&others[0], 1);
        assert!(admit(last, 1) && !admit(last, 1));
        release(last, 1);
        let all = others.iter().flat_map(|one| [one; REQUESTS_MAX]).skip(1);
        all.for_each(|one| release(one, 1));

        // The same by bytes.
        assert!(!admit(last, REQUESTS_MAX_BYTES + 1));
        let large = &others[..ALL_REQUESTS_MAX_BYTES / REQUESTS_MAX_BYTES];
        assert!(large.iter().all(|one| admit(one, REQUESTS_MAX_BYTES)));
        assert!(!admit(&large[0], 1) && !admit(last, 1));
        large.iter().for_each(|one| release(one, REQUESTS_MAX_BYTES));
        let Usage { count, bytes } = &load.requests;
        assert_eq!((count.load(Ordering::Relaxed), bytes.load(Ordering::Relaxed)), (0, 0));
    }
}
