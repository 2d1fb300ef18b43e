//! What the host offers a plugin: its log and the files it was granted. In a native build (unit tests) the log goes to
//! standard error and files come from where the test says ([`crate::testing`]).

use std::fmt;

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// For the plugin's author.
    Debug,
    /// Worth knowing.
    Info,
    /// Something is not as it should be, the plugin goes on.
    Warn,
    /// The plugin cannot do its work.
    Error,
}

/// Writes one line to the host's log. Cut at 4 KiB; at most 100 lines a second are kept.
/// [`debug!`](crate::debug), [`info!`](crate::info), [`warn!`](crate::warn) and [`error!`](crate::error) are shorter.
pub fn log(level: Level, text: impl fmt::Display) {
    log_text(level, &text.to_string());
}

#[cfg(target_arch = "wasm32")]
fn log_text(level: Level, text: &str) {
    use crate::bindings::enricher::tidemark::plugin::host;
    let level = match level {
        Level::Debug => host::Level::Debug,
        Level::Info => host::Level::Info,
        Level::Warn => host::Level::Warn,
        Level::Error => host::Level::Error,
    };
    host::log(level, text);
}

#[cfg(not(target_arch = "wasm32"))]
fn log_text(level: Level, text: &str) {
    eprintln!("{level:?}: {text}");
}

/// The bytes of a file that the definitions grant with `files`; any other name is an error.
#[cfg(target_arch = "wasm32")]
pub fn read_file(name: &str) -> Result<Vec<u8>, String> {
    crate::bindings::enricher::tidemark::plugin::host::read_file(name)
}

/// The bytes of a file that the definitions grant with `files`; any other name is an error.
#[cfg(not(target_arch = "wasm32"))]
pub fn read_file(name: &str) -> Result<Vec<u8>, String> {
    crate::testing::read_granted(name)
}

/// A panic ends the instance and its message would be lost: say it in the log first.
pub(crate) fn log_panics() {
    #[cfg(target_arch = "wasm32")]
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            std::panic::set_hook(Box::new(|panic| {
                let message = panic.payload_as_str().unwrap_or("(no message)");
                match panic.location() {
                    Some(place) => log(Level::Error, format_args!("panicked at {place}: {message}")),
                    None => log(Level::Error, format_args!("panicked: {message}")),
                }
            }));
        });
    }
}

/// Logs a line at level debug, as `format!` does.
#[macro_export]
macro_rules! debug { ($($text:tt)*) => { $crate::host::log($crate::host::Level::Debug, format_args!($($text)*)) } }
/// Logs a line at level info, as `format!` does.
#[macro_export]
macro_rules! info { ($($text:tt)*) => { $crate::host::log($crate::host::Level::Info, format_args!($($text)*)) } }
/// Logs a line at level warn, as `format!` does.
#[macro_export]
macro_rules! warn { ($($text:tt)*) => { $crate::host::log($crate::host::Level::Warn, format_args!($($text)*)) } }
/// Logs a line at level error, as `format!` does.
#[macro_export]
macro_rules! error { ($($text:tt)*) => { $crate::host::log($crate::host::Level::Error, format_args!($($text)*)) } }
