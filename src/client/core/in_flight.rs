//! One request in flight: its state, its failed tries, and the time of the next try.

use std::mem;
use std::time::Duration;

use super::outcome::{RequestKind, Tries};
use super::request_trace::RequestTrace;
use crate::net::{ClientRequest, Reply, Request, WhyNotApplied, WhyUnknown};
use crate::random::Random;
use crate::role::ServerId;
use crate::time::Time;

/// Pause after every server has failed once without taking time: about the first duration at the start, then doubling
/// up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));

/// The servers that a request may be sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The first server, and after a failure the others in turn.
    Any,
    /// One server only, without failover.
    One,
}

/// A request in flight.
pub(super) struct InFlight {
    /// The request; its number changes with each try.
    pub(super) request: ClientRequest,
    pub(super) route: Route,
    pub(super) lines: RequestTrace,
    pub(super) tries: Tries,
    pub(super) pauses: RetryBackoff,
    pub(super) started: Time,
    pub(super) deadline: Time,
    pub(super) step: InFlightState,
    /// Number of sessions that ended while this request used them.
    pub(super) sessions: u32,
}

/// The state of a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum InFlightState {
    /// The request waits to be sent.
    Due {
        /// When to send.
        at: Time,
        /// The server to send to.
        server: ServerId,
    },
    /// The request waits for its reply.
    Asked {
        /// The server that was asked.
        server: ServerId,
        /// The value of `Wire::sent` from which on the request is completely sent.
        queued: u64,
        /// When the try began.
        since: Time,
        /// When the try ends without a reply.
        until: Time,
    },
}

impl InFlight {
    /// When this request needs action even if nothing arrives.
    pub(super) fn due(&self) -> Time {
        match self.step {
            InFlightState::Due { at, .. } => at,
            InFlightState::Asked { until, .. } => until,
        }
    }

    /// The server whose reply this request waits for; None between tries.
    pub(super) fn asked_of(&self) -> Option<ServerId> {
        match self.step {
            InFlightState::Due { .. } => None,
            InFlightState::Asked { server, .. } => Some(server),
        }
    }

    /// Whether another try that begins at `at` makes sense.
    pub(super) fn has_time(&self, at: Time, try_timeout: Duration) -> bool {
        self.tries.are_worth_another(self.deadline.since(at), try_timeout)
    }

    /// Whether the last try failed on the same server and for the same reason as the one before: such a failure is
    /// logged once.
    pub(super) fn has_failed_alike(&self) -> bool {
        match self.tries.last.as_slice() {
            [.., before, last] => before.server == last.server && before.end.word() == last.end.word(),
            _ => false,
        }
    }
}

/// The kind of a request.
pub(super) fn asked(request: &Request) -> RequestKind {
    match request {
        Request::Get { .. } | Request::Status | Request::State { .. } => RequestKind::Read,
        Request::Open { .. } => RequestKind::Session,
        Request::Write { .. } => RequestKind::Write,
        Request::Crash { .. } | Request::Restart { .. } | Request::Cut { .. } | Request::Join { .. } => {
            RequestKind::Order
        }
    }
}

/// Whether a reply is of a kind that can answer the request.
pub fn is_answer(request: &Request, reply: &Reply) -> bool {
    match reply {
        // Only a write that was sent in a session can be answered with the end of that session.
        Reply::NotApplied(WhyNotApplied::Expired | WhyNotApplied::Superseded)
        | Reply::Unknown(WhyUnknown::Expired | WhyUnknown::Superseded) => matches!(request, Request::Write { .. }),
        Reply::NotApplied(_) | Reply::Unknown(_) | Reply::Refused(_) => true,
        Reply::Opened { .. } => matches!(request, Request::Open { .. }),
        Reply::Applied { .. } => matches!(request, Request::Write { .. }),
        Reply::Value { .. } => matches!(request, Request::Get { .. }),
        Reply::Status(_) => matches!(request, Request::Status),
        Reply::Chunk(_) => matches!(request, Request::State { .. }),
        Reply::Done => asked(request) == RequestKind::Order,
    }
}

/// The pauses between tries. A pause follows each round in which every server failed quickly. So a client of a cluster
/// that is down neither spins, nor sleeps while there is a server left to ask.
pub(super) struct RetryBackoff {
    /// Number of servers in a round.
    servers: usize,
    /// Number of quick failures in a row.
    quick: usize,
    next: Duration,
}

impl RetryBackoff {
    pub(super) fn new(servers: usize) -> RetryBackoff {
        RetryBackoff { servers, quick: 0, next: PAUSE.0 }
    }

    /// The pause after a failed try of this duration.
    pub(super) fn after(&mut self, took: Duration, random: &mut Random) -> Duration {
        if took >= PAUSE.1 {
            *self = RetryBackoff::new(self.servers);
            return Duration::ZERO;
        }
        self.quick += 1;
        if !self.quick.is_multiple_of(self.servers) {
            return Duration::ZERO;
        }
        let next = (self.next * 2).min(PAUSE.1);
        random.around(mem::replace(&mut self.next, next))
    }
}
