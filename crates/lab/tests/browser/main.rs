//! The picture in a real browser: what it draws is what the lines say, counted twice, in Rust and in the page.
//!
//! Where there is no Chromium these tests say so and pass.

#![allow(clippy::unwrap_used)]

mod chromium;
mod contrast;
mod drawing;
mod lessons;
mod live;
mod play;
mod reading;
mod sample;
#[path = "../../../../tests/support/mod.rs"]
mod support;
