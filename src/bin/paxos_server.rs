//! One server of the cluster: `paxos-server --id 1 --cluster res/cluster.toml`.

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use paxos_kv::server::{self, ServerOptions, tools::Tool};
use paxos_kv::storage::disk::outlive_file_size_limit;

/// One server of a Paxos replicated key-value store: a proposer, an acceptor and a learner, each in its own
/// thread.
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
  paxos-server check --id 1                      check whether a start with these options would succeed; start nothing
  paxos-server inspect data/server-1             show what a data directory contains and its health; change nothing
  paxos-server restore store.backup --cluster new.toml --data data    create the data of a new cluster
  paxos-server forget data/server-1 --peer 3     accept a new data directory of server 3; the old one is lost
  paxos-server audit runs/latest                 prove a run again, from its log lines alone
  paxos-server report runs/latest                show what a run demonstrates, with the log lines that show it
  paxos-server logs runs/latest --req c1-5       print the lines of one request, and the crashes around it
  paxos-server logs runs/latest --slot 7 --columns    print the lines of one slot, one column for each server
  paxos-server timeline runs/latest -o run.html  draw a run as one page for a browser
  paxos-server --id 1 --http 127.0.0.1:7301      serve a page that shows the cluster
  source <(paxos-server completions bash)

The server stops on Ctrl-C or SIGTERM. On SIGHUP it reopens its log file.
Exit codes: 0 stopped, 1 failure (stderr says what failed and why), 2 usage;
audit and report: 0 proved, 6 not provable because log lines are missing, 7 a rule was broken."
)]
struct ServerCli {
    #[command(flatten)]
    options: ServerOptions,
}

/// Handles `paxos-server completions bash`: prints the script that completes the options in a shell. Otherwise a server
/// takes options only.
fn completions() -> Option<ExitCode> {
    let mut words = std::env::args().skip(1);
    if words.next()? != "completions" {
        return None;
    }
    let shell = words.next().and_then(|shell| shell.parse().ok()).filter(|_| words.next().is_none());
    let Some(shell) = shell else {
        eprintln!("error: completions needs the name of a shell. Next: paxos-server completions bash (or zsh, fish)");
        return Some(ExitCode::from(2));
    };
    let tools = Tool::command();
    let command = ServerCli::command().subcommands(tools.get_subcommands().cloned());
    let script = paxos_kv::completions::script(command, shell);
    let written = std::io::Write::write_all(&mut std::io::stdout(), &script);
    Some(if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn main() -> ExitCode {
    // A panic in one thread must end the whole server: what it holds is lost as in a crash.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // The terminal may accept nothing, and the server must not wait for it.
        let _ = std::thread::Builder::new().spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(500));
            std::process::abort();
        });
        report(panic);
        std::process::abort();
    }));
    outlive_file_size_limit();
    if let Some(code) = completions() {
        return code;
    }
    let done = match Tool::is_named(std::env::args_os()) {
        true => Tool::parse().run(),
        false => server::run(ServerCli::parse().options).map(|()| ExitCode::SUCCESS),
    };
    match done {
        Ok(code) => code,
        Err(sentence) => {
            eprintln!("error: {sentence}");
            ExitCode::FAILURE
        }
    }
}
