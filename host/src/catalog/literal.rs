//! Where each character of a TOML string stands in the file, so that an error inside an expression points into it.

use super::diagnostic::Span;

/// The decoded text of a string and, for each of its characters and its end, the byte of the file.
pub struct Literal<'a> {
    pub text: &'a str,
    span: Span,
    /// Empty where the literal could not be followed: every place is then the whole string.
    offsets: Vec<usize>,
}

impl<'a> Literal<'a> {
    /// `span`: the literal in `file`, quotes included; `text`: what it means.
    pub fn new(file: &str, span: &Span, text: &'a str) -> Self {
        let decoded = file.get(span.clone()).and_then(|raw| decode(raw, span.start));
        let offsets = decoded.filter(|(decoded, _)| decoded == text).map(|(_, offsets)| offsets).unwrap_or_default();
        Self { text, span: span.clone(), offsets }
    }

    /// A text that stands in no file.
    pub fn alone(text: &'a str) -> Self {
        let offsets = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        Self { text, span: 0..text.len(), offsets }
    }

    /// Of the whole string.
    pub fn span(&self) -> Span {
        self.span.clone()
    }

    /// Characters `from..to` of the text, as bytes of the file.
    pub fn locate(&self, from: usize, to: usize) -> Span {
        match (self.offsets.get(from), self.offsets.get(to.max(from + 1)).or(self.offsets.last())) {
            (Some(start), Some(end)) => *start..(*end).max(*start),
            _ => self.span(),
        }
    }

    /// From the last `word` before a place to the end of that place, if the word is there, in whatever case.
    pub fn extended(&self, span: Span, word: &str) -> Span {
        let Some(end) = self.offsets.iter().position(|offset| *offset == span.start) else { return span };
        let found = self.words(0, end, word).last();
        found.map_or(span.clone(), |at| self.offsets[at]..span.end)
    }

    /// The first `word` behind a place, in whatever case.
    pub fn word_after(&self, span: &Span, word: &str) -> Option<Span> {
        let start = self.offsets.iter().position(|offset| *offset == span.end)?;
        let at = self.words(start, self.offsets.len(), word).next()?;
        Some(self.locate(at, at + word.chars().count()))
    }

    /// Where a word begins among the characters `from..to`.
    fn words(&self, from: usize, to: usize, word: &str) -> impl Iterator<Item = usize> {
        let chars: Vec<char> = self.text.chars().take(to).map(|c| c.to_ascii_lowercase()).collect();
        let word: Vec<char> = word.chars().map(|c| c.to_ascii_lowercase()).collect();
        let last = (chars.len() + 1).saturating_sub(word.len().max(1));
        (from..last).filter(move |at| !word.is_empty() && chars[*at..at + word.len()] == word[..])
    }

    /// The index of the character at a line and column, both from 1.
    pub fn index_of(&self, line: u64, column: u64) -> usize {
        let mut at = (1, 1);
        for (index, c) in self.text.chars().enumerate() {
            if at >= (line, column) {
                return index;
            }
            at = if c == '\n' { (at.0 + 1, 1) } else { (at.0, at.1 + 1) };
        }
        self.text.chars().count()
    }
}

/// The text of a TOML string literal and the file offset of each of its characters, and of its end.
fn decode(raw: &str, start: usize) -> Option<(String, Vec<usize>)> {
    let quote = raw.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let triple: String = std::iter::repeat_n(quote, 3).collect();
    let multiline = raw.len() >= 6 && raw.starts_with(&triple);
    let width = if multiline { 3 } else { 1 };
    let mut at = width;
    let end = raw.len().checked_sub(width).filter(|end| *end >= width)?;
    if multiline {
        at += ["\r\n", "\n"].iter().find(|newline| raw[at..].starts_with(**newline)).map_or(0, |newline| newline.len());
    }
    let (mut text, mut offsets) = (String::new(), Vec::new());
    while at < end {
        let c = raw[at..].chars().next()?;
        if quote == '"' && c == '\\' {
            let (decoded, length) = escape(&raw[at..end])?;
            if let Some(decoded) = decoded {
                text.push(decoded);
                offsets.push(start + at);
            }
            at += length;
        } else {
            text.push(c);
            offsets.push(start + at);
            at += c.len_utf8();
        }
    }
    offsets.push(start + end);
    Some((text, offsets))
}

/// The character an escape means and its length; no character for a line that is continued.
fn escape(raw: &str) -> Option<(Option<char>, usize)> {
    let simple = |c| Some((Some(c), 2));
    let code = |digits: usize| {
        let number = u32::from_str_radix(raw.get(2..2 + digits)?, 16).ok()?;
        Some((Some(char::from_u32(number)?), 2 + digits))
    };
    match raw[1..].chars().next()? {
        'b' => simple('\u{8}'),
        't' => simple('\t'),
        'n' => simple('\n'),
        'f' => simple('\u{c}'),
        'r' => simple('\r'),
        'e' => simple('\u{1b}'),
        '"' => simple('"'),
        '\\' => simple('\\'),
        'x' => code(2),
        'u' => code(4),
        'U' => code(8),
        c if c.is_ascii_whitespace() => Some((None, raw.len() - raw[1..].trim_ascii_start().len())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_characters_in_every_kind_of_string() {
        for (raw, text, index, found) in [
            ("'a = 1'", "a = 1", 4, "1"),
            (r#""a = 'é' or b""#, "a = 'é' or b", 11, "b"),
            (r#""a\t\"\u00e9\"b""#, "a\t\"é\"b", 5, "b"),
            (r#""a\x41b""#, "aAb", 1, r"\x41"),
            ("'''\na\nb'''", "a\nb", 2, "b"),
            ("\"\"\"\r\na \\\n   b\"\"\"", "a b", 2, "b"),
        ] {
            let file = format!("key = {raw} # é");
            let literal = Literal::new(&file, &(6..6 + raw.len()), text);
            assert_eq!(&file[literal.locate(index, index + 1)], found, "{raw}");
        }
        let literal = Literal::new("k = 'abc'", &(4..9), "other");
        assert_eq!(literal.locate(1, 2), 4..9, "what cannot be followed is the whole string");
    }

    #[test]
    fn lines_and_columns_count_characters() {
        let literal = Literal::new("", &(0..0), "ab\ncéd");
        assert_eq!([literal.index_of(1, 1), literal.index_of(2, 3), literal.index_of(9, 9)], [0, 5, 6]);
    }
}
