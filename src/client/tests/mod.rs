//! Tests of the client against scripted servers.

mod backups;
mod command_line;
mod fake;
mod honesty;
mod pipeline;
mod recovery;
