//! How far reading files is: a bar on standard error when somebody watches. Does not know what is read.

use indicatif::{ProgressBar, ProgressStyle};

use crate::runtime::replay::Source;

/// Nothing is drawn where standard error is no terminal. Standard input has no length: what was read is shown, and how fast.
pub fn bar(sources: &[Source]) -> ProgressBar {
    let bytes: Option<u64> = sources.iter().map(Source::bytes).sum();
    let bar = bytes.map_or_else(ProgressBar::no_length, ProgressBar::new);
    let template = match bytes {
        Some(_) => "{bar:40} {percent:>3} %  {binary_bytes}  {binary_bytes_per_sec}  {eta} left",
        None => "{spinner} {binary_bytes}  {binary_bytes_per_sec}  {elapsed}",
    };
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}
