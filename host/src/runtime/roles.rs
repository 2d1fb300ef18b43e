//! What a host does, where there are many: take events, count them, answer. One that is alone does all.

use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// Takes events by HTTP.
    pub ingest: bool,
    /// Counts its share of the log.
    pub work: bool,
    /// Answers queries, serves the page and live connections.
    pub serve: bool,
}

impl Roles {
    pub const ALL: Self = Self { ingest: true, work: true, serve: true };
}

impl FromStr for Roles {
    type Err = String;

    /// Names separated by commas.
    fn from_str(names: &str) -> Result<Self, String> {
        let mut roles = Self { ingest: false, work: false, serve: false };
        for name in names.split(',').map(str::trim) {
            match name {
                "ingest" => roles.ingest = true,
                "work" => roles.work = true,
                "serve" => roles.serve = true,
                _ => return Err(format!("`{name}` is no role; there are ingest, work and serve")),
            }
        }
        Ok(roles)
    }
}
