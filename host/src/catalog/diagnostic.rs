//! An error in the definitions: where, what was expected, what was probably meant.

use serde::Serialize;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// Characters to underline, at least 1.
    pub length: usize,
    pub message: String,
    pub expected: Option<String>,
    pub help: Option<String>,
    /// The message for people: file, line, the source line, the caret, the expectation and the help; several lines.
    pub rendered: String,
}
