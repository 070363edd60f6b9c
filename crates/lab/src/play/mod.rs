//! Play: the simulator by hand. The reader is the network, and decides which message arrives next.
//!
//! - [`choice`]: what can be done next, as texts and as the codes of a link.
//! - [`table`]: a cluster in which choices are played; [`message`] says what is under way.
//! - [`exercise`] reads the exercises, and [`predicate`] their goals, which [`facts`] evaluates. [`votes`] says what can
//!   yet be chosen.
//! - [`game`] plays an exercise; [`story`] tells what each step did, and [`view`] is everything that a page shows.

pub mod choice;
pub mod exercise;
pub mod exercises;
pub mod export;
pub mod facts;
pub mod game;
pub mod message;
pub mod page;
pub mod play_command;
pub mod predicate;
pub mod search;
pub mod server;
pub mod story;
pub mod table;
pub mod terminal;
#[cfg(test)]
mod tests;
pub mod view;
mod view_text;
pub mod votes;
