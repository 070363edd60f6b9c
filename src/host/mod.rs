//! What a server decides, written once: the threads of a real server and the events of the simulator both run this.
//!
//! Nothing here waits, and nothing here knows a clock, a thread, a socket or a file. The caller brings the time; what
//! has to wait (a disk, a socket, a condition) stays with the caller.
//!
//! - [`pending`] is who waits for the outcome of a request, and what they are told.
//! - [`limits`] is how much clients may have under way.
//! - [`queue`] is the mail of a role, [`timers`] what it waits for, and [`time`] the time of a server's clock.

pub mod limits;
pub mod pending;
pub mod queue;
pub mod time;
pub mod timers;

pub use limits::{Connection, Load, Usage};
pub use pending::{Asker, Pending, QueuedReply, Ticket};
pub use queue::{CrashOrder, Item, Lost, Mail};
pub use time::Time;
pub use timers::Timers;
