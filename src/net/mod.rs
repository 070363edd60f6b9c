//! Sockets: frames with a checksum and a deadline, the handshake, and the links between servers.

mod dial;
mod frame;
mod handshake;
mod link;
mod listener;
mod status_json;
mod verdict;
mod wire;

pub use dial::{dial, refuse_oneself};
pub use frame::{
    Allowance, CLIENT_FRAME_MAX_BYTES, FIRST_BUFFER_BYTES, FRAME_DEADLINE, FrameError, FrameReader,
    PEER_FRAME_MAX_BYTES, frame, frame_into, unframe, write_before, write_now,
};
pub use handshake::{
    Answer, HANDSHAKE_DEADLINE, HANDSHAKE_FRAME_MAX_BYTES, HandshakeError, Hello, Welcome, Who, answer, greet,
    greeting, preamble, turn_away,
};
pub use link::{BEGUN_BYTES, BULK_MAX_BYTES, CONTROL_MAX_BYTES, Link, LinkEnded, Pause, Watcher};
pub use listener::{BindError, Connections, Place, allow_many_sockets, bind, check_free, listen};
pub use verdict::{Verdict, Writes};
pub use wire::{
    ClientReply, ClientRequest, DoubtStatus, Envelope, EnvelopeOf, IN_DOUBT_SHOWN, LeaderStatus, MessageKind, Newcomer,
    Refusal, Reply, Request, RoleStatus, Said, ServerStatus, StatePart, Unknown, WhyNotApplied,
};
