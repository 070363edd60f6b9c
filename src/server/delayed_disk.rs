//! A disk with a delay, to measure the cost of a slow disk.

use std::thread;
use std::time::Duration;

use crate::host::role_disk::RoleDisk;
use crate::role::StableStore;

/// A role's disk, with a delay after each commit.
pub struct Slowed<D> {
    /// The disk.
    pub disk: D,
    /// The delay.
    pub by: Option<Duration>,
}

impl<Record, D: StableStore<Record>> StableStore<Record> for Slowed<D> {
    type Error = D::Error;

    fn commit(&mut self, records: &[Record]) -> Result<(), D::Error> {
        self.disk.commit(records)?;
        self.by.into_iter().for_each(thread::sleep);
        Ok(())
    }
}

impl<Record, D: RoleDisk<Record>> RoleDisk<Record> for Slowed<D> {
    fn group_max_bytes(&self) -> usize {
        self.disk.group_max_bytes()
    }

    fn has_space(&self) -> bool {
        self.disk.has_space()
    }

    fn retry_space(&mut self) {
        self.disk.retry_space();
    }

    fn could_shed_more(&mut self) -> bool {
        self.disk.could_shed_more()
    }

    fn is_full(error: &D::Error) -> bool {
        D::is_full(error)
    }
}
