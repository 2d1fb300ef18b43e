//! What a plugin may cost. Set by the operator, the same for every plugin of a host.

use clap::Args;

/// The defaults are safe for a host that runs plugins of people it does not know.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(next_help_heading = "Limits of plugins")]
pub struct Limits {
    /// Milliseconds of its own running that a plugin has for one call (at most 1,024 rows, or one judgement)
    #[arg(long = "plugin-deadline-ms", env = "TIDEMARK_PLUGIN_DEADLINE_MS", default_value_t = Limits::default().deadline_ms)]
    #[arg(value_parser = clap::value_parser!(u32).range(5..=60_000))]
    pub deadline_ms: u32,

    /// Milliseconds that a plugin has to start, describe itself and read its settings and files
    #[arg(long = "plugin-configure-deadline-ms", env = "TIDEMARK_PLUGIN_CONFIGURE_DEADLINE_MS", default_value_t = Limits::default().configure_deadline_ms)]
    #[arg(value_parser = clap::value_parser!(u32).range(5..=60_000))]
    pub configure_deadline_ms: u32,

    /// Bytes of memory of one instance; a host holds one instance a shard of each enricher
    #[arg(long = "plugin-memory-bytes-max", env = "TIDEMARK_PLUGIN_MEMORY_BYTES_MAX", default_value_t = Limits::default().memory_bytes_max)]
    #[arg(value_parser = clap::value_parser!(u32).range(1 << 16..))]
    pub memory_bytes_max: u32,

    /// Bytes that one call may hand back to the host
    #[arg(long = "plugin-output-bytes-max", env = "TIDEMARK_PLUGIN_OUTPUT_BYTES_MAX", default_value_t = Limits::default().output_bytes_max)]
    #[arg(value_parser = clap::value_parser!(u32).range(1 << 16..))]
    pub output_bytes_max: u32,

    /// Bytes of a plugin's .wasm
    #[arg(long = "plugin-component-bytes-max", env = "TIDEMARK_PLUGIN_COMPONENT_BYTES_MAX", default_value_t = Limits::default().component_bytes_max)]
    pub component_bytes_max: u64,

    /// Bytes of one file granted to a plugin
    #[arg(long = "plugin-file-bytes-max", env = "TIDEMARK_PLUGIN_FILE_BYTES_MAX", default_value_t = Limits::default().file_bytes_max)]
    pub file_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            deadline_ms: 100,
            configure_deadline_ms: 2_000,
            memory_bytes_max: 64 << 20,
            output_bytes_max: 4 << 20,
            component_bytes_max: 64 << 20,
            file_bytes_max: 32 << 20,
        }
    }
}

/// Failed calls in a row after which a plugin is not called again.
pub const FAILURES_IN_A_ROW_MAX: u32 = 5;

/// A log line of a plugin is cut here; so are its error messages and its description.
pub const LOG_LINE_BYTES_MAX: usize = 4 << 10;
pub const LOG_LINES_PER_SECOND_MAX: u32 = 100;

/// Input handed over in one call; more rows, or longer ones, make more calls.
pub const INPUT_BYTES_MAX: usize = 1 << 20;

/// Idle instances kept of one detector; more are made while more are needed at once.
pub const IDLE_DETECTORS_MAX: usize = 4;

/// How far back a detector may ask to see.
pub const LOOKBACK_DAYS_MAX: i64 = 31;

/// Elements of all function tables of one instance.
pub const TABLE_ELEMENTS_MAX: usize = 100_000;

/// Core modules, memories and tables inside one component: components made from Python have about 30 of the first.
pub const CORE_INSTANCES_PER_COMPONENT_MAX: u32 = 64;
pub const MEMORIES_PER_COMPONENT_MAX: u32 = 4;
pub const TABLES_PER_COMPONENT_MAX: u32 = 32;

/// Stack of a plugin; it lives on the calling thread's own.
pub const STACK_BYTES_MAX: usize = 512 << 10;

/// Compiled components kept, in use or not, so that an undo or a repeated check does not compile again.
pub const COMPILED_COMPONENTS_MAX: usize = 32;

/// Files that one plugin may be granted.
pub const FILES_MAX: usize = 16;
