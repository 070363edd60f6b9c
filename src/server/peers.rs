//! The peers of a server: the links to them, and the connections from them.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use super::clock;
use super::context::ServerContext;
use crate::cluster::Cluster;
use crate::host::Dialler;
use crate::host::connected_peers::{CONNECTIONS_OF_A_PEER, KEEPALIVE_INTERVAL};
use crate::host::limits::PEERS_UNIDENTIFIED_MAX;
use crate::net::{
    Backoff, Caller, ConnectionLimit, ConnectionPermit, Envelope, FrameError, FrameReader, HANDSHAKE_FRAME_MAX_BYTES,
    HandshakeError, Hello, HelloReply, Link, LinkEnded, LinkObserver, PEER_FRAME_MAX_BYTES, PeerMessage, Welcome,
    accept_handshake, listen,
};
use crate::role::{ServerId, ServerSet};
use crate::storage::DataDir;
use crate::trace::TraceContext;

/// The connections to and from the other servers.
pub struct Peers {
    ctx: Arc<ServerContext>,
    cluster: Cluster,
    data_dir: Arc<DataDir>,
}

impl Peers {
    /// The peers of a server, without any link yet.
    pub fn new(ctx: Arc<ServerContext>, cluster: Cluster, data_dir: Arc<DataDir>) -> Arc<Peers> {
        Arc::new(Peers { ctx, cluster, data_dir })
    }

    /// Starts a link to every other server.
    pub fn dial(self: &Arc<Peers>) -> Result<(), String> {
        let mut links = BTreeMap::new();
        for (server, member) in self.cluster.members().filter(|(server, _)| *server != self.ctx.core.config.me) {
            let watch = PeerWatcher { peers: self.clone(), dialler: Dialler::new(server) };
            let link = Link::start(&self.ctx.threads.group, format!("link-{server}"), member.peer, watch)
                .map_err(|error| format!("cannot start the thread of the link to server {}: {error}", server.0))?;
            links.insert(server, link);
        }
        let _ = self.ctx.threads.links.set(links);
        send_keepalives(self.ctx.clone())
            .map_err(|error| format!("cannot start the thread that sends HERE to the other servers: {error}"))
    }

    /// Listens to the other servers.
    pub fn serve(self: &Arc<Peers>, listener: TcpListener) -> std::io::Result<()> {
        let connections =
            ConnectionLimit::new(PEERS_UNIDENTIFIED_MAX, CONNECTIONS_OF_A_PEER * self.cluster.servers().len());
        let trouble = trace_accept_error(self.ctx.clone(), "cannot accept connections from servers");
        let peers = self.clone();
        let serve =
            move |stream: Arc<TcpStream>, address, permit: ConnectionPermit| peers.hear(stream, address, permit);
        listen(&self.ctx.threads.group, "peer", listener, connections, serve, drop, trouble)
    }

    /// The answer to a caller at the port for servers.
    fn judge(&self, hello: &Hello) -> HelloReply {
        let judged = self.ctx.core.judge(&self.data_dir, hello).unwrap_or_else(|fatal| self.ctx.fatal(&fatal.0));
        let link = |server: ServerId| self.ctx.threads.links.get()?.get(&server);
        judged.call.and_then(link).into_iter().for_each(Link::dial_now);
        judged.answer
    }

    /// Serves one connection from a peer: delivers its messages until the connection ends.
    fn hear(&self, stream: Arc<TcpStream>, address: SocketAddr, mut permit: ConnectionPermit) {
        let ctx = &self.ctx;
        let mut reader = FrameReader::new(stream, HANDSHAKE_FRAME_MAX_BYTES);
        let peer = match accept_handshake(&mut reader, |hello| self.judge(hello)) {
            Ok(Some(Caller::Peer { server, .. })) => server,
            Ok(_) => return,
            Err(error) => return trace_malformed(ctx, address, &error),
        };
        if !permit.join_last(peer.0, CONNECTIONS_OF_A_PEER) {
            return;
        }
        reader.set_limit(PEER_FRAME_MAX_BYTES);
        ctx.core.linked.came(peer, clock::now());
        loop {
            match reader.read::<Envelope>(None) {
                Ok(Some(_)) if ctx.core.linked.is_cut(peer) => break,
                Ok(Some(envelope)) => {
                    ctx.core.linked.hears(peer, clock::now());
                    ctx.deliver(peer, envelope);
                }
                Ok(None) | Err(FrameError::Broken(_)) => break,
                Err(error) => {
                    trace_malformed(ctx, address, &HandshakeError::Broken(error));
                    break;
                }
            }
        }
        if ctx.core.linked.gone(peer) {
            ctx.core.on_peer_disconnected(&ctx.threads, peer);
        }
    }
}

/// Cuts the links with a peer, or joins them again.
pub fn set_cut(ctx: &ServerContext, peer: ServerId, is_cut: bool) {
    // Recorded first: the end of the link is then no news.
    ctx.core.set_cut(peer, is_cut);
    ctx.threads.links.get().and_then(|links| links.get(&peer)).into_iter().for_each(|link| link.hold(is_cut));
}

/// Sends HERE to every other server, again and again until the server stops.
fn send_keepalives(ctx: Arc<ServerContext>) -> std::io::Result<()> {
    let others = ctx.core.config.cluster.without(ServerSet::only(ctx.core.config.me));
    let threads = ctx.threads.group.clone();
    let say = move || {
        loop {
            ctx.send(others, PeerMessage::Keepalive, TraceContext::default());
            ctx.flush();
            if !ctx.threads.group.rest(KEEPALIVE_INTERVAL) {
                return;
            }
        }
    };
    threads.spawn("here", say).map(drop)
}

/// The decisions for the link to one peer.
struct PeerWatcher {
    peers: Arc<Peers>,
    dialler: Dialler,
}

impl LinkObserver for PeerWatcher {
    fn hello(&mut self) -> Hello {
        self.dialler.hello(&self.peers.ctx.core, &self.peers.data_dir)
    }

    fn check(&mut self, hello: &Hello, welcome: &Welcome) -> Result<(), String> {
        let Peers { ctx, data_dir, .. } = &*self.peers;
        self.dialler.welcomed(&ctx.core, data_dir, hello, welcome).unwrap_or_else(|fatal| ctx.fatal(&fatal.0))
    }

    fn up(&mut self) {
        let Peers { ctx, data_dir, .. } = &*self.peers;
        let news_for = self.dialler.up(&ctx.core, data_dir);
        let links = ctx.threads.links.get().into_iter().flatten();
        links.filter(|(peer, _)| news_for.contains(**peer)).for_each(|(_, link)| link.greet_again());
    }

    fn ended(&mut self, ended: LinkEnded<'_>) -> Backoff {
        self.dialler.ended(&self.peers.ctx.core, ended)
    }
}

/// Writes the line for a malformed handshake or request.
pub fn trace_malformed(ctx: &ServerContext, address: SocketAddr, error: &HandshakeError) {
    match error {
        // This server has closed the connection, perhaps in the middle of a frame.
        _ if ctx.threads.group.is_stopping() => {}
        HandshakeError::Broken(FrameError::Malformed { length, what }) => {
            ctx.core.trace_malformed(clock::now(), address, *length, what)
        }
        HandshakeError::Broken(error @ FrameError::TimedOut { received, .. }) => {
            ctx.core.trace_malformed(clock::now(), address, *received as u64, &error.to_string());
        }
        HandshakeError::Broken(FrameError::Broken(_)) => {}
        // It is reported once per second, with the other closed connections.
        HandshakeError::Broken(FrameError::NoSpace { .. }) => {}
        // A first meeting, or a stranger that learns nothing: this server calls the peer.
        HandshakeError::CallBackFirst => {}
        // An honest caller at the wrong port: it got a reason, and its bytes were well formed.
        HandshakeError::Refused(why) => {
            ctx.core.trace_malformed(clock::now(), address, 0, &format!("handshake refused: {why}"))
        }
    }
}

/// Traces why a listener cannot accept connections for now.
pub fn trace_accept_error(ctx: Arc<ServerContext>, what: &'static str) -> impl Fn(&std::io::Error) {
    move |error| ctx.trace_fault("listener", &error.to_string(), &format!("{what}; the server keeps trying"))
}
