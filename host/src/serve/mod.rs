//! Answers: HTTP, queries, live topics, the page. Knows stores only through their traits.

pub mod query;
