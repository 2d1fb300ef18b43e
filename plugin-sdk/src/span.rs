//! Spans of time as definitions write them.

use std::time::Duration;

const UNITS_S: [(&str, u64); 5] = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400), ("w", 604_800)];

/// Reads a span as it is written in definitions: a whole number and one of `s`, `m`, `h`, `d`, `w`.
///
/// ```
/// # use std::time::Duration;
/// assert_eq!(tidemark_plugin::span("5m"), Ok(Duration::from_secs(300)));
/// assert!(tidemark_plugin::span("5 minutes").is_err());
/// ```
pub fn span(text: &str) -> Result<Duration, String> {
    let found = UNITS_S.iter().find_map(|(unit, seconds)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(*seconds).map(Duration::from_secs)
    });
    found.ok_or_else(|| format!("\"{text}\" is not a span of time such as \"90s\", \"5m\", \"24h\" or \"1d\""))
}
