//! The thread of the checkpointer.

use std::sync::Arc;

use super::context::ServerContext;
use crate::host::RecoveryError;
use crate::host::checkpoints::Checkpointer;
use crate::storage::DataDir;
use crate::storage::disk::Files;

/// Opens the checkpoint of a data directory, and starts the thread.
pub fn start(ctx: &Arc<ServerContext>, data_dir: &DataDir) -> Result<(), RecoveryError> {
    let opened = Checkpointer::open(&ctx.core, data_dir.checkpoint_files()?, data_dir.storage_id());
    let (checkpointer, _) = opened
        .map_err(|error| RecoveryError::of(&error, format!("data directory {}: {error}", data_dir.path().display())))?;
    let of_thread = ctx.clone();
    let spawned = ctx.threads.group.spawn("checkpointer", move || run(&of_thread, checkpointer));
    spawned.map(|_| ()).map_err(|error| RecoveryError::no_thread("checkpointer", &error))
}

fn run<F: Files>(ctx: &ServerContext, mut checkpointer: Checkpointer<F>) {
    while ctx.threads.await_job(checkpointer.has_work()) {
        loop {
            match checkpointer.run_one(&ctx.core, &ctx.threads) {
                Ok(loaded) => loaded.into_iter().for_each(|loaded| ctx.threads.submit(loaded)),
                Err(fatal) => ctx.fatal(&fatal.0),
            }
            if ctx.core.checkpoints.is_empty() {
                break;
            }
        }
    }
}
