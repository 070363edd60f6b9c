//! The client against servers that do as they are told.

mod backups;
mod command_line;
mod fake;
mod honesty;
mod pipeline;
mod recovery;
