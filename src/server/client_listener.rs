//! The client listener: one thread per client connection, which takes one request after the other and waits for no
//! outcome.
//!
//! Many requests of one connection may be in flight. The thread that has an outcome sends the reply, in the order of
//! the outcomes: each reply carries the number of its request. [`requests`](crate::host::requests) handles each
//! request.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::context::ServerContext;
use super::peers::{trace_accept_error, trace_malformed};
use super::reply_writer::ReplyWriter;
use super::request_reader::{ClientSocket, RequestReader};
use crate::cluster::Cluster;
use crate::host::admission::TOO_MANY;
use crate::host::limits::{CLIENTS_MAX, CLIENTS_UNIDENTIFIED_MAX, REQUESTS_MAX};
use crate::net::{
    CLIENT_FRAME_MAX_BYTES, ClientRequest, ConnectionLimit, ConnectionPermit, FrameError, FrameReader,
    HANDSHAKE_FRAME_MAX_BYTES, HandshakeError, Hello, accept_handshake, listen, reject,
};

/// The only group of connections at this port.
const CLIENTS: u8 = 0;
/// A client that sends nothing for this long is closed.
const IDLE: Duration = Duration::from_secs(600);
/// Period of the checks for requests that have timed out.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(100);

/// The data of the client listener.
pub struct ClientListener {
    /// The server.
    pub ctx: Arc<ServerContext>,
    /// The cluster.
    pub cluster: Cluster,
}

/// Listens to clients.
pub fn serve(clients: ClientListener, listener: TcpListener) -> std::io::Result<()> {
    let busy = |stream: Arc<TcpStream>| reject(&stream, TOO_MANY);
    let trouble = trace_accept_error(clients.ctx.clone(), "cannot accept connections from clients");
    let (ctx, threads) = (clients.ctx.clone(), clients.ctx.threads.group.clone());
    threads.spawn("request-expiry", move || run_expiry(&ctx))?;
    let request_reader = RequestReader::new(&clients.ctx.core.load.unfinished);
    let serve =
        move |stream, address, permit: ConnectionPermit| clients.serve(stream, address, permit, &request_reader);
    let connections = ConnectionLimit::new(CLIENTS_UNIDENTIFIED_MAX, CLIENTS_MAX);
    listen(&threads, "client", listener, connections, serve, busy, trouble)
}

/// Answers the requests that have timed out, again and again until the server stops.
fn run_expiry(ctx: &ServerContext) {
    while ctx.threads.group.rest(EXPIRY_INTERVAL) {
        ctx.core.expire(&ctx.threads);
    }
}

impl ClientListener {
    /// Serves one client connection.
    fn serve(
        &self,
        stream: Arc<TcpStream>,
        address: SocketAddr,
        mut permit: ConnectionPermit,
        request_reader: &Arc<RequestReader>,
    ) {
        let mut reader = FrameReader::new(stream, HANDSHAKE_FRAME_MAX_BYTES);
        let judge = |hello: &Hello| self.ctx.core.judge_client(hello, || permit.join(CLIENTS, CLIENTS_MAX));
        match accept_handshake(&mut reader, judge) {
            Ok(Some(_)) => {}
            Ok(None) => return,
            // A refusal for lack of room is not the client's error.
            Err(HandshakeError::Refused(why)) if why == TOO_MANY => return,
            Err(error) => return trace_malformed(&self.ctx, address, &error),
        }
        let stream = reader.shared_stream();
        reader.set_limit(CLIENT_FRAME_MAX_BYTES);
        reader.set_allowance(request_reader.allowance(ClientSocket { stream: stream.clone(), address }));
        let (threads, load) = (self.ctx.threads.group.clone(), self.ctx.core.load.clone());
        let writer = ReplyWriter::new(threads, stream, address, load, Some(permit));
        // A client that sends no more may still wait for replies: its connection ends with the last of them.
        if let Err(error) = self.take_all(&mut reader, &writer) {
            writer.close();
            trace_malformed(&self.ctx, address, &HandshakeError::Broken(error));
        }
    }

    /// Takes requests until the client sends no more; an error ends the connection at once.
    fn take_all(&self, reader: &mut FrameReader, writer: &Arc<ReplyWriter>) -> Result<(), FrameError> {
        let mut taken_since = 0;
        while writer.await_space() {
            match reader.read::<ClientRequest>(Some(Instant::now() + IDLE)) {
                Ok(Some(request)) => {
                    let size = reader.last_frame_bytes();
                    let malformed = |what| FrameError::Malformed { length: size, what };
                    let taken = self.ctx.core.request(&self.ctx.threads, writer, request, size as usize);
                    let taken = taken.map_err(malformed);
                    // Immediate replies leave when all received requests are taken, or many of them. Before that, their
                    // total size is not known.
                    taken_since += 1;
                    if taken.is_err() || !reader.has_frame() || taken_since == REQUESTS_MAX {
                        self.ctx.send_replies();
                        taken_since = 0;
                    }
                    taken?;
                }
                Ok(None) => return Ok(()),
                Err(FrameError::Broken(_) | FrameError::TimedOut { received: 0, .. }) => break,
                Err(error) => return Err(error),
            }
        }
        writer.close();
        Ok(())
    }
}
