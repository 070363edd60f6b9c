//! The other servers: whom this one talks to, and whom it listens to.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use super::house::House;
use super::lines;
use super::linked::{Linked, say_so};
use super::mailbox::Mail;
use crate::cluster::Cluster;
use crate::net::{
    Connections, Envelope, FrameError, FrameReader, HandshakeError, Hello, Link, LinkState, PEER_FRAME_MAX_BYTES,
    Place, Watcher, Who, answer, listen,
};
use crate::paxos::ProposerRequest;
use crate::random::Random;
use crate::role::{Input, Server};
use crate::storage::{DataFolder, FolderError};
use crate::trace::{self, Context, RoleTag};

/// Each peer has one connection, and may open a next one before the last is noticed to be dead. For one more the oldest of
/// the same server goes.
const CONNECTIONS_OF_A_PEER: usize = 4;
/// So many callers may be about to say who they are, for which each has five seconds; for one more the oldest goes.
const STRANGERS_MAX: usize = 32;

/// Starts a link to every other server.
pub fn dial(house: &Arc<House>, cluster: &Cluster, folder: &Arc<DataFolder>, linked: &Linked) -> Result<(), String> {
    let mut links = BTreeMap::new();
    let boot = Random::unseeded().next();
    for (server, member) in cluster.members().filter(|(server, _)| *server != house.me) {
        let who = Who::Peer { server: house.me, storage: folder.storage_id(), life: folder.life(), boot };
        let hello = Hello { cluster: cluster.name.clone(), to: server, who };
        let (house, folder, linked) = (house.clone(), folder.clone(), linked.clone());
        let watch = Watch { house, folder, linked, peer: server, takes_part_from_now: false };
        let link = Link::start(format!("link-{server}"), member.peer, hello, watch)
            .map_err(|error| format!("cannot start the thread of the link to server {}: {error}", server.0))?;
        links.insert(server, link);
    }
    let _ = house.links.set(links);
    say_so(house.clone()).map_err(|error| format!("cannot start the thread that greets the other servers: {error}"))
}

/// Watches the link to one peer.
struct Watch {
    house: Arc<House>,
    folder: Arc<DataFolder>,
    linked: Linked,
    peer: Server,
    /// That it has been welcomed here has made this server take part, and nobody was told yet.
    takes_part_from_now: bool,
}

impl Watch {
    fn tell(&self, state: trace::LinkState, why: Option<String>) {
        let event = lines::link(self.peer, state, None);
        self.house.line_because(RoleTag::Server, &Context::default(), event, why);
    }
}

impl Watcher for Watch {
    /// The peer has welcomed this server, and remembers its folder durably by then.
    fn check(&mut self, storage: u64) -> Result<(), String> {
        check_storage(&self.house, &self.folder, self.peer, storage)?;
        let remember = || self.folder.set_takes_part();
        let begins = self.house.standing.is_known_to(self.peer, remember).map_err(survived(&self.house))?;
        self.takes_part_from_now |= begins;
        Ok(())
    }

    fn changed(&mut self, state: LinkState<'_>) {
        match state {
            LinkState::Up => {
                self.linked.up(self.peer);
                let news = "enough of the others know this server's new data folder now: it takes part from here on";
                let why = std::mem::take(&mut self.takes_part_from_now).then(|| news.to_string());
                self.tell(trace::LinkState::Up, why);
            }
            LinkState::Down(error) => {
                self.linked.down(self.peer);
                self.tell(trace::LinkState::Lost, Some(error.to_string()));
            }
            LinkState::Refused(why) => {
                self.linked.refused(self.peer, why);
                self.tell(trace::LinkState::Refused, Some(why.to_string()));
            }
        }
    }
}

/// A peer is known by its data folder: what it promised before is in there, and nowhere else.
fn check_storage(house: &House, folder: &DataFolder, server: Server, storage: u64) -> Result<(), String> {
    match folder.known_peer(server) {
        Some(known) if known != storage => Err(format!(
            "server {} comes with another data folder ({storage:016x}) than the one that this cluster knows \
             ({known:016x}): its promises are not in it. Bring the old data folder back",
            server.0
        )),
        Some(_) => Ok(()),
        None => folder.remember_peer(server, storage).map_err(survived(house)),
    }
}

/// What a peer is told if something cannot be remembered; where the disk has failed this server is no more.
fn survived(house: &House) -> impl Fn(FolderError) -> String {
    move |error| {
        if error.is_fatal() { house.fatal(&format!("stable storage failed: {error}")) } else { error.to_string() }
    }
}

/// Listens to the other servers.
pub fn serve(
    house: &Arc<House>,
    cluster: &Cluster,
    folder: &Arc<DataFolder>,
    linked: &Linked,
    listener: TcpListener,
) -> std::io::Result<()> {
    let connections = Connections::new(STRANGERS_MAX, CONNECTIONS_OF_A_PEER * cluster.servers().len());
    let trouble = tell_trouble(house.clone(), "no connection from a server can be taken on");
    let (house, cluster, folder, linked) = (house.clone(), cluster.clone(), folder.clone(), linked.clone());
    let serve = move |stream: Arc<TcpStream>, address, place: &Place| {
        hear_peer(&house, &cluster, &folder, &linked, stream, address, place);
    };
    listen("peer", listener, connections, serve, drop, trouble)
}

/// One connection from a peer: hands on what it says until it ends.
fn hear_peer(
    house: &House,
    cluster: &Cluster,
    folder: &DataFolder,
    linked: &Linked,
    stream: Arc<TcpStream>,
    address: SocketAddr,
    place: &Place,
) {
    let mut reader = FrameReader::new(stream, PEER_FRAME_MAX_BYTES);
    let check = |hello: &Hello| {
        check_hello(hello, cluster, house.me)?;
        match hello.who {
            Who::Client => Err("this is the address for servers; clients have another one".to_string()),
            Who::Peer { server, .. } if server == house.me || !cluster.servers().contains(server) => {
                Err(format!("no other server of this cluster has the number {}", server.0))
            }
            Who::Peer { server, storage, life, boot } => check_storage(house, folder, server, storage)
                .and_then(|()| folder.meet(server, life, boot).map_err(survived(house))),
        }
    };
    let peer = match answer(&mut reader, folder.storage_id(), check) {
        Ok(Some(Who::Peer { server, .. })) => server,
        Ok(_) => return,
        Err(error) => return tell_malformed(house, address, &error),
    };
    if !place.join_last(peer.0, CONNECTIONS_OF_A_PEER) {
        return;
    }
    linked.hears(peer, Instant::now());
    loop {
        match reader.read::<Envelope>(None) {
            Ok(Some(envelope)) => {
                linked.hears(peer, Instant::now());
                house.deliver(peer, envelope);
            }
            Ok(None) | Err(FrameError::Broken(_)) => break,
            Err(error) => {
                tell_malformed(house, address, &HandshakeError::Broken(error));
                break;
            }
        }
    }
    linked.gone(peer);
    // Whoever waits for its silence need not. If the proposer is down there is nobody to tell.
    let input = Input::Request(ProposerRequest::PeerGone(peer));
    let _ = house.proposer.post(Mail { context: Context::default(), input, size: 0 });
}

/// The parts of a greeting that every caller must get right.
pub fn check_hello(hello: &Hello, cluster: &Cluster, me: Server) -> Result<(), String> {
    if hello.cluster != cluster.name {
        return Err(format!("this is cluster {:?}, not {:?}", cluster.name, hello.cluster));
    }
    if hello.to != me {
        return Err(format!("this is server {}, not {}", me.0, hello.to.0));
    }
    Ok(())
}

/// The line for what is no request.
pub fn tell_malformed(house: &House, address: SocketAddr, error: &HandshakeError) {
    match error {
        HandshakeError::Broken(FrameError::Malformed { length, what }) => house.tell_malformed(address, *length, what),
        HandshakeError::Broken(error @ FrameError::TimedOut { received, .. }) => {
            house.tell_malformed(address, *received as u64, &error.to_string());
        }
        HandshakeError::Broken(FrameError::Broken(_)) => {}
        // An honest caller at the wrong door: it was told, and the bytes it sent were understood.
        HandshakeError::Refused(why) => house.tell_malformed(address, 0, &format!("greeting refused: {why}")),
    }
}

/// Tells why a listener cannot go on for now.
pub fn tell_trouble(house: Arc<House>, what: &'static str) -> impl Fn(&std::io::Error) {
    move |error| house.tell_fault("listener", &error.to_string(), &format!("{what}; trying again until one can"))
}
