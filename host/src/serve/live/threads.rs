//! Threads for what dashboards cost: bringing topics up to date, and writing to whoever listens. They come after the threads that
//! take events in and count them: where the processor is short a refresh takes longer, and an acknowledgement does not. Knows
//! nothing of what runs on them.

use thread_priority::{ThreadPriority, ThreadPriorityValue, set_current_thread_priority};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// On Linux their niceness is higher by so much than that of the process: a third of what another thread gets while both want a
/// core, and all of what is left over.
const NICENESS: i32 = 5;
const NICENESS_MAX: i32 = 19;

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

/// Where the system does not say how nice a thread is, they are as all others.
fn step_back() {
    let Some(niceness) = niceness() else { return };
    let value = ThreadPriorityValue::try_from(priority((niceness + NICENESS).min(NICENESS_MAX)));
    if let Ok(value) = value
        && let Err(error) = set_current_thread_priority(ThreadPriority::Crossplatform(value))
    {
        tracing::debug!(?error, "live connections have the priority of all other threads");
    }
}

/// In the middle of what the library takes for this niceness: it spreads -20 to 19 over 99 to 0.
fn priority(niceness: i32) -> u8 {
    (99.0 * (1.0 - (f64::from(niceness) + 20.5) / 39.0)).round().max(0.0) as u8
}

/// This thread's, as Linux says: behind its name in brackets it stands 17th.
fn niceness() -> Option<i32> {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(16)?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn they_step_back() {
        let (tell, told) = std::sync::mpsc::channel();
        let threads = Threads::start();
        let before = niceness();
        let also = tell.clone();
        threads.spawn(async move { tell.send(niceness()).unwrap() });
        threads
            .spawn_blocking(move || std::thread::scope(|scope| drop(scope.spawn(|| also.send(niceness()).unwrap()))));
        assert_eq!(
            [told.recv().unwrap(), told.recv().unwrap()],
            [before.map(|niceness| (niceness + NICENESS).min(NICENESS_MAX)); 2]
        );
        assert_eq!(niceness(), before, "nobody else does");
    }
}
