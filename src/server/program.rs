//! The program `paxos-server`: a [`Server`] that runs until a signal ends it.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag::register_conditional_shutdown;
use signal_hook::iterator::Signals;

use super::options::ServerOptions;
use super::server::{Server, StartError};
use crate::host::role_disk::SPACE_RETRY;
use crate::net::allow_many_sockets;

/// How long a start waits for an address in use to become free: its holder may be about to end, like a process that was
/// just killed.
const BIND_PATIENCE: Duration = Duration::from_secs(2);
/// How often a waiting start looks for a signal to stop.
const SIGNAL_LOOK: Duration = Duration::from_millis(50);

/// Runs a server until Ctrl-C or SIGTERM. The error is one sentence for the terminal.
pub fn run(options: ServerOptions) -> Result<(), String> {
    #[cfg(feature = "seeded-bugs")]
    if let Some(bug) = options.bug {
        crate::seeded_bugs::switch_everywhere(bug);
    }
    allow_many_sockets();
    let (signals, is_stopping) = signals().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let ends_on_hangup = options.log_dir.is_none() && std::io::stderr().is_terminal();
    let mut patience = StartPatience::new(options.id, signals);
    let server = match Server::start_with(options, &mut |obstacle| patience.await_change(obstacle)) {
        Ok(server) => server,
        Err(_) if patience.is_told_to_stop => return Ok(()),
        Err(error) => return Err(error.to_string()),
    };
    let mut signals = patience.signals;
    let signal = loop {
        match signals.forever().next() {
            Some(SIGHUP) if !ends_on_hangup => server.reopen_log(),
            signal => break signal.unwrap_or(SIGTERM),
        }
    };
    is_stopping.store(true, Ordering::Relaxed);
    server.end_with_process(match signal {
        SIGINT => "SIGINT",
        SIGHUP => "SIGHUP",
        _ => "SIGTERM",
    });
    Ok(())
}

/// Handles Ctrl-C, SIGTERM and SIGHUP. Once the flag is set, the next Ctrl-C or SIGTERM ends the process at once: an
/// operator who asks twice does not want to wait for a disk that hangs.
fn signals() -> std::io::Result<(Signals, Arc<AtomicBool>)> {
    let is_stopping = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        register_conditional_shutdown(signal, 128 + signal, is_stopping.clone())?;
    }
    Ok((Signals::new([SIGINT, SIGTERM, SIGHUP])?, is_stopping))
}

/// How long a start waits for an address or for disk space.
struct StartPatience {
    server: u8,
    signals: Signals,
    bind_until: Instant,
    /// What the operator was told last.
    told: String,
    /// A signal to stop has arrived.
    is_told_to_stop: bool,
}

impl StartPatience {
    fn new(server: u8, signals: Signals) -> StartPatience {
        let bind_until = Instant::now() + BIND_PATIENCE;
        StartPatience { server, signals, bind_until, told: String::new(), is_told_to_stop: false }
    }

    /// Waits until the start should try again; false if it should not.
    fn await_change(&mut self, obstacle: &StartError) -> bool {
        match obstacle {
            StartError::AddressInUse(_) => Instant::now() < self.bind_until && self.wait(SIGNAL_LOOK),
            StartError::DiskFull(why) => {
                if self.told != *why {
                    eprintln!("server {} waits for disk space and tries again every second: {why}", self.server);
                    self.told.clone_from(why);
                }
                self.wait(SPACE_RETRY)
            }
            StartError::Failed(_) => false,
        }
    }

    /// Waits for `within`; false, and earlier, if a signal to stop arrives.
    fn wait(&mut self, within: Duration) -> bool {
        let end = Instant::now() + within;
        loop {
            if self.signals.pending().any(|signal| signal != SIGHUP) {
                self.is_told_to_stop = true;
                return false;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(SIGNAL_LOOK));
        }
    }
}
