//! The armed timers of one role.

use std::mem::{Discriminant, discriminant};
use std::time::{Duration, Instant};

use crate::random::Random;
use crate::role::Timed;
use crate::trace::Context;

/// Timers by variant: a role has a handful.
pub struct Timers<T> {
    armed: Vec<Armed<T>>,
    random: Random,
}

struct Armed<T> {
    variant: Discriminant<T>,
    due: Instant,
    timer: T,
    /// Of the step that armed it: what happens then, happens because of it.
    context: Context,
}

impl<T: Timed> Timers<T> {
    /// No timers; delays are drawn from `random`.
    pub fn new(random: Random) -> Timers<T> {
        Timers { armed: Vec::new(), random }
    }

    /// Starts a timer; a pending one of the same variant is forgotten.
    pub fn arm(&mut self, timer: T, context: Context) {
        let variant = discriminant(&timer);
        let due = Instant::now() + Duration::from_millis(self.random.within(timer.delay_ms()));
        self.armed.retain(|armed| armed.variant != variant);
        self.armed.push(Armed { variant, due, timer, context });
    }

    /// When the next one runs out.
    pub fn next_due(&self) -> Option<Instant> {
        self.armed.iter().map(|armed| armed.due).min()
    }

    /// Takes those that have run out, the earliest first.
    pub fn take_due(&mut self, now: Instant) -> Vec<(Context, T)> {
        if self.next_due().is_none_or(|due| due > now) {
            return Vec::new();
        }
        let mut due: Vec<_> = self.armed.extract_if(.., |armed| armed.due <= now).collect();
        due.sort_by_key(|armed| armed.due);
        due.into_iter().map(|armed| (armed.context, armed.timer)).collect()
    }
}
