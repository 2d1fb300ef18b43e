//! What a plugin says of itself.

use super::abi::v0_1::enricher::tidemark::plugin::types::Metadata;
use super::guest::cut;
use super::limits::LOG_LINE_BYTES_MAX;

#[derive(Clone, Debug, Default)]
pub struct Described {
    pub name: String,
    pub version: String,
    pub description: String,
    pub stateful: bool,
}

impl Described {
    pub fn new(metadata: Metadata) -> Self {
        let Metadata { mut name, mut version, mut description, stateful } = metadata;
        [&mut name, &mut version, &mut description].into_iter().for_each(|text| cut(text, LOG_LINE_BYTES_MAX));
        Self { name, version, description, stateful }
    }
}
