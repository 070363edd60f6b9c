//! Waits until one of many sockets is ready: with epoll on Linux, with poll elsewhere.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::Timespec;
use rustix::io::Errno;

/// Maximum number of sockets that one call reports.
#[cfg(target_os = "linux")]
const EVENTS_MAX: usize = 256;

/// A set of sockets, each with a number that its events name.
#[cfg(target_os = "linux")]
pub(super) struct SocketSet {
    epoll: std::os::fd::OwnedFd,
    events: Vec<rustix::event::epoll::Event>,
}

#[cfg(target_os = "linux")]
impl SocketSet {
    pub(super) fn new() -> io::Result<SocketSet> {
        use rustix::event::epoll;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(SocketSet { epoll, events: Vec::with_capacity(EVENTS_MAX) })
    }

    /// Watches these sockets under a number, in the place of those watched under it before. Each comes with whether it
    /// shall also be watched for writing.
    pub(super) fn watch<'a>(
        &mut self,
        number: usize,
        sockets: impl Iterator<Item = (BorrowedFd<'a>, bool)>,
    ) -> io::Result<()> {
        use rustix::event::epoll::{self, EventData, EventFlags};
        for (socket, writes) in sockets {
            let flags = if writes { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            let data = EventData::new_u64(number as u64);
            // A closed socket needs no removal: the kernel has done it.
            match epoll::add(&self.epoll, socket, data, flags) {
                Err(Errno::EXIST) => epoll::modify(&self.epoll, socket, data, flags)?,
                other => other?,
            }
        }
        Ok(())
    }

    /// Waits for at most this time. Returns the numbers of the sockets that are ready.
    pub(super) fn wait(&mut self, at_most: Duration) -> io::Result<Vec<usize>> {
        let timeout = Timespec::try_from(at_most).ok();
        self.events.clear();
        let space = rustix::buffer::spare_capacity(&mut self.events);
        match rustix::event::epoll::wait(&self.epoll, space, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(self.events.iter().map(|event| event.data.u64() as usize).collect()),
            Err(error) => Err(error.into()),
        }
    }
}

/// A set of sockets, each with a number that its events name.
#[cfg(not(target_os = "linux"))]
#[derive(Default)]
pub(super) struct SocketSet {
    /// By number, the watched sockets. The file descriptors are duplicates: the owner may close its own at any time.
    sockets: std::collections::BTreeMap<usize, Vec<(std::os::fd::OwnedFd, bool)>>,
}

#[cfg(not(target_os = "linux"))]
impl SocketSet {
    pub(super) fn new() -> io::Result<SocketSet> {
        Ok(SocketSet::default())
    }

    /// Watches these sockets under a number, in the place of those watched under it before. Each comes with whether it
    /// shall also be watched for writing.
    pub(super) fn watch<'a>(
        &mut self,
        number: usize,
        sockets: impl Iterator<Item = (BorrowedFd<'a>, bool)>,
    ) -> io::Result<()> {
        let owned = sockets.map(|(socket, writes)| Ok((socket.try_clone_to_owned()?, writes)));
        self.sockets.insert(number, owned.collect::<io::Result<_>>()?);
        Ok(())
    }

    /// Waits for at most this time. Returns the numbers of the sockets that are ready.
    pub(super) fn wait(&mut self, at_most: Duration) -> io::Result<Vec<usize>> {
        use rustix::event::{PollFd, PollFlags, poll};
        let timeout = Timespec::try_from(at_most).ok();
        let all = || self.sockets.iter().flat_map(|(number, sockets)| sockets.iter().map(move |one| (*number, one)));
        let mut polled: Vec<PollFd<'_>> = all()
            .map(|(_, (socket, writes))| {
                PollFd::new(socket, if *writes { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN })
            })
            .collect();
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = all().zip(&polled).filter(|(_, one)| !one.revents().is_empty());
        let mut numbers: Vec<usize> = ready.map(|((number, _), _)| number).collect();
        numbers.dedup();
        Ok(numbers)
    }
}
