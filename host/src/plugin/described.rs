//! What a plugin says of itself.

use super::abi::v0_1::enricher::tidemark::plugin::types::Metadata;
use super::guest::one_line;

#[derive(Clone, Debug, Default)]
pub struct Described {
    pub name: String,
    pub version: String,
    pub description: String,
    pub stateful: bool,
}

impl Described {
    pub fn new(metadata: Metadata) -> Self {
        let Metadata { name, version, description, stateful } = metadata;
        Self { name: one_line(name), version: one_line(version), description: one_line(description), stateful }
    }
}
