//! One instance of a plugin: its store with the limits it is held to, what the host offers it, and how a call ends. Knows
//! neither kinds nor settings.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use wasmtime::{ResourceLimiter, Store, Trap, UpdateDeadline};

use super::abi::v0_1::enricher::tidemark::plugin::{host, types};
use super::files::Files;
use super::health::{Failure, FailureKind};
use super::limits::{LOG_LINE_BYTES_MAX, LOG_LINES_PER_SECOND_MAX, TABLE_ELEMENTS_MAX};
use super::sandbox::{Sandbox, TICK_MS};

/// What the store of an instance carries.
pub struct Guest {
    name: Arc<str>,
    files: Arc<Files>,
    log: Arc<LogBudget>,
    /// How many more ticks of running the call has.
    ticks_left: u32,
    memory_bytes: usize,
    memory_bytes_max: usize,
    memory_refused: bool,
    table_elements: usize,
    /// The last error it logged during the call: where a panic's message is.
    complaint: Option<String>,
}

/// A live instance. After a failed call it is dead and must be dropped.
pub struct Instance<B> {
    store: Store<Guest>,
    bindings: B,
}

impl<B> Instance<B> {
    /// `start`: instantiates the component in the store. Runs under the deadline of `configure`.
    pub fn new(
        sandbox: &Sandbox,
        name: &Arc<str>,
        files: &Arc<Files>,
        log: &Arc<LogBudget>,
        start: impl FnOnce(&mut Store<Guest>) -> wasmtime::Result<B>,
    ) -> Result<Self, Failure> {
        let guest = Guest {
            name: name.clone(),
            files: files.clone(),
            log: log.clone(),
            ticks_left: 0,
            memory_bytes: 0,
            memory_bytes_max: sandbox.limits.memory_bytes_max as usize,
            memory_refused: false,
            table_elements: 0,
            complaint: None,
        };
        let mut store = Store::new(&sandbox.engine, guest);
        store.limiter(|guest| guest);
        store.set_hostcall_fuel(sandbox.limits.output_bytes_max as usize);
        // The callback comes once for every tick the plugin was running in. A thread that the machine kept waiting for
        // many ticks is called once for all of them, so a busy machine is not held against the plugin.
        store.epoch_deadline_callback(|mut context| {
            let guest = context.data_mut();
            guest.ticks_left = guest.ticks_left.saturating_sub(1);
            Ok(if guest.ticks_left == 0 { UpdateDeadline::Interrupt } else { UpdateDeadline::Continue(1) })
        });
        let bindings = within(&mut store, sandbox.limits.configure_deadline_ms, start)?;
        Ok(Self { store, bindings })
    }

    /// One call into the plugin under a deadline.
    pub fn call<R>(
        &mut self,
        deadline_ms: u32,
        call: impl FnOnce(&mut Store<Guest>, &B) -> wasmtime::Result<R>,
    ) -> Result<R, Failure> {
        within(&mut self.store, deadline_ms, |store| call(store, &self.bindings))
    }

    /// Bytes of all its memories.
    pub fn memory_bytes(&self) -> usize {
        self.store.data().memory_bytes
    }
}

fn within<R>(
    store: &mut Store<Guest>,
    deadline_ms: u32,
    call: impl FnOnce(&mut Store<Guest>) -> wasmtime::Result<R>,
) -> Result<R, Failure> {
    // One more, since the first tick comes after less than its length.
    let guest = store.data_mut();
    guest.ticks_left = deadline_ms.div_ceil(TICK_MS) + 1;
    (guest.memory_refused, guest.complaint) = (false, None);
    store.set_epoch_deadline(1);
    call(store).map_err(|error| failure(store.data_mut(), deadline_ms, &error))
}

/// What went wrong, in the operator's words.
fn failure(guest: &mut Guest, deadline_ms: u32, error: &wasmtime::Error) -> Failure {
    let trap = error.downcast_ref::<Trap>();
    let cause = error.root_cause().to_string();
    let (kind, message) = if trap == Some(&Trap::Interrupt) {
        (FailureKind::Deadline, format!("ran longer than its deadline of {deadline_ms} ms"))
    } else if guest.memory_refused {
        (FailureKind::Memory, format!("wanted more memory than its {} bytes", guest.memory_bytes_max))
    } else if let Some(trap) = trap {
        (FailureKind::Trap, format!("trapped: {}", trap.to_string().trim_start_matches("wasm trap: ")))
    } else if cause.contains("fuel allocated for hostcalls") {
        (FailureKind::Output, "handed over more bytes in one call than its output ceiling allows".into())
    } else if cause.contains("maximum concurrent") {
        (FailureKind::Start, format!("no room for another instance: {cause}"))
    } else {
        (FailureKind::Shape, format!("answered with something that is not what the interface says: {cause}"))
    };
    match guest.complaint.take() {
        Some(complaint) => Failure { kind, message: format!("{message}; it said: {complaint}") },
        None => Failure { kind, message },
    }
}

impl host::Host for Guest {
    fn log(&mut self, level: host::Level, text: String) {
        let text = one_line(text);
        if self.log.take() {
            let plugin = &*self.name;
            match level {
                host::Level::Debug => tracing::debug!(plugin, "{text}"),
                host::Level::Info => tracing::info!(plugin, "{text}"),
                host::Level::Warn => tracing::warn!(plugin, "{text}"),
                host::Level::Error => tracing::error!(plugin, "{text}"),
            }
        }
        if matches!(level, host::Level::Error) {
            self.complaint = Some(text);
        }
    }

    fn read_file(&mut self, name: String) -> Result<Vec<u8>, String> {
        self.files.read(&name).map(<[u8]>::to_vec)
    }
}

impl types::Host for Guest {}

/// Growth is refused, not trapped: a plugin that can do with less may go on.
impl ResourceLimiter for Guest {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.memory_bytes.saturating_add(desired - current);
        self.memory_refused = total > self.memory_bytes_max;
        if !self.memory_refused {
            self.memory_bytes = total;
        }
        Ok(!self.memory_refused)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.table_elements.saturating_add(desired - current);
        let granted = total <= TABLE_ELEMENTS_MAX;
        if granted {
            self.table_elements = total;
        }
        Ok(granted)
    }
}

/// How many lines a plugin may still log this second; shared by its instances. Seconds are counted in ticks.
pub struct LogBudget {
    ticks: Arc<AtomicU64>,
    second: AtomicU64,
    lines: AtomicU32,
}

impl LogBudget {
    pub fn new(ticks: &Arc<AtomicU64>) -> Self {
        Self { ticks: ticks.clone(), second: AtomicU64::new(0), lines: AtomicU32::new(0) }
    }

    /// The line after the last allowed one is dropped silently, as are all that follow in that second.
    fn take(&self) -> bool {
        let second = self.ticks.load(Relaxed) / u64::from(1_000 / TICK_MS);
        if self.second.swap(second, Relaxed) != second {
            self.lines.store(0, Relaxed);
        }
        self.lines.fetch_add(1, Relaxed) < LOG_LINES_PER_SECOND_MAX
    }
}

/// What a plugin said, for logs and messages: one line that is not too long and tells a terminal nothing.
pub fn one_line(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(LOG_LINE_BYTES_MAX));
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_between_characters_and_stay_lines() {
        assert_eq!(one_line("a\nb\u{1b}[31mc".into()), "a b [31mc");
        let long = "x".to_owned() + &"é".repeat(LOG_LINE_BYTES_MAX);
        assert_eq!(one_line(long).len(), LOG_LINE_BYTES_MAX - 1);
    }

    #[test]
    fn a_hundred_lines_a_second() {
        let ticks = Arc::new(AtomicU64::new(0));
        let budget = LogBudget::new(&ticks);
        for second in 0..3 {
            ticks.store(second * 200 + 199, Relaxed);
            assert_eq!((0..500).filter(|_| budget.take()).count(), 100);
        }
    }
}
