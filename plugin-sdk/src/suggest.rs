//! "Did you mean": the nearest of the known names.

/// `, did you mean "country"?`, or nothing when no known name is near.
pub fn did_you_mean(unknown: &str, known: &[&str]) -> String {
    match known.iter().map(|name| (strsim::damerau_levenshtein(unknown, name), name)).min() {
        Some((distance, name)) if distance <= name.len().div_ceil(3) => format!(", did you mean \"{name}\"?"),
        _ => String::new(),
    }
}

/// `"device", "browser", "os"`.
pub fn listed(known: &[&str]) -> String {
    known.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}
