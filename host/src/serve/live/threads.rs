//! Threads for what dashboards cost: bringing topics up to date, and writing to whoever listens. They come after the threads that
//! take events in and count them: where the processor is short a refresh takes longer, and an acknowledgement does not. Knows
//! nothing of what runs on them.

use thread_priority::{ThreadPriority, ThreadPriorityValue, set_current_thread_priority};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// Of 0 to 99: on Linux a niceness of 5, that is a third of what another thread gets while both want a core, and all of what is
/// left over.
const PRIORITY: u8 = 34;

/// A runtime that does not wait for its tasks when it is dropped, wherever that is.
pub struct Threads(Option<Runtime>);

impl Threads {
    pub fn start() -> Self {
        let runtime = Builder::new_multi_thread().thread_name("live").on_thread_start(step_back).enable_all().build();
        Self(Some(runtime.expect("the system starts threads")))
    }

    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.0 {
            runtime.spawn(task);
        }
    }

    /// Threads that `work` starts have the same priority.
    pub fn spawn_blocking(&self, work: impl FnOnce() + Send + 'static) -> Option<JoinHandle<()>> {
        self.0.as_ref().map(|runtime| runtime.spawn_blocking(work))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

fn step_back() {
    let priority = ThreadPriorityValue::try_from(PRIORITY).map(ThreadPriority::Crossplatform);
    // Refused where the whole process is behind others already, or where the system has no such thing.
    if let Ok(priority) = priority
        && let Err(error) = set_current_thread_priority(priority)
    {
        tracing::debug!(?error, "live connections have the priority of all other threads");
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn they_step_back() {
        let niceness = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            // Behind the name in brackets it is the 17th.
            stat.rsplit(") ").next().unwrap().split(' ').nth(16).unwrap().parse::<i32>().unwrap()
        };
        let (tell, told) = std::sync::mpsc::channel();
        let threads = Threads::start();
        let before = niceness();
        let also = tell.clone();
        threads.spawn(async move { tell.send(niceness()).unwrap() });
        threads
            .spawn_blocking(move || std::thread::scope(|scope| drop(scope.spawn(|| also.send(niceness()).unwrap()))));
        assert_eq!([told.recv().unwrap(), told.recv().unwrap()], [before.max(5); 2]);
        assert_eq!(niceness(), before, "nobody else does");
    }
}
