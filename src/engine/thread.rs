//! A plain thread for a shard on the portable engine.

use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::thread::{Builder, JoinHandle};

use crate::sys::pin::pin_thread;

/// Starts a thread, on one processor if `cpu` says so, and runs the future that `task` makes there.
/// The twin of [`run_on_glommio`](super::run_on_glommio) for the portable engine, which blocks its thread
/// where it parks: the future must wait for nothing else.
///
/// # Errors
/// When the thread cannot start. That it cannot be pinned is its result.
pub fn run_on_thread<T, F, Task>(
    cpu: Option<usize>,
    name: &str,
    task: Task,
) -> io::Result<JoinHandle<io::Result<T>>>
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
    Task: FnOnce() -> F + Send + 'static,
{
    Builder::new().name(name.to_owned()).spawn(move || {
        if let Some(cpu) = cpu {
            pin_thread(cpu)?;
        }
        match pin!(task()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Ok(value),
            Poll::Pending => Err(io::Error::other("a task on the portable engine waited for a waker")),
        }
    })
}
