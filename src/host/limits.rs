//! How much clients may have under way: each connection, and all of them together.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::throttle::Throttle;
use crate::net::{Reply, WhyNotApplied};

/// A connection has at most this many requests under way.
pub const REQUESTS_MAX: usize = 256;
/// The requests under way of one connection take at most this many bytes.
pub const REQUESTS_MAX_BYTES: usize = 8 << 20;
/// All connections together have at most this many requests under way.
pub const ALL_REQUESTS_MAX: usize = 4_096;
/// And those take at most this many bytes.
pub const ALL_REQUESTS_MAX_BYTES: usize = 64 << 20;

/// Values are not added to replies that a client has not taken, beyond so many bytes.
pub const PENDING_MAX_BYTES: usize = 4 << 20;
/// The pending replies of all connections together hold values up to so many bytes.
pub const ALL_PENDING_MAX_BYTES: usize = 64 << 20;

/// A value for which there is no room among the replies that a client has not taken yet becomes a failed read, and a part of
/// the state one that is not there yet: so many bytes are pending for this client, and so many for all.
pub fn fit(reply: &mut Reply, pending: usize, all_pending: usize) {
    let (bytes, instead) = match reply {
        Reply::Value { value: Some(value), .. } => (value.len(), Reply::NotApplied(WhyNotApplied::Busy)),
        Reply::State(Some(part)) => (part.part.bytes.len(), Reply::State(None)),
        _ => return,
    };
    let fits = |before: usize, max: usize| before == 0 || before + bytes <= max;
    if !fits(pending, PENDING_MAX_BYTES) || !fits(all_pending, ALL_PENDING_MAX_BYTES) {
        *reply = instead;
    }
}

/// A connection opens at most so many sessions in this time: a client needs one, and another when that has ended.
const OPENS: (u32, Duration) = (16, Duration::from_secs(10));

/// The sessions that a connection may open.
pub fn opens() -> Throttle {
    Throttle::over(OPENS.1, OPENS.0)
}

/// A client's connection, as the one who answers its requests sees it.
pub trait Connection: Clone {
    /// The client.
    fn address(&self) -> SocketAddr;
    /// What this connection has under way.
    fn requests(&self) -> &Usage;
    /// What all connections to this server have under way.
    fn load(&self) -> &Load;
    /// Sessions that this connection may open.
    fn opens(&self) -> &Throttle;
}

/// What all connections of a server have under way.
#[derive(Debug, Default)]
pub struct Load {
    /// Requests without an answer.
    pub requests: Usage,
    /// Bytes of replies that clients have not taken yet.
    pub pending_bytes: AtomicUsize,
}

/// Requests under way: how many, and how large.
#[derive(Debug, Default)]
pub struct Usage {
    count: AtomicUsize,
    bytes: AtomicUsize,
}

impl Usage {
    /// Counts one more, and says whether that is within the limits. It is counted first and given back if not: of two who
    /// come at once not both can have the last of the room.
    fn take(&self, bytes: usize, max: usize, max_bytes: usize) -> bool {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let all = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let fits = count <= max && all <= max_bytes;
        if !fits {
            self.give_back(bytes);
        }
        fits
    }

    fn give_back(&self, bytes: usize) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Counts a request of this size as under way on a connection; false if there are too many, or they are too large.
pub fn admit(connection: &impl Connection, bytes: usize) -> bool {
    if !connection.requests().take(bytes, REQUESTS_MAX, REQUESTS_MAX_BYTES) {
        return false;
    }
    let fits = connection.load().requests.take(bytes, ALL_REQUESTS_MAX, ALL_REQUESTS_MAX_BYTES);
    if !fits {
        connection.requests().give_back(bytes);
    }
    fits
}

/// A request that was admitted is answered, or given up.
pub fn release(connection: &impl Connection, bytes: usize) {
    connection.requests().give_back(bytes);
    connection.load().requests.give_back(bytes);
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use super::*;

    /// A connection without a client.
    #[derive(Clone, Debug)]
    pub(in crate::host) struct TestConnection {
        own: Arc<Usage>,
        load: Arc<Load>,
        opens: Arc<Throttle>,
    }

    impl Default for TestConnection {
        fn default() -> TestConnection {
            TestConnection { own: Arc::default(), load: Arc::default(), opens: Arc::new(opens()) }
        }
    }

    impl Connection for TestConnection {
        fn address(&self) -> SocketAddr {
            SocketAddr::from(([127, 0, 0, 1], 9))
        }

        fn requests(&self) -> &Usage {
            &self.own
        }

        fn load(&self) -> &Load {
            &self.load
        }

        fn opens(&self) -> &Throttle {
            &self.opens
        }
    }

    #[test]
    fn requests_under_way_have_a_limit_in_number_and_bytes_for_a_connection_and_for_all() {
        let load: Arc<Load> = Arc::default();
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

        // The same by size.
        assert!(!admit(last, REQUESTS_MAX_BYTES + 1));
        let large = &others[..ALL_REQUESTS_MAX_BYTES / REQUESTS_MAX_BYTES];
        assert!(large.iter().all(|one| admit(one, REQUESTS_MAX_BYTES)));
        assert!(!admit(&large[0], 1) && !admit(last, 1));
        large.iter().for_each(|one| release(one, REQUESTS_MAX_BYTES));
        let Usage { count, bytes } = &load.requests;
        assert_eq!((count.load(Ordering::Relaxed), bytes.load(Ordering::Relaxed)), (0, 0));
    }
}
