//! Counters about the host itself.
