//! A group of threads that end together, and the sockets on which they wait.
//!
//! A server stops by stopping its group: each thread that rests wakes up, each watched socket is shut down, and
//! [`ThreadGroup::join`] waits until no thread is left. No thread looks again and again whether it must end.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use rustix::net::{Shutdown, shutdown};

/// A group of threads.
pub struct ThreadGroup {
    state: Mutex<GroupState>,
    /// Signaled when a thread has ended.
    ended: Condvar,
    stopped: Receiver<Infallible>,
}

struct GroupState {
    /// Dropped when the group stops, which disconnects `stopped`.
    runs: Option<Sender<Infallible>>,
    next: u64,
    /// The names of the threads.
    threads: BTreeMap<u64, String>,
    sockets: BTreeMap<u64, Arc<dyn AsFd + Send + Sync>>,
}

/// Counts a thread in its group until it is dropped.
struct ThreadGuard {
    group: Arc<ThreadGroup>,
    at: u64,
}

/// A socket that is shut down when the group stops, until this guard is dropped.
pub struct WatchedSocket {
    group: Arc<ThreadGroup>,
    at: u64,
}

impl ThreadGroup {
    /// A group without threads.
    pub fn new() -> Arc<ThreadGroup> {
        let (runs, stopped) = bounded(0);
        let (threads, sockets) = (BTreeMap::new(), BTreeMap::new());
        let state = Mutex::new(GroupState { runs: Some(runs), next: 0, threads, sockets });
        Arc::new(ThreadGroup { state, ended: Condvar::new(), stopped })
    }

    /// Starts a thread of the group.
    pub fn spawn(
        self: &Arc<ThreadGroup>,
        name: impl Into<String>,
        run: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        self.start(Builder::new(), name.into(), run)
    }

    /// Starts a thread with a stack of this size, in bytes.
    pub fn spawn_with_stack(
        self: &Arc<ThreadGroup>,
        name: impl Into<String>,
        stack_bytes: usize,
        run: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        self.start(Builder::new().stack_size(stack_bytes), name.into(), run)
    }

    fn start(
        self: &Arc<ThreadGroup>,
        thread: Builder,
        name: String,
        run: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let mut state = self.lock();
        let at = state.number();
        state.threads.insert(at, name.clone());
        drop(state);
        let guard = ThreadGuard { group: self.clone(), at };
        thread.name(name).spawn(move || {
            // Dropped last: when the thread no longer counts, everything that it owned is gone.
            let _guard = guard;
            run();
        })
    }

    /// Shuts a socket down when the group stops, or at once if it has stopped: no thread waits at it any longer. A
    /// listening socket accepts nothing more.
    pub fn watch(self: &Arc<ThreadGroup>, socket: Arc<impl AsFd + Send + Sync + 'static>) -> WatchedSocket {
        let mut state = self.lock();
        if state.runs.is_none() {
            shut_down(&*socket);
        }
        let at = state.number();
        state.sockets.insert(at, socket);
        WatchedSocket { group: self.clone(), at }
    }

    /// Waits; false, and earlier, if the group stops.
    pub fn rest(&self, pause: Duration) -> bool {
        matches!(self.stopped.recv_timeout(pause), Err(RecvTimeoutError::Timeout))
    }

    /// Whether the group stops or has stopped.
    pub fn is_stopping(&self) -> bool {
        self.stopped.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// A channel that disconnects when the group stops, for threads that also wait for something else.
    pub fn stopped(&self) -> &Receiver<Infallible> {
        &self.stopped
    }

    /// Tells all threads to end.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.runs = None;
        state.sockets.values().for_each(|socket| shut_down(&**socket));
    }

    /// Waits until all threads have ended. After the deadline, returns the names of the others.
    pub fn join(&self, deadline: Instant) -> Vec<String> {
        let left = deadline.saturating_duration_since(Instant::now());
        let is_alive = |state: &mut GroupState| !state.threads.is_empty();
        let waited = self.ended.wait_timeout_while(self.lock(), left, is_alive);
        waited.unwrap_or_else(PoisonError::into_inner).0.threads.values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, GroupState> {
        // Every change under this lock is complete.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for ThreadGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ThreadGroup").field("threads", &self.lock().threads).finish_non_exhaustive()
    }
}

impl GroupState {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl Drop for ThreadGuard {
    fn drop(&mut self) {
        self.group.lock().threads.remove(&self.at);
        self.group.ended.notify_all();
    }
}

impl Drop for WatchedSocket {
    fn drop(&mut self) {
        self.group.lock().sockets.remove(&self.at);
    }
}

fn shut_down(socket: &dyn AsFd) {
    // An error is possible if the other end has closed the connection.
    let _ = shutdown(socket.as_fd(), Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn soon() -> Instant {
        Instant::now() + PATIENCE
    }

    #[test]
    fn threads_that_rest_accept_and_read_end_when_the_group_stops() {
        let group = ThreadGroup::new();
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let address = listener.local_addr().unwrap();
        let near = Arc::new(TcpStream::connect(address).unwrap());
        let _far = listener.accept().unwrap();
        let rester = group.clone();
        group.spawn("rests", move || assert!(!rester.rest(PATIENCE * 2))).unwrap();
        let open = group.watch(listener.clone());
        group.spawn("accepts", move || assert!((open, listener.accept()).1.is_err())).unwrap();
        let open = group.watch(near.clone());
        group.spawn("reads", move || assert_eq!((open, (&*near).read(&mut [0]).unwrap()).1, 0)).unwrap();
        let left = group.join(Instant::now());
        assert_eq!(left, ["rests", "accepts", "reads"]);
        assert!(!group.is_stopping());
        group.stop();
        assert!(group.is_stopping());
        assert_eq!(group.join(soon()), [""; 0]);
        assert!(group.lock().sockets.is_empty());
        TcpListener::bind(address).expect("the port is free again");
    }

    #[test]
    fn socket_that_comes_too_late_is_shut_down_at_once() {
        let group = ThreadGroup::new();
        group.stop();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = Arc::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        near.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let _open = group.watch(near.clone());
        assert_eq!((&*near).read(&mut [0]).unwrap(), 0);
        assert!(!group.rest(PATIENCE));
    }

    #[test]
    fn thread_counts_until_all_that_it_owns_is_gone() {
        /// Waits when it is dropped.
        struct Slow(Receiver<()>);
        impl Drop for Slow {
            fn drop(&mut self) {
                let _ = self.0.recv();
            }
        }
        let group = ThreadGroup::new();
        let (go_on, waits) = bounded(0);
        let slow = Slow(waits);
        let thread = group
            .spawn_with_stack("owns", 64 << 10, move || {
                let _ = &slow;
            })
            .unwrap();
        assert_eq!(group.join(Instant::now() + Duration::from_millis(20)), ["owns"]);
        drop(go_on);
        assert_eq!(group.join(soon()), [""; 0]);
        thread.join().unwrap();
    }
}
