//! A thread with a glommio executor on it: what a shard on the uring engine runs in.

use std::io;
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};

use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};

use crate::sys::rlimits;

/// Entries of each of glommio's three rings. They carry a shard's waits and nothing else.
const EXECUTOR_RING_DEPTH: usize = 64;

/// Storage memory that glommio registers with each of its rings, in bytes: the least it takes. Its
/// default of 10 MiB a shard would not fit the usual memlock limit of 8 MiB.
const EXECUTOR_IO_MEMORY: usize = 64 << 10;

/// Limit of locked memory below which glommio does not start, in bytes.
const EXECUTOR_MEMLOCK_MIN: u64 = 512 << 10;

/// Starts a thread, on one processor if `cpu` says so, and runs the future that `task` makes there.
/// Returns once the executor is up; from then on the thread's result is `Ok`.
///
/// # Errors
/// When the thread or its executor cannot start, with the cause and the cure in the text.
pub fn run_on_glommio<T, F, Task>(
    cpu: Option<usize>,
    name: &str,
    task: Task,
) -> io::Result<JoinHandle<io::Result<T>>>
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
    Task: FnOnce() -> F + Send + 'static,
{
    let (up, is_up) = mpsc::sync_channel(1);
    let thread = Builder::new().name(name.to_owned()).spawn(move || {
        let executor = executor(cpu)?;
        // The starter waits for this; if it is gone, so is the wish to know.
        let _starter = up.send(());
        Ok(executor.run(task()))
    })?;
    if is_up.recv().is_ok() {
        return Ok(thread);
    }
    match thread.join() {
        Ok(Err(error)) => Err(error),
        _ => Err(io::Error::other(format!("the thread {name} ended before its executor was up"))),
    }
}

fn executor(cpu: Option<usize>) -> io::Result<LocalExecutor> {
    let memlock = rlimits::memlock()?;
    if memlock < EXECUTOR_MEMLOCK_MIN {
        let (found, needed) = (memlock >> 10, EXECUTOR_MEMLOCK_MIN >> 10);
        return Err(io::Error::other(format!(
            "the memlock limit is {found} KiB, glommio needs {needed} KiB; run ulimit -l {needed} or set \
             LimitMEMLOCK=64M, or use --io portable"
        )));
    }
    let placement = cpu.map_or(Placement::Unbound, Placement::Fixed);
    LocalExecutorBuilder::new(placement)
        .io_memory(EXECUTOR_IO_MEMORY)
        .ring_depth(EXECUTOR_RING_DEPTH)
        .make()
        .map_err(|e| io::Error::other(format!("glommio did not start: {e}; use --io portable")))
}
