//! The embedded store below the data folder: history, the hot store's checkpoint, and small things kept by key.
//!
//! One fjall database, so that a checkpoint is one atomic batch. Knows the stored forms; not what a metric means.

mod checkpoint;
mod history;
mod load;
#[cfg(test)]
mod tests;

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use fjall::config::CompressionPolicy;
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::StoreError;
pub use checkpoint::Checkpoint;
pub use history::{HOURS_KEPT_DAYS, History, MINUTES_KEPT_DAYS};

/// Of the data folder as a whole. A newer one is refused; an older one would be migrated here.
pub const FORMAT: u32 = 1;
const FORMAT_FILE: &str = "format";
const LOCK_FILE: &str = "lock";
const DATABASE_FOLDER: &str = "state";

const CACHE_BYTES: u64 = 32 << 20;
const MEMTABLE_BYTES: u64 = 16 << 20;
const JOURNAL_BYTES_MAX: u64 = 128 << 20;

pub struct Embedded {
    database: Database,
    history: Arc<History>,
    /// The checkpoint of the hot store.
    hot: Keyspace,
    meta: Keyspace,
    /// One checkpoint at a time.
    checkpointing: Mutex<()>,
    /// Held open: a second host on the folder is refused.
    _lock: File,
}

impl Embedded {
    /// Opens what is in the folder, or begins.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(folder)?;
        let lock = lock(folder)?;
        check_format(folder)?;
        let database = Database::builder(folder.join(DATABASE_FOLDER))
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES_MAX)
            .worker_threads(1)
            .open()
            .map_err(|error| match error {
                fjall::Error::Locked => StoreError::Locked { folder: folder.to_owned() },
                other => engine(other),
            })?;
        let keyspace = |name| database.keyspace(name, options).map_err(engine);
        let history = Arc::new(History::new(database.clone(), keyspace("history")?));
        let (hot, meta) = (keyspace("hot")?, keyspace("meta")?);
        Ok(Self { database, history, hot, meta, checkpointing: Mutex::new(()), _lock: lock })
    }

    pub fn history(&self) -> Arc<History> {
        self.history.clone()
    }

    /// What was put under this key.
    pub fn meta_get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.meta.get(key).map_err(engine)?.map(|value| value.to_vec()))
    }

    /// Durable when it returns.
    pub fn meta_put(&self, key: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.meta.insert(key, bytes).map_err(engine)?;
        self.database.persist(PersistMode::SyncAll).map_err(engine)
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> Result<u64, StoreError> {
        self.database.disk_space().map_err(engine)
    }
}

/// Values are compressed already.
fn options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .data_block_compression_policy(CompressionPolicy::all(CompressionType::None))
        .max_memtable_size(MEMTABLE_BYTES)
}

fn engine(error: fjall::Error) -> StoreError {
    match error {
        fjall::Error::Io(error) => StoreError::Io(error),
        other => StoreError::Engine(format!("{other:?}")),
    }
}

fn lock(folder: &Path) -> Result<File, StoreError> {
    let file = File::options().create(true).truncate(false).write(true).open(folder.join(LOCK_FILE))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked { folder: folder.to_owned() }),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

fn check_format(folder: &Path) -> Result<(), StoreError> {
    let path = folder.join(FORMAT_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse() {
            Ok(FORMAT) => Ok(()),
            Ok(found) => Err(StoreError::Format { found, known: FORMAT }),
            Err(_) => Err(StoreError::Corrupt(format!("{} does not hold a number", path.display()))),
        },
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        Err(_) if folder.join(DATABASE_FOLDER).exists() => Err(StoreError::Corrupt(format!(
            "{} holds state, but its file `{FORMAT_FILE}` is missing",
            folder.display()
        ))),
        Err(_) => write_format(folder, path),
    }
}

/// Whole or not at all, and before anything that it speaks for.
fn write_format(folder: &Path, path: PathBuf) -> Result<(), StoreError> {
    let temporary = folder.join("format.new");
    let mut file = File::create(&temporary)?;
    writeln!(file, "{FORMAT}")?;
    file.sync_all()?;
    fs::rename(temporary, path)?;
    File::open(folder)?.sync_all()?;
    Ok(())
}
