//! An error in the definitions: where, what was expected, what was probably meant. Knows the text, not what it means.

use std::fmt::Write as _;
use std::ops::Range;

use serde::Serialize;

/// More errors than this are counted, not shown.
pub const DIAGNOSTICS_MAX: usize = 100;
/// Longer source lines are cut around the caret.
const LINE_CHARS_MAX: usize = 160;

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

/// Bytes of the file.
pub type Span = Range<usize>;

/// An error by its place in the text, before it is rendered.
#[derive(Debug)]
pub struct Problem {
    span: Span,
    message: String,
    expected: Option<String>,
    help: Option<String>,
}

/// An error that does not yet say what was expected, as every one has to.
#[must_use]
pub struct Draft<'a>(&'a mut Problem);

impl<'a> Draft<'a> {
    pub fn expected(self, expected: impl Into<String>) -> &'a mut Problem {
        self.0.expected = Some(expected.into());
        self.0
    }
}

impl Problem {
    pub fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }

    /// The candidate that was probably meant, if one is near.
    pub fn suggest<'a>(&mut self, word: &str, candidates: impl IntoIterator<Item = &'a str>) -> &mut Self {
        match nearest(word, candidates) {
            Some(near) => self.help(format!("did you mean `{near}`?")),
            None => self,
        }
    }
}

/// Collects all errors of a file.
#[derive(Debug, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub fn add(&mut self, span: &Span, message: impl Into<String>) -> Draft<'_> {
        let at = self.0.len();
        self.0.push(Problem { span: span.clone(), message: message.into(), expected: None, help: None });
        Draft(&mut self.0[at])
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// In the order of the text.
    pub fn into_diagnostics(mut self, file: &str, text: &str) -> Vec<Diagnostic> {
        self.0.sort_by_key(|problem| problem.span.start);
        self.0.dedup_by(|a, b| a.span == b.span && a.message == b.message);
        let hidden = self.0.len().saturating_sub(DIAGNOSTICS_MAX);
        if hidden > 0 {
            self.0.truncate(DIAGNOSTICS_MAX);
            let span = self.0[DIAGNOSTICS_MAX - 1].span.clone();
            self.add(&span, format!("{hidden} more errors are not shown")).expected("the ones above mended first");
        }
        self.0.into_iter().map(|problem| diagnostic(file, text, problem)).collect()
    }
}

/// One of several names, for people: `a`, `b`, `c`.
pub fn one_of<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match &names[..] {
        [] => "nothing".to_owned(),
        [name] => name.clone(),
        _ => format!("one of {}", names.join(", ")),
    }
}

/// The candidate a misspelt word probably stands for.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = word.to_lowercase().replace('-', "_");
    let (distance, near) = candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&folded, &candidate.to_lowercase()), candidate))
        .min_by_key(|(distance, _)| *distance)?;
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    (distance <= allowed && near != word).then_some(near)
}

fn diagnostic(file: &str, text: &str, problem: Problem) -> Diagnostic {
    let start = floor(text, problem.span.start);
    let end = floor(text, problem.span.end).max(start);
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
    let source = text[line_start..line_end].trim_end_matches('\r');
    let line = text[..line_start].matches('\n').count() + 1;
    let column = text[line_start..start].chars().count() + 1;
    let length = text[start..end.min(line_end)].trim_end().chars().count().max(1);
    let Problem { message, expected, help, .. } = problem;
    let mut made =
        Diagnostic { file: file.to_owned(), line, column, length, message, expected, help, rendered: String::new() };
    made.rendered = render(&made, source);
    made
}

/// The nearest character boundary at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn render(diagnostic: &Diagnostic, source: &str) -> String {
    let Diagnostic { file, line, column, length, message, expected, help, .. } = diagnostic;
    let number = line.to_string();
    let gutter = " ".repeat(number.len());
    let (source, marks) = excerpt(source, *column, *length);
    let mut out = format!("error: {message}\n{gutter}--> {file}:{line}:{column}\n{gutter} |\n");
    let _ = write!(out, "{number} | {source}\n{gutter} | {marks}");
    for (label, text) in [("expected", expected), ("help", help)] {
        if let Some(text) = text {
            let _ = write!(out, "\n{gutter} = {label}: {text}");
        }
    }
    out
}

/// The source line, cut around the caret when it is long, and the line of carets below it.
fn excerpt(source: &str, column: usize, length: usize) -> (String, String) {
    let chars: Vec<char> = source.chars().collect();
    let caret = (column - 1).min(chars.len());
    let from = if chars.len() <= LINE_CHARS_MAX { 0 } else { caret.saturating_sub(LINE_CHARS_MAX / 2) };
    let to = chars.len().min(from + LINE_CHARS_MAX);
    let shown = |part: &[char]| -> String {
        part.iter()
            .flat_map(|c| match c {
                '\t' => vec![' '; 4],
                c if c.is_control() => vec!['\u{fffd}'],
                c => vec![*c],
            })
            .collect()
    };
    let before = if from > 0 { "… " } else { "" };
    let after = if to < chars.len() { " …" } else { "" };
    let lead = format!("{before}{}", shown(&chars[from..caret]));
    let marked = shown(&chars[caret..(caret + length).min(to)]).chars().count().max(1);
    let line = format!("{lead}{}{after}", shown(&chars[caret..to]));
    (line, format!("{}{}", " ".repeat(lead.chars().count()), "^".repeat(marked)))
}
