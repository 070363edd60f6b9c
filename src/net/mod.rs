//! Sockets: frames with a checksum and a deadline, the handshake, and the links between servers.

mod frame;
mod handshake;
mod link;
mod listener;
mod status_json;
mod wire;

pub use frame::{
    CLIENT_FRAME_MAX_BYTES, FrameError, FrameReader, PEER_FRAME_MAX_BYTES, frame, frame_into, unframe, write_before,
    write_now,
};
pub use handshake::{
    Answer, HANDSHAKE_FRAME_MAX_BYTES, HandshakeError, Hello, Welcome, Who, answer, greet, greeting, preamble,
    turn_away,
};
pub use link::{Link, LinkState, Watcher};
pub use listener::{Connections, allow_many_sockets, bind, listen};
pub use wire::{
    ClientReply, ClientRequest, DoubtStatus, Envelope, EnvelopeOf, IN_DOUBT_SHOWN, LeaderStatus, Newcomer, Reply,
    Request, RoleStatus, Said, ServerStatus, StatePart, Unknown, WhyNotApplied,
};
