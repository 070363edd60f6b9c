//! The armed timers of one role.

use std::mem::{Discriminant, discriminant};

use crate::time::Time;
use crate::trace::TraceContext;

/// Armed timers, at most one per variant: a role has only a few.
#[derive(Debug)]
pub struct Timers<T> {
    armed: Vec<ArmedTimer<T>>,
}

#[derive(Debug)]
struct ArmedTimer<T> {
    variant: Discriminant<T>,
    due: Time,
    timer: T,
    /// The context of the step that armed the timer: it is the parent of what the timer causes.
    context: TraceContext,
}

impl<T> Default for Timers<T> {
    fn default() -> Timers<T> {
        Timers { armed: Vec::new() }
    }
}

impl<T> Timers<T> {
    /// Arms a timer; it replaces an armed timer of the same variant.
    pub fn arm(&mut self, timer: T, due: Time, context: TraceContext) {
        let variant = discriminant(&timer);
        self.armed.retain(|armed| armed.variant != variant);
        self.armed.push(ArmedTimer { variant, due, timer, context });
    }

    /// The armed timers, the one that was armed first in front.
    pub fn armed(&self) -> impl Iterator<Item = &T> {
        self.armed.iter().map(|armed| &armed.timer)
    }

    /// Lets the first armed timer that `is_meant` names run out now; returns whether there is one.
    pub fn run_out(&mut self, is_meant: impl Fn(&T) -> bool) -> bool {
        let found = self.armed.iter_mut().find(|armed| is_meant(&armed.timer));
        found.map(|armed| armed.due = Time(0)).is_some()
    }

    /// When the next timer runs out.
    pub fn next_due(&self) -> Option<Time> {
        self.armed.iter().map(|armed| armed.due).min()
    }

    /// Takes the timers that have run out, the earliest first.
    pub fn take_due(&mut self, now: Time) -> Vec<(TraceContext, T)> {
        if self.next_due().is_none_or(|due| due > now) {
            return Vec::new();
        }
        let mut due: Vec<_> = self.armed.extract_if(.., |armed| armed.due <= now).collect();
        due.sort_by_key(|armed| armed.due);
        due.into_iter().map(|armed| (armed.context, armed.timer)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Bell {
        Small { n: u64 },
        Large { n: u64 },
    }

    #[test]
    fn timers_fire_in_order_and_once() {
        let mut timers = Timers::default();
        timers.arm(Bell::Large { n: 1 }, Time(20), TraceContext::default());
        timers.arm(Bell::Small { n: 2 }, Time(10), TraceContext::default());
        assert_eq!(timers.next_due(), Some(Time(10)));
        let mut rung = |at| timers.take_due(Time(at)).into_iter().map(|(_, bell)| bell).collect::<Vec<_>>();
        assert_eq!(rung(9), []);
        assert_eq!(rung(20), [Bell::Small { n: 2 }, Bell::Large { n: 1 }]);
        assert_eq!(rung(1_000), []);
        assert_eq!(timers.next_due(), None);
    }

    #[test]
    fn timer_that_is_run_out_fires_before_its_time_and_the_others_stay() {
        let mut timers = Timers::default();
        timers.arm(Bell::Large { n: 1 }, Time(20), TraceContext::default());
        timers.arm(Bell::Small { n: 2 }, Time(10), TraceContext::default());
        assert!(timers.run_out(|bell| matches!(bell, Bell::Large { .. })));
        let rung: Vec<_> = timers.take_due(Time(1)).into_iter().map(|(_, bell)| bell).collect();
        assert_eq!((rung, timers.armed().count()), (vec![Bell::Large { n: 1 }], 1));
        assert!(!timers.run_out(|bell| matches!(bell, Bell::Large { .. })), "it is no longer armed");
    }

    #[test]
    fn arming_again_replaces_only_the_timer_of_the_same_variant() {
        let mut timers = Timers::default();
        let context = |n: u64| TraceContext { parent: None, req: Some(n.to_string()) };
        timers.arm(Bell::Small { n: 1 }, Time(1), context(1));
        timers.arm(Bell::Large { n: 2 }, Time(9), context(2));
        timers.arm(Bell::Small { n: 3 }, Time(5), context(3));
        let rung = timers.take_due(Time(1_000));
        assert_eq!(rung, [(context(3), Bell::Small { n: 3 }), (context(2), Bell::Large { n: 2 })]);
    }
}
