//! Says "maybe changed": whatever way a file was saved, somebody looks soon after. Does not know what a change means.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use notify::{RecursiveMode, Watcher as _};

/// After a hint: an editor may still be writing.
const SETTLE: Duration = Duration::from_millis(150);
/// Without a hint: network disks and symlink swaps give none.
const POLL: Duration = Duration::from_secs(5);

pub struct Watch {
    stop: Arc<AtomicBool>,
    wake: std::sync::mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Watch {
    /// Calls `look` whenever something in the folders may have changed; `folders` is asked again each time.
    pub fn start(folders: impl Fn() -> Vec<PathBuf> + Send + 'static, look: impl Fn() + Send + 'static) -> Self {
        let (wake, hints) = channel::<()>();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, hint) = (stop.clone(), wake.clone());
        let run = move || {
            let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                if !event.is_ok_and(|event| event.kind.is_access()) {
                    let _ = hint.send(());
                }
            })
            .inspect_err(|error| tracing::warn!(%error, "files are polled every 5 s: the system watches none"))
            .ok();
            let mut watched = HashSet::new();
            while !stopped.load(Relaxed) {
                for folder in folders() {
                    if let Some(watcher) = &mut watcher
                        && !watched.contains(&folder)
                        && watcher.watch(&folder, RecursiveMode::NonRecursive).is_ok()
                    {
                        watched.insert(folder);
                    }
                }
                match hints.recv_timeout(POLL) {
                    Ok(()) => while hints.recv_timeout(SETTLE).is_ok() && !stopped.load(Relaxed) {},
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                if !stopped.load(Relaxed) {
                    look();
                }
            }
        };
        let thread = std::thread::Builder::new().name("watch".into()).spawn(run).expect("the system starts threads");
        Self { stop, wake, thread }
    }

    pub fn stop(self) {
        self.stop.store(true, Relaxed);
        let _ = self.wake.send(());
        let _ = self.thread.join();
    }
}
