//! The connected peers of a server, with each direction known separately.
//!
//! A link is one-way: each server dials every peer for the messages that it sends. So "connected" is two facts: the own
//! link to the peer is up, and the peer is heard. An open connection does not prove the second fact, since a network
//! that drops everything closes no connection. Every server therefore sends something to every peer at least each
//! [`KEEPALIVE_INTERVAL`].

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::cut_links;
use crate::net::Refusal;
use crate::role::{ServerId, ServerSet};
use crate::time::Time;

/// A server sends something to each peer at least this often.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_millis(500);
/// Each peer has one connection, and may open the next before this server notices that the last is broken. Beyond this
/// number, the oldest connection of the same server is closed.
pub const CONNECTIONS_OF_A_PEER: usize = 4;
/// A peer that has sent nothing for this long is not heard.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// The links with the peers. Any thread may update and read them.
#[derive(Debug, Default)]
pub struct ConnectedPeers(Mutex<BTreeMap<ServerId, ConnectedPeer>>);

/// The state of the links with one server.
#[derive(Debug, Default)]
struct ConnectedPeer {
    /// The own link to the server is up.
    is_up: bool,
    /// Why the link is down, if one of the two servers refuses the other.
    refusal: Option<String>,
    /// When the last message from the server arrived.
    heard_at: Option<Time>,
    /// The links are cut by a lab command.
    is_cut: bool,
    /// Open connections from the server: a new one may be open before the old one is noticed to be broken.
    connections: u32,
}

impl ConnectedPeers {
    /// The link to a server is up.
    pub fn up(&self, server: ServerId) {
        self.change(server, |peer| (peer.is_up, peer.refusal) = (true, None));
    }

    /// The link to a server is down.
    pub fn down(&self, server: ServerId) {
        self.change(server, |peer| (peer.is_up, peer.refusal) = (false, None));
    }

    /// The link to a server is down, because one of the two refuses the other.
    pub fn refused(&self, server: ServerId, why: &str) {
        self.change(server, |peer| (peer.is_up, peer.refusal) = (false, Some(why.to_string())));
    }

    /// A message from a server has arrived.
    pub fn hears(&self, server: ServerId, now: Time) {
        self.change(server, |peer| peer.heard_at = Some(now));
    }

    /// A connection from a server is open.
    pub fn came(&self, server: ServerId, now: Time) {
        self.change(server, |peer| (peer.connections, peer.heard_at) = (peer.connections + 1, Some(now)));
    }

    /// A connection from a server has ended; true if it was the last.
    pub fn gone(&self, server: ServerId) -> bool {
        let mut is_last = false;
        self.change(server, |peer| {
            peer.connections = peer.connections.saturating_sub(1);
            is_last = peer.connections == 0;
            peer.heard_at = peer.heard_at.filter(|_| !is_last);
        });
        is_last
    }

    /// The links with a server are cut by a lab command, or joined again; false if they were before.
    pub fn set_cut(&self, server: ServerId, is_cut: bool) -> bool {
        let mut was_cut = is_cut;
        self.change(server, |peer| {
            was_cut = std::mem::replace(&mut peer.is_cut, is_cut);
            peer.heard_at = peer.heard_at.filter(|_| !is_cut);
        });
        was_cut != is_cut
    }

    /// Whether the links with a server are cut.
    pub fn is_cut(&self, server: ServerId) -> bool {
        self.peers().get(&server).is_some_and(|peer| peer.is_cut)
    }

    /// The servers to which the own link is up.
    pub fn reached(&self) -> ServerSet {
        self.servers(|peer| peer.is_up)
    }

    /// The servers that are heard.
    pub fn heard(&self, now: Time) -> ServerSet {
        self.servers(|peer| peer.heard_at.is_some_and(|at| now.since(at) < KEEPALIVE_TIMEOUT))
    }

    /// The links of server `me` that are down because one of the two refuses the other.
    pub fn refusals(&self, me: ServerId) -> Vec<Refusal> {
        let refusal = |(server, peer): (&ServerId, &ConnectedPeer)| {
            let why = if peer.is_cut { cut_links::refusal(me, *server) } else { peer.refusal.clone()? };
            Some(Refusal { server: *server, why })
        };
        self.peers().iter().filter_map(refusal).collect()
    }

    fn servers(&self, which: impl Fn(&ConnectedPeer) -> bool) -> ServerSet {
        self.peers().iter().filter(|(_, peer)| which(peer)).map(|(server, _)| *server).collect()
    }

    fn change(&self, server: ServerId, change: impl FnOnce(&mut ConnectedPeer)) {
        change(self.peers().entry(server).or_default());
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<ServerId, ConnectedPeer>> {
        // Every change is a few assignments.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_direction_of_a_link_is_tracked_separately() {
        let (linked, now, peer) = (ConnectedPeers::default(), Time(5_000_000), ServerId(2));
        let one = ServerSet::only(peer);
        assert_eq!((linked.reached(), linked.heard(now)), (ServerSet::NONE, ServerSet::NONE));
        linked.up(peer);
        assert_eq!((linked.reached(), linked.heard(now)), (one, ServerSet::NONE));
        linked.down(peer);
        linked.hears(peer, now);
        assert_eq!((linked.reached(), linked.heard(now)), (ServerSet::NONE, one));
        linked.gone(peer);
        assert_eq!(linked.heard(now), ServerSet::NONE);
    }

    #[test]
    fn silent_peer_is_not_heard_even_if_its_connection_is_open() {
        let (linked, now, peer) = (ConnectedPeers::default(), Time(5_000_000), ServerId(2));
        linked.hears(peer, now);
        assert_eq!(linked.heard(now + KEEPALIVE_INTERVAL * 3), ServerSet::only(peer), "two words may be late");
        assert_eq!(linked.heard(now + KEEPALIVE_TIMEOUT), ServerSet::NONE);
    }

    #[test]
    fn refusal_is_kept_until_the_link_is_up_or_breaks_for_another_reason() {
        let (linked, peer) = (ConnectedPeers::default(), ServerId(2));
        linked.refused(peer, "another directory");
        assert_eq!(linked.refusals(ServerId(1)), [Refusal { server: peer, why: "another directory".to_string() }]);
        linked.up(peer);
        assert_eq!(linked.refusals(ServerId(1)), []);
        linked.refused(peer, "another directory");
        linked.down(peer);
        assert_eq!((linked.refusals(ServerId(1)), linked.reached()), (Vec::new(), ServerSet::NONE));
    }

    #[test]
    fn cut_links_are_refusals_until_they_are_joined() {
        let (linked, now, peer) = (ConnectedPeers::default(), Time(5_000_000), ServerId(2));
        linked.came(peer, now);
        linked.refused(peer, "another directory");
        assert!(linked.set_cut(peer, true) && !linked.set_cut(peer, true), "a second cut changes nothing");
        assert!(linked.is_cut(peer) && !linked.is_cut(ServerId(3)));
        assert_eq!(linked.heard(now), ServerSet::NONE);
        linked.down(peer);
        let why = "cut by a lab command. Next: paxos-client join 1 2".to_string();
        assert_eq!(linked.refusals(ServerId(1)), [Refusal { server: peer, why }]);
        assert!(linked.set_cut(peer, false) && !linked.set_cut(peer, false));
        assert_eq!((linked.is_cut(peer), linked.refusals(ServerId(1))), (false, Vec::new()));
    }
}
