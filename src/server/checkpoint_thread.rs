//! The thread of the checkpointer.

use std::sync::Arc;

use super::context::ServerContext;
use crate::host::RecoveryError;
use crate::host::checkpoints::Checkpointer;
use crate::storage::DataDir;
use crate::storage::disk::Files;

/// Opens the checkpoint of a data folder, and starts the thread.
pub fn start(house: &Arc<ServerContext>, folder: &DataDir) -> Result<(), RecoveryError> {
    let opened = Checkpointer::open(&house.core, folder.checkpoint_files()?, folder.storage_id());
    let (checkpointer, _) = opened
        .map_err(|error| RecoveryError::of(&error, format!("data folder {}: {error}", folder.path().display())))?;
    let (house, name) = (house.clone(), "checkpointer".to_string());
    let spawned = std::thread::Builder::new().name(name).spawn(move || run(&house, checkpointer));
    spawned.map(|_| ()).map_err(|error| RecoveryError::no_thread("checkpointer", &error))
}

fn run<F: Files>(house: &ServerContext, mut checkpointer: Checkpointer<F>) {
    loop {
        house.threads.await_job();
        while !house.core.checkpoints.is_empty() {
            match checkpointer.run_one(&house.core, &house.threads) {
                Ok(loaded) => loaded.into_iter().for_each(|loaded| house.threads.hand_over(loaded)),
                Err(fatal) => house.fatal(&fatal.0),
            }
        }
    }
}
