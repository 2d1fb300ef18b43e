//! The machine that plugins run in: one engine, the ticker that deadlines are counted with, compiling. Knows no files, no
//! settings and no kinds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::Duration;

use wasmtime::component::{Component, HasSelf, InstancePre, Linker};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::abi::v0_1;
use super::guest::Guest;
use super::limits::{self, Limits};

/// Deadlines are counted in ticks.
pub const TICK_MS: u32 = 5;

/// The machine cannot run plugins at all.
#[derive(Debug, thiserror::Error)]
#[error("the sandbox of plugins does not start: {0}")]
pub struct StartError(String);

pub struct Sandbox {
    pub engine: Engine,
    pub limits: Limits,
    pub ticks: Arc<AtomicU64>,
    linker: Linker<Guest>,
    /// Dropped with the sandbox, and the ticker ends.
    _ticker: mpsc::Sender<()>,
}

impl Sandbox {
    /// `shards`: how many threads call enrichers; decides how many instances there can be at once.
    pub fn new(limits: Limits, shards: usize) -> Result<Self, StartError> {
        let broken = |error: wasmtime::Error| StartError(format!("{error:#}"));
        let engine = Engine::new(&config(&limits, shards)).map_err(broken)?;
        let mut linker = Linker::new(&engine);
        v0_1::enricher::EnricherPlugin::add_to_linker::<_, HasSelf<_>>(&mut linker, |guest| guest).map_err(broken)?;
        let ticks = Arc::new(AtomicU64::new(0));
        let (ticker, ended) = mpsc::channel();
        let thread = std::thread::Builder::new().name("plugin-ticker".into());
        let spawned = thread.spawn({
            let (engine, ticks) = (engine.clone(), ticks.clone());
            move || tick(&engine, &ticks, &ended)
        });
        spawned.map_err(|error| StartError(error.to_string()))?;
        Ok(Self { engine, limits, ticks, linker, _ticker: ticker })
    }

    /// Machine code of a component, checked to be one.
    pub fn compile(&self, bytes: &[u8]) -> wasmtime::Result<Component> {
        Component::from_binary(&self.engine, bytes)
    }

    /// Ties a component's imports to what the host offers.
    pub fn link(&self, component: &Component) -> wasmtime::Result<InstancePre<Guest>> {
        self.linker.instantiate_pre(component)
    }
}

fn tick(engine: &Engine, ticks: &AtomicU64, ended: &mpsc::Receiver<()>) {
    while ended.recv_timeout(Duration::from_millis(TICK_MS.into())) == Err(mpsc::RecvTimeoutError::Timeout) {
        engine.increment_epoch();
        ticks.fetch_add(1, Relaxed);
    }
}

fn config(limits: &Limits, shards: usize) -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true);
    config.max_wasm_stack(limits::STACK_BYTES_MAX);
    // Equal input, equal output, on every machine.
    config.cranelift_nan_canonicalization(true);
    config.relaxed_simd_deterministic(true);
    config.memory_reservation(limits.memory_bytes_max.into());
    config.wasm_backtrace_max_frames(None);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(limits, shards)));
    config
}

/// Room for every enricher on every shard, twice over while a reload swaps them, and for detectors. The pool only reserves
/// addresses; memory is taken as plugins touch it.
fn pool(limits: &Limits, shards: usize) -> PoolingAllocationConfig {
    let instances = u32::try_from(shards).unwrap_or(u32::MAX).saturating_mul(16).clamp(64, 1024);
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(instances)
        .total_core_instances(instances * 8)
        .total_memories(instances)
        .total_tables(instances * 4)
        .max_core_instances_per_component(limits::CORE_INSTANCES_PER_COMPONENT_MAX)
        .max_memories_per_component(limits::MEMORIES_PER_COMPONENT_MAX)
        .max_tables_per_component(limits::TABLES_PER_COMPONENT_MAX)
        .max_tables_per_module(limits::TABLES_PER_COMPONENT_MAX)
        .max_memory_size(limits.memory_bytes_max as usize)
        .table_elements(limits::TABLE_ELEMENTS_MAX);
    pool
}
