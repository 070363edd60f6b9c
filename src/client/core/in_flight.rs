//! One request under way: where it is, what its tries came to, and when the next one is due.

use std::mem;
use std::time::Duration;

use super::outcome::{RequestKind, Tries};
use super::request_trace::RequestTrace;
use crate::host::Time;
use crate::net::{ClientRequest, Reply, Request, WhyNotApplied, WhyUnknown};
use crate::random::Random;
use crate::role::ServerId;

/// When every server has failed at once, the client waits: at first about the first, then twice as long up to the
/// second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));

/// Which servers a request may be asked of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The first, and if that fails the others in turn.
    Any,
    /// Always the same.
    One,
}

/// A request under way.
pub(super) struct InFlight {
    /// What is asked; its number changes with each try.
    pub(super) request: ClientRequest,
    pub(super) reach: Route,
    pub(super) lines: RequestTrace,
    pub(super) tries: Tries,
    pub(super) pauses: RetryBackoff,
    pub(super) begun: Time,
    pub(super) deadline: Time,
    pub(super) step: InFlightState,
    /// How many sessions have ended under it.
    pub(super) sessions: u32,
}

/// Where a request is.
#[derive(Clone, Copy, Debug)]
pub(super) enum InFlightState {
    /// It will be sent to this server, then.
    Due {
        /// When.
        at: Time,
        /// To whom.
        server: ServerId,
    },
    /// It waits for its reply.
    Asked {
        /// From this server.
        server: ServerId,
        /// How far the connection must have sent to have sent it: see `Wire::sent`.
        queued: u64,
        /// Since when.
        since: Time,
        /// Until when.
        until: Time,
    },
}

impl InFlight {
    /// When something is to be done about it though nothing has come.
    pub(super) fn due(&self) -> Time {
        match self.step {
            InFlightState::Due { at, .. } => at,
            InFlightState::Asked { until, .. } => until,
        }
    }

    /// The server that it waits for.
    pub(super) fn asked_of(&self) -> Option<ServerId> {
        match self.step {
            InFlightState::Due { .. } => None,
            InFlightState::Asked { server, .. } => Some(server),
        }
    }

    /// Whether another try makes sense that begins then.
    pub(super) fn has_time(&self, at: Time, try_timeout: Duration) -> bool {
        self.tries.are_worth_another(self.deadline.since(at), try_timeout)
    }

    /// Whether the last try failed as the one before it did, on the same server: such a thing is told once.
    pub(super) fn has_failed_alike(&self) -> bool {
        match self.tries.last.as_slice() {
            [.., before, last] => before.server == last.server && before.end.word() == last.end.word(),
            _ => false,
        }
    }
}

/// What kind of request it is.
pub(super) fn asked(request: &Request) -> RequestKind {
    match request {
        Request::Get { .. } | Request::Status | Request::State { .. } => RequestKind::Read,
        Request::Open { .. } => RequestKind::Session,
        Request::Write { .. } => RequestKind::Write,
        Request::Crash { .. } | Request::Restart { .. } => RequestKind::Order,
    }
}

/// Whether a reply is of a kind that can answer the request.
pub(crate) fn is_answer(request: &Request, reply: &Reply) -> bool {
    match reply {
        // That a session has ended is a word on a write that was sent in it.
        Reply::NotApplied(WhyNotApplied::Expired | WhyNotApplied::Superseded)
        | Reply::Unknown(WhyUnknown::Expired | WhyUnknown::Superseded) => matches!(request, Request::Write { .. }),
        Reply::NotApplied(_) | Reply::Unknown(_) | Reply::Refused(_) => true,
        Reply::Opened { .. } => matches!(request, Request::Open { .. }),
        Reply::Applied { .. } => matches!(request, Request::Write { .. }),
        Reply::Value { .. } => matches!(request, Request::Get { .. }),
        Reply::Status(_) => matches!(request, Request::Status),
        Reply::Chunk(_) => matches!(request, Request::State { .. }),
        Reply::Done => matches!(request, Request::Crash { .. } | Request::Restart { .. }),
    }
}

/// When to wait between tries: after each round of servers of which none took its time, so that a client of a cluster
/// that is down neither spins nor sleeps while there is a server left to ask.
pub(super) struct RetryBackoff {
    /// So many servers make a round.
    servers: usize,
    /// So many have failed in a row without taking time.
    quick: usize,
    next: Duration,
}

impl RetryBackoff {
    pub(super) fn new(servers: usize) -> RetryBackoff {
        RetryBackoff { servers, quick: 0, next: PAUSE.0 }
    }

    /// How long to wait after a try that took so long.
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
