//! When roles are told to die, and when they come back.
//!
//! Nothing here draws when a role fails: that is given with each life. Who runs the roles asks what is due, does it,
//! and says how each life has ended.

use std::time::Duration;

use super::mail_queue::CrashRequest;
use super::role_disk::ROOM_RETRY;
use super::time::Time;
use crate::role::RoleKind;
use crate::trace::{CrashCause, CrashPoint};

/// What an operator may ask in lab mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabRequest {
    /// End a role's life.
    Crash {
        /// Which.
        role: RoleKind,
        /// For how long; until RESTART if None.
        down: Option<Duration>,
    },
    /// Start it again.
    Restart {
        /// Which.
        role: RoleKind,
    },
    /// End all roles for good.
    Stop,
}

/// The lives of a server's roles.
#[derive(Debug)]
pub struct Lifecycle {
    states: [RoleState; RoleKind::ALL.len()],
}

#[derive(Clone, Copy, Debug)]
enum RoleState {
    /// It lives; when and how it is to fail.
    Up { fails: Option<(Time, CrashRequest)> },
    /// It is told to end, and still lives. Then it is to be down for so long; until somebody restarts it if None.
    Ending { down: Option<Duration> },
    /// It is down until then; until somebody restarts it if None.
    Down { since: Time, until: Option<Time> },
}

/// What is to be done with a role.
#[derive(Clone, Copy, Debug)]
pub enum DueAction {
    /// Tell it to die.
    Crash(CrashRequest),
    /// Start it; it has been down for so long.
    Restart(Duration),
}

impl Lifecycle {
    /// No role lives.
    pub fn new(now: Time) -> Lifecycle {
        Lifecycle { states: [RoleState::Down { since: now, until: None }; RoleKind::ALL.len()] }
    }

    /// A life of a role begins; when and how it is to fail, if it is.
    pub fn begins(&mut self, role: RoleKind, fails: Option<(Time, CrashRequest)>) {
        *self.state(role) = RoleState::Up { fails };
    }

    /// A life could not even be started: it is tried again.
    pub fn did_not_begin(&mut self, now: Time, role: RoleKind) {
        if let RoleState::Down { until, .. } = self.state(role) {
            *until = Some(now + ROOM_RETRY);
        }
    }

    /// Tells a role to die: gives the order that it must get. One that is dying or down already may still get another
    /// time to come back.
    pub fn crash(&mut self, now: Time, role: RoleKind, order: CrashRequest) -> Option<CrashRequest> {
        let state = self.state(role);
        match state {
            RoleState::Ending { down, .. } => *down = order.down,
            RoleState::Down { until, .. } => *until = order.down.map(|down| now + down),
            RoleState::Up { .. } => {
                *state = RoleState::Ending { down: order.down };
                return Some(order);
            }
        }
        None
    }

    /// As an operator asks. Gives the order that the role must get.
    pub fn crash_by_hand(&mut self, now: Time, role: RoleKind, down: Option<Duration>) -> Option<CrashRequest> {
        self.crash(now, role, CrashRequest { point: CrashPoint::BeforeStep, cause: CrashCause::Admin, down })
    }

    /// Brings a role back that is down, or as soon as it is.
    pub fn restart_soon(&mut self, now: Time, role: RoleKind) {
        match self.state(role) {
            RoleState::Up { .. } => {}
            RoleState::Ending { down } => *down = Some(Duration::ZERO),
            RoleState::Down { until, .. } => *until = Some(now),
        }
    }

    /// A life has ended. If nobody has told it to, it could not begin, or not go on: there may be room for it soon.
    pub fn ended(&mut self, now: Time, role: RoleKind) {
        let state = self.state(role);
        let down = match *state {
            RoleState::Ending { down } => down,
            RoleState::Up { .. } => Some(ROOM_RETRY),
            RoleState::Down { .. } => return,
        };
        *state = RoleState::Down { since: now, until: down.map(|down| now + down) };
    }

    /// When something is to be done.
    pub fn next_due(&self) -> Option<Time> {
        self.states.iter().filter_map(RoleState::due).min()
    }

    /// What is to be done with a role now. What is told here is taken to be done.
    pub fn take_due(&mut self, now: Time, role: RoleKind) -> Option<DueAction> {
        let state = self.state(role);
        state.due().filter(|due| *due <= now)?;
        match *state {
            RoleState::Up { fails } => {
                let (_, order) = fails?;
                *state = RoleState::Ending { down: order.down };
                Some(DueAction::Crash(order))
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
