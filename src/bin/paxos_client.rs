//! `paxos-client`: talks to a cluster. See `paxos-client --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    paxos_kv::client::cli::main(std::env::args_os())
}
