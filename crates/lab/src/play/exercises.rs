//! The exercises that are part of the program, in the order in which they are best done.

use super::exercise::Exercise;

const TEXTS: &[&str] = &[
    include_str!("../../res/exercises/01-chosen.txt"),
    include_str!("../../res/exercises/02-two-dead.txt"),
    include_str!("../../res/exercises/03-three-dead.txt"),
    include_str!("../../res/exercises/04-unknown.txt"),
    include_str!("../../res/exercises/05-survives.txt"),
    include_str!("../../res/exercises/06-adopt.txt"),
    include_str!("../../res/exercises/07-free.txt"),
    include_str!("../../res/exercises/08-highest.txt"),
    include_str!("../../res/exercises/09-duel.txt"),
    include_str!("../../res/exercises/10-endless.txt"),
    include_str!("../../res/exercises/11-durable.txt"),
    include_str!("../../res/exercises/12-lost-memory.txt"),
    include_str!("../../res/exercises/13-quorums.txt"),
    include_str!("../../res/exercises/14-once.txt"),
    include_str!("../../res/exercises/15-leader.txt"),
    include_str!("../../res/exercises/16-stale-read.txt"),
    include_str!("../../res/exercises/17-snapshot.txt"),
    include_str!("../../res/exercises/18-blocked.txt"),
];

/// All exercises. A text that is none is a bug, which a test finds.
pub fn all() -> Vec<Exercise> {
    TEXTS.iter().filter_map(|text| Exercise::read(text).ok()).collect()
}

/// The exercise with this name, and its number from 1.
pub fn named(name: &str) -> Option<(usize, Exercise)> {
    all().into_iter().enumerate().find(|(_, exercise)| exercise.name == name).map(|(at, exercise)| (at + 1, exercise))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_an_exercise_with_a_name_of_its_own() {
        for (at, text) in TEXTS.iter().enumerate() {
            assert!(Exercise::read(text).is_ok(), "exercise {}: {}", at + 1, Exercise::read(text).unwrap_err());
        }
        let names: std::collections::BTreeSet<String> = all().into_iter().map(|one| one.name).collect();
        assert_eq!(names.len(), TEXTS.len());
    }
}
