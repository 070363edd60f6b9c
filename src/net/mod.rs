//! Sockets: frames with a checksum and a deadline, the handshake, and the links between servers.

mod dial;
mod frame;
mod handshake;
mod link;
mod listener;
mod status_json;
mod thread_group;
mod verdict;
mod wire;

pub use dial::{dial, refuse_self_connection};
pub use frame::{
    Allowance, CLIENT_FRAME_MAX_BYTES, FIRST_BUFFER_BYTES, FRAME_DEADLINE, FrameError, FrameReader,
    PEER_FRAME_MAX_BYTES, frame, frame_into, unframe, write_before, write_now,
};
pub use handshake::{
    Caller, HANDSHAKE_DEADLINE, HANDSHAKE_FRAME_MAX_BYTES, HandshakeError, Hello, HelloReply, Welcome,
    accept_handshake, connect_handshake, greeting, preamble, reject,
};
pub use link::{BULK_MAX_BYTES, Backoff, CONTROL_MAX_BYTES, IN_FLIGHT_BULK_BYTES, Link, LinkEnded, LinkObserver};
pub use listener::{BindError, ConnectionLimit, ConnectionPermit, allow_many_sockets, bind, check_free, listen};
pub use thread_group::{ThreadGroup, WatchedSocket};
pub use verdict::{AvailabilityVerdict, Writes};
pub use wire::{
    AdmissionStatus, ClientReply, ClientRequest, Envelope, EnvelopeRef, IN_DOUBT_SHOWN, InDoubtStatus, LeaderStatus,
    MessageKind, PeerMessage, Refusal, Reply, Request, RoleStatus, ServerStatus, StatePart, WhyNotApplied, WhyUnknown,
};
