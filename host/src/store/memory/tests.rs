//! The memory store: the suite of all hot stores, its limits case by case, and its speed in rough.

use super::*;
use crate::engine::delta::{Delta, SourceRange};
use crate::store::StateColumn;
use crate::store::suite::{self, Event, Model};
use crate::store::{OTHER, Resolution};

#[test]
fn is_a_hot_store() {
    suite::hot_store(MemoryStore::new, 0..40);
}
