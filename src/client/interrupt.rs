//! Ctrl-C and SIGTERM: requests in flight end at once, and the program reports what is known of their outcome.
//!
//! A separate thread receives the signal. If the main thread waits for a reply, its client ends the request as if its
//! time were up. The usual message then says whether the request may be applied. If no request is in flight, the
//! process exits at once.

use std::io;
use std::process;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use super::printer::Printer;

/// Maximum time for the main thread to report how its request ended; then the process exits.
const GRACE: Duration = Duration::from_secs(3);
const UNKNOWN: &str = "interrupted: outcome unknown. A request in flight may still be applied";

/// Handles the signals of a program. Until `listen` is called, it ignores them.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Option<Arc<SignalState>>);

#[derive(Debug, Default)]
struct SignalState {
    /// The flag that ends the client's requests.
    stop: Arc<AtomicBool>,
    /// The number of the received signal; 0 before.
    signal: Arc<AtomicUsize>,
    state: Mutex<InterruptState>,
}

#[derive(Debug, Default)]
struct InterruptState {
    listens: bool,
    /// A request is in flight that ends by itself once `stop` is set.
    is_busy: bool,
}

impl Interrupt {
    /// A handler that is not listening yet. A process needs at most one.
    pub fn of_this_process() -> Interrupt {
        Interrupt(Some(Arc::default()))
    }

    /// Starts to handle signals. If a signal arrives while no request is in flight, the process prints `parting`,
    /// unless empty, and exits.
    pub fn listen(&self, parting: &'static str, printer: &Arc<Printer>) -> io::Result<()> {
        let Some(heard) = &self.0 else { return Ok(()) };
        if std::mem::replace(&mut heard.state().listens, true) {
            return Ok(());
        }
        for signal in [SIGINT, SIGTERM] {
            // A second signal exits at once, without waiting for the request. This action is registered first, because
            // the first signal must not find the flag set.
            flag::register_conditional_shutdown(signal, 128 + signal, heard.stop.clone())?;
            flag::register_usize(signal, heard.signal.clone(), signal as usize)?;
            flag::register(signal, heard.stop.clone())?;
        }
        let (heard, printer) = (heard.clone(), printer.clone());
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        thread::spawn(move || {
            let Some(signal) = signals.forever().next() else { return };
            let state = heard.state();
            if !state.is_busy {
                // The lock is held until the process exits, so no new request begins.
                if !parting.is_empty() {
                    printer.warn(parting);
                }
                process::exit(128 + signal);
            }
            drop(state);
            thread::sleep(GRACE);
            printer.warn(UNKNOWN);
            process::exit(128 + signal);
        });
        Ok(())
    }

    /// The flag that ends the requests of clients once it is set.
    pub fn flag(&self) -> Option<Arc<AtomicBool>> {
        self.0.as_ref().map(|heard| heard.stop.clone())
    }

    /// Marks that a request begins which ends by itself on a signal and then reports its result.
    pub fn begin(&self) {
        self.set_busy(true);
    }

    /// Marks that the request has ended and its result was reported.
    pub fn end(&self) {
        self.set_busy(false);
    }

    fn set_busy(&self, busy: bool) {
        if let Some(heard) = &self.0 {
            heard.state().is_busy = busy;
        }
    }

    /// The received signal, if there was one.
    pub fn signal(&self) -> Option<u8> {
        let signal = self.0.as_ref()?.signal.load(Ordering::SeqCst);
        u8::try_from(signal).ok().filter(|signal| *signal > 0)
    }
}

impl SignalState {
    fn state(&self) -> MutexGuard<'_, InterruptState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
