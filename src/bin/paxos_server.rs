//! One server of the cluster: `paxos-server --id 1 --cluster res/cluster.toml`.

use std::process::ExitCode;

use clap::Parser;
use paxos_kv::server::{self, Options, tools::Tool};

/// One server of a Paxos replicated key-value store: a proposer, an acceptor and a learner, each in a thread of its own.
#[derive(Parser)]
#[command(
    name = "paxos-server",
    args_override_self = true,
    version,
    after_help = "\
Examples:
  paxos-server --id 1
  paxos-server --id 1 --fail acceptors --seed 7 --log-dir runs/mine --data runs/mine/data/server-1
  RUST_LOG=debug paxos-server --id 1
  paxos-server inspect data/server-1                     what a data folder holds, and its health; changes nothing
  paxos-server restore store.backup --cluster new.toml --data data     data folders of a new cluster, from a backup

It stops on Ctrl-C and SIGTERM. Exit codes: 0 stopped, 1 failure (a sentence says what and why), 2 usage."
)]
struct Cli {
    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    // A thread that panics must not leave a server half alive: whatever it holds is lost as in a crash.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // The terminal may take nothing: then nobody reads the report, and the server must not wait for it.
        let _ = std::thread::Builder::new().spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(500));
            std::process::abort();
        });
        report(panic);
        std::process::abort();
    }));
    let done = match Tool::is_named(std::env::args_os()) {
        true => Tool::parse().run(),
        false => server::run(Cli::parse().options).map(|()| ExitCode::SUCCESS),
    };
    match done {
        Ok(code) => code,
        Err(sentence) => {
            eprintln!("error: {sentence}");
            ExitCode::FAILURE
        }
    }
}
