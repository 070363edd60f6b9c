//! Sockets: frames with a checksum and a deadline, the handshake, and the links between servers.

mod frame;
mod handshake;
mod link;
mod listener;
mod status_json;
mod wire;

pub use frame::{
    CLIENT_FRAME_MAX_BYTES, FrameError, FrameReader, PEER_FRAME_MAX_BYTES, frame, frame_into, unframe, write_before,
};
pub use handshake::{HandshakeError, Hello, Who, answer, greet, turn_away};
pub use link::{Link, LinkState, Watcher};
pub use listener::{Connections, bind, listen};
pub use wire::{
    ClientReply, ClientRequest, Envelope, Reply, Request, RoleStatus, ServerStatus, Unknown, WhyNotApplied,
};
