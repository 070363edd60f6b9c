//! Ctrl-C and SIGTERM: what is under way ends at once with what is known of it, so that nobody has to guess.
//!
//! A thread hears the signal. If the main thread waits for a reply, its client ends the request as if its time was up,
//! and the usual sentence says whether it may be applied. If nothing is under way, the process ends there and then.

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

/// So long the main thread may take to say how its request has ended.
const GRACE: Duration = Duration::from_secs(3);
const UNKNOWN: &str = "interrupted: outcome unknown: what was under way may still be applied";

/// Hears signals for a program; one that nobody has told to listen hears nothing.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Option<Arc<SignalState>>);

#[derive(Debug, Default)]
struct SignalState {
    /// What the client looks at.
    stop: Arc<AtomicBool>,
    /// The signal that came, and 0 before.
    signal: Arc<AtomicUsize>,
    state: Mutex<InterruptState>,
}

#[derive(Debug, Default)]
struct InterruptState {
    listens: bool,
    /// Something is under way that ends by itself once `stop` is set.
    is_busy: bool,
}

impl Interrupt {
    /// One that will hear, once it listens. A process needs one at most.
    pub fn of_this_process() -> Interrupt {
        Interrupt(Some(Arc::default()))
    }

    /// Takes signals from now on. If one comes while nothing is under way that ends by itself, `parting` is said, if it
    /// is anything, and the process ends.
    pub fn listen(&self, parting: &'static str, printer: &Arc<Printer>) -> io::Result<()> {
        let Some(heard) = &self.0 else { return Ok(()) };
        if std::mem::replace(&mut heard.state().listens, true) {
            return Ok(());
        }
        for signal in [SIGINT, SIGTERM] {
            // Who sends a second one does not want to wait for the end of the request either. In this order: the first
            // must not find the flag set.
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
                // With the lock held: nothing begins any more.
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

    /// What the clients look at whose requests end once it is set.
    pub fn flag(&self) -> Option<Arc<AtomicBool>> {
        self.0.as_ref().map(|heard| heard.stop.clone())
    }

    /// Something begins that ends by itself when a signal comes, and then says how.
    pub fn begin(&self) {
        self.set_busy(true);
    }

    /// It has ended, and that was said.
    pub fn end(&self) {
        self.set_busy(false);
    }

    fn set_busy(&self, busy: bool) {
        if let Some(heard) = &self.0 {
            heard.state().is_busy = busy;
        }
    }

    /// The signal that has come, if one has.
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
