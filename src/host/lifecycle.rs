//! The lifecycle of a server's roles: when each role must crash, and when it restarts.
//!
//! Nothing here draws when a role fails: the caller gives that time with each incarnation. The code that runs the roles
//! asks what is due, does it, and reports how each incarnation has ended.

use std::time::Duration;

use super::mail_queue::CrashRequest;
use super::role_disk::SPACE_RETRY;
use crate::role::{RoleKind, ServerId};
use crate::time::Time;
use crate::trace::{CrashCause, CrashPoint};

/// A request of an operator in lab mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabRequest {
    /// Crash a role.
    Crash {
        /// The role.
        role: RoleKind,
        /// How long it stays down; None means until a RESTART.
        down: Option<Duration>,
    },
    /// Restart a role.
    Restart {
        /// The role.
        role: RoleKind,
    },
    /// Cut the links with a peer.
    Cut {
        /// The peer.
        peer: ServerId,
    },
    /// Join the links with a peer again.
    Join {
        /// The peer.
        peer: ServerId,
    },
    /// End all roles for good.
    Stop,
}

/// The states of a server's roles.
#[derive(Debug)]
pub struct Lifecycle {
    states: [RoleState; RoleKind::ALL.len()],
}

#[derive(Clone, Copy, Debug)]
enum RoleState {
    /// The role is up. `fails` is when and how it must crash.
    Up { fails: Option<(Time, CrashRequest)> },
    /// The role must end, and is still up. Then it stays down for `down`; None means until a RESTART.
    Ending { down: Option<Duration> },
    /// The role is down until `until`; None means until a RESTART.
    Down { since: Time, until: Option<Time> },
}

/// An action that is due for a role.
#[derive(Clone, Copy, Debug)]
pub enum DueAction {
    /// Crash the role.
    Crash(CrashRequest),
    /// Restart the role; it has been down for this long.
    Restart(Duration),
}

impl Lifecycle {
    /// All roles are down.
    pub fn new(now: Time) -> Lifecycle {
        Lifecycle { states: [RoleState::Down { since: now, until: None }; RoleKind::ALL.len()] }
    }

    /// An incarnation of a role begins; `fails` is when and how it must crash.
    pub fn begins(&mut self, role: RoleKind, fails: Option<(Time, CrashRequest)>) {
        *self.state(role) = RoleState::Up { fails };
    }

    /// An incarnation could not even be started: it is tried again.
    pub fn did_not_begin(&mut self, now: Time, role: RoleKind) {
        if let RoleState::Down { until, .. } = self.state(role) {
            *until = Some(now + SPACE_RETRY);
        }
    }

    /// Crashes a role: returns the request that its mailbox must get. For a role that is ending or already down, this
    /// only changes when it restarts.
    pub fn crash(&mut self, now: Time, role: RoleKind, request: CrashRequest) -> Option<CrashRequest> {
        let state = self.state(role);
        match state {
            RoleState::Ending { down, .. } => *down = request.down,
            RoleState::Down { until, .. } => *until = request.down.map(|down| now + down),
            RoleState::Up { .. } => {
                *state = RoleState::Ending { down: request.down };
                return Some(request);
            }
        }
        None
    }

    /// Crashes a role on the request of an operator. Returns the request that its mailbox must get.
    pub fn on_crash_request(&mut self, now: Time, role: RoleKind, down: Option<Duration>) -> Option<CrashRequest> {
        self.crash(now, role, CrashRequest { point: CrashPoint::BeforeStep, cause: CrashCause::Admin, down })
    }

    /// Restarts a role that is down, or that ends soon.
    pub fn restart_soon(&mut self, now: Time, role: RoleKind) {
        match self.state(role) {
            RoleState::Up { .. } => {}
            RoleState::Ending { down } => *down = Some(Duration::ZERO),
            RoleState::Down { until, .. } => *until = Some(now),
        }
    }

    /// An incarnation has ended. Without a request to end, it could not begin or continue; there may be room for it
    /// soon.
    pub fn ended(&mut self, now: Time, role: RoleKind) {
        let state = self.state(role);
        let down = match *state {
            RoleState::Ending { down } => down,
            RoleState::Up { .. } => Some(SPACE_RETRY),
            RoleState::Down { .. } => return,
        };
        *state = RoleState::Down { since: now, until: down.map(|down| now + down) };
    }

    /// When the next action is due.
    pub fn next_due(&self) -> Option<Time> {
        self.states.iter().filter_map(RoleState::due).min()
    }

    /// The action that is due for a role now. The caller must perform it.
    pub fn take_due(&mut self, now: Time, role: RoleKind) -> Option<DueAction> {
        let state = self.state(role);
        state.due().filter(|due| *due <= now)?;
        match *state {
            RoleState::Up { fails } => {
                let (_, request) = fails?;
                *state = RoleState::Ending { down: request.down };
                Some(DueAction::Crash(request))
            }
            RoleState::Ending { .. } => None,
            RoleState::Down { since, .. } => {
                *state = RoleState::Down { since, until: None };
                Some(DueAction::Restart(now.since(since)))
            }
        }
    }

    fn state(&mut self, role: RoleKind) -> &mut RoleState {
        &mut self.states[role as usize]
    }
}

impl RoleState {
    fn due(&self) -> Option<Time> {
        match self {
            RoleState::Up { fails } => fails.map(|(at, _)| at),
            RoleState::Ending { .. } => None,
            RoleState::Down { until, .. } => *until,
        }
    }
}
