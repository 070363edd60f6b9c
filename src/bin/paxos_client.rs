//! `paxos-client`: talks to a cluster. See `paxos-client --help`.

use std::process::ExitCode;

use paxos_kv::storage::disk::outlive_file_size_limit;

fn main() -> ExitCode {
    outlive_file_size_limit();
    paxos_kv::client::cli::main(std::env::args_os())
}
