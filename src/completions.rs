//! What makes a shell complete the words of a program.

use clap::Command;
use clap_complete::{Shell, generate};

/// The script for this shell, to be sourced.
pub fn script(mut command: Command, shell: Shell) -> Vec<u8> {
    let name = command.get_name().to_string();
    let mut script = Vec::new();
    generate(shell, &mut command, name, &mut script);
    script
}
