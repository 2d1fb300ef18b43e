//! The whole grammar of JSON, byte by byte: for a value that is wanted whole, and to say what is wrong with a line.
//!
//! Slow and sure; the walk takes a line only if this would take it, for all that a path reads. Control characters in
//! strings are checked here too, UTF-8 is not.

use super::value::unescape;
use super::{DEPTH_MAX, Malformed, is_blank};

/// Why a line that the walk refused is no event.
#[cold]
pub(super) fn explain(line: &[u8]) -> Malformed {
    if line.first() != Some(&b'{') {
        return Malformed::NotAnObject;
    }
    match value(line) {
        Err(reason) => reason,
        // Not reached while this and the walk agree; a reason is owed all the same.
        Ok(()) => Malformed::Syntax { byte: 1, what: "misplaced structure" },
    }
}

/// Whether `bytes` are one JSON value, blanks around it aside.
pub(super) fn value(bytes: &[u8]) -> Result<(), Malformed> {
    let mut reader = Reader { bytes, at: 0 };
    // A bit for each open bracket, 1 for an object.
    let mut open = 0_u64;
    let mut depth = 0;
    loop {
        // A value, or the bracket that opens one.
        reader.skip_blanks();
        match reader.peek() {
            Some(bracket @ (b'{' | b'[')) => {
                if depth == DEPTH_MAX {
                    return Err(Malformed::TooDeep);
                }
                reader.at += 1;
                (open, depth) = (open << 1 | u64::from(bracket == b'{'), depth + 1);
                if !reader.take(if bracket == b'{' { b'}' } else { b']' }) {
                    if bracket == b'{' {
                        reader.key()?;
                    }
                    continue;
                }
                (open, depth) = (open >> 1, depth - 1);
            }
            _ => reader.scalar()?,
        }
        // What may stand behind a value.
        loop {
            if depth == 0 {
                reader.skip_blanks();
                return if reader.at == bytes.len() { Ok(()) } else { reader.error("more behind the end") };
            }
            let object = open & 1 == 1;
            if reader.take(b',') {
                if object {
                    reader.key()?;
                }
                break;
            }
            if !reader.take(if object { b'}' } else { b']' }) {
                return reader.error(if object { "expected `,` or `}`" } else { "expected `,` or `]`" });
            }
            (open, depth) = (open >> 1, depth - 1);
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_blanks(&mut self) {
        while self.peek().is_some_and(is_blank) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        self.skip_blanks();
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn error<T>(&self, what: &'static str) -> Result<T, Malformed> {
        let what = if self.at >= self.bytes.len() { "it ends too early" } else { what };
        Err(Malformed::Syntax { byte: self.at as u32 + 1, what })
    }

    /// A key and its colon.
    fn key(&mut self) -> Result<(), Malformed> {
        self.skip_blanks();
        if self.peek() != Some(b'"') {
            return self.error("expected a key in double quotes");
        }
        self.string()?;
        if self.take(b':') { Ok(()) } else { self.error("expected `:`") }
    }

    fn scalar(&mut self) -> Result<(), Malformed> {
        match self.peek() {
            Some(b'"') => return self.string(),
            Some(b'-' | b'0'..=b'9') => return self.number(),
            _ => {}
        }
        for literal in [&b"true"[..], b"false", b"null"] {
            if self.bytes[self.at..].starts_with(literal) {
                self.at += literal.len();
                return Ok(());
            }
        }
        self.error("expected a value")
    }

    fn number(&mut self) -> Result<(), Malformed> {
        let rest = &self.bytes[self.at..];
        let part = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let len = rest.iter().take_while(part).count();
        if !super::value::is_number(rest, 0, len) {
            return Err(Malformed::Syntax { byte: self.at as u32 + 1, what: "not a number" });
        }
        self.at += len;
        Ok(())
    }

    fn string(&mut self) -> Result<(), Malformed> {
        let start = self.at + 1;
        self.at = start;
        loop {
            match self.peek() {
                None => return self.error(""),
                Some(b'"') => break,
                Some(0..0x20) => return self.error("control character in a string"),
                Some(b'\\') => self.at += 2,
                Some(_) => self.at += 1,
            }
        }
        let spelled = &self.bytes[start..self.at];
        self.at += 1;
        if spelled.contains(&b'\\') && unescape(spelled, &mut Vec::new()).is_none() {
            return Err(Malformed::Syntax { byte: start as u32, what: "a string with an invalid escape" });
        }
        Ok(())
    }
}
