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

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    enum Bell {
        Small { n: u64 },
        Large { n: u64 },
        Late,
    }

    impl Timed for Bell {
        fn delay_ms(&self) -> RangeInclusive<u64> {
            match *self {
                Bell::Small { .. } => 10..=10,
                Bell::Large { .. } => 20..=20,
                Bell::Late => 50..=90,
            }
        }
    }

    fn timers() -> Timers<Bell> {
        Timers::new(Random::new(1, 1))
    }

    fn rung(timers: &mut Timers<Bell>, at: Instant) -> Vec<Bell> {
        timers.take_due(at).into_iter().map(|(_, bell)| bell).collect()
    }

    #[test]
    fn they_run_out_in_order_and_once() {
        let (mut timers, begun) = (timers(), Instant::now());
        timers.arm(Bell::Large { n: 1 }, Context::default());
        timers.arm(Bell::Small { n: 2 }, Context::default());
        assert!(timers.next_due().is_some_and(|due| due >= begun + Duration::from_millis(10)));
        assert_eq!(rung(&mut timers, begun), []);
        let later = begun + Duration::from_secs(1);
        assert_eq!(rung(&mut timers, later), [Bell::Small { n: 2 }, Bell::Large { n: 1 }]);
        assert_eq!(rung(&mut timers, later), []);
        assert_eq!(timers.next_due(), None);
    }

    #[test]
    fn arming_again_replaces_the_one_of_the_same_variant_only() {
        let (mut timers, begun) = (timers(), Instant::now());
        let context = |n: u64| Context { re: None, req: Some(n.to_string()) };
        timers.arm(Bell::Small { n: 1 }, context(1));
        timers.arm(Bell::Large { n: 2 }, context(2));
        timers.arm(Bell::Small { n: 3 }, context(3));
        let rung = timers.take_due(begun + Duration::from_secs(1));
        assert_eq!(rung, [(context(3), Bell::Small { n: 3 }), (context(2), Bell::Large { n: 2 })]);
    }

    #[test]
    fn delays_are_drawn_from_the_range_by_the_seed() {
        let delays = |seed| {
            let mut timers = Timers::new(Random::new(seed, 1));
            let draw = |_| {
                let before = Instant::now();
                timers.arm(Bell::Late, Context::default());
                timers.next_due().unwrap().duration_since(before).as_millis() as u64
            };
            (0..20).map(draw).collect::<Vec<u64>>()
        };
        let first = delays(1);
        // A slow machine may look at the clock late.
        assert!(first.iter().all(|delay| (50..=95).contains(delay)), "{first:?}");
        assert!(first.iter().max() > first.iter().min(), "{first:?}");
        let differences = first.iter().zip(delays(1)).filter(|(one, other)| one.abs_diff(*other) > 2).count();
        assert!(differences <= 2, "the same seed draws the same delays: {first:?}");
    }
}
