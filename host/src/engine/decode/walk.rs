//! The structure of one line → its wanted values.
//!
//! Goes from one `: { } [ ]` to the next. Between them lie a value and the next key; where the key begins is known once
//! it is recognized, and so the value is all that stands between. That every string is one string is known from the
//! number of quotes. Knows nothing of blocks, nor of how keys are recognized.

use super::keys::{Keys, NO_COLUMN, ROOT, START};
use super::{DEPTH_MAX, is_blank};

/// A scanned line; places are in `buffer`.
pub(super) struct Line<'a> {
    pub buffer: &'a [u8],
    pub start: usize,
    pub end: usize,
    pub structure: &'a [u32],
    /// A bit a byte from `start`.
    pub quotes: &'a [u64],
    /// Places of the first and the last one, which have none between them if there is none.
    pub backslashes: (usize, usize),
}

/// An object that is open: what its parent needs when it closes.
#[derive(Clone, Copy, Default)]
struct Frame {
    parent: u16,
    column: u16,
    start: u32,
}

/// Where a value stands, blanks around it included, and who wants it.
#[derive(Clone, Copy, Default)]
pub(super) struct Span {
    pub begin: u32,
    pub end: u32,
    pub column: u16,
}

/// A walk and what it needs room for.
pub(super) struct Walk {
    /// Those of the line in the order of their ends, and room for more.
    spans: Vec<Span>,
    spans_len: usize,
    frames: [Frame; DEPTH_MAX],
    depth: usize,
    /// Node and last key of the object that is open.
    parent: u16,
    last: u16,
    /// Where that begins of which the next step finds the end: behind a colon its value, if it is no object or array;
    /// else the bracket that opened the object or closed the last value.
    begin: usize,
    /// The next step.
    step: usize,
    /// Quotes of keys and inside arrays.
    quotes: u32,
    /// Of the keys that paths lead through, by their number: how many spans were there when it was seen last, and 1.
    seen: Vec<u32>,
}

impl Walk {
    pub fn new() -> Self {
        Self {
            spans: Vec::new(),
            spans_len: 0,
            frames: [Frame::default(); DEPTH_MAX],
            depth: 0,
            parent: ROOT,
            last: START,
            begin: 0,
            step: 0,
            quotes: 0,
            seen: Vec::new(),
        }
    }

    /// Finds the line's values. Returns how many quotes stand elsewhere, in keys and in arrays; `None`: the line is no
    /// event (`check` says why).
    pub fn walk(&mut self, line: &Line, keys: &mut Keys) -> Option<u32> {
        let first = *line.structure.first()? as usize;
        if first != line.start || line.buffer[first] != b'{' {
            return None;
        }
        // A step ends at most a value and an object that is wanted as a whole.
        if self.spans.len() < line.structure.len() * 2 {
            self.spans.resize(line.structure.len() * 2, Span::default());
        }
        self.frames[0] = Frame { parent: ROOT, column: keys.root_column(), start: line.start as u32 };
        (self.depth, self.parent, self.last) = (1, ROOT, START);
        (self.begin, self.step, self.spans_len, self.quotes) = (first, 1, 0, 0);
        self.seen.clear();
        self.seen.resize(keys.inner_keys as usize + 1, 0);
        while self.depth > 0 {
            let at = self.follow(line, keys)?;
            match line.buffer[at] {
                b':' => self.key(line, keys, at)?,
                b'{' => self.open(line, keys, at)?,
                b'}' => self.close(line, keys, at)?,
                b'[' => self.array(line, keys, at)?,
                _ => return None,
            }
        }
        (self.begin + 1 == line.end).then_some(self.quotes)
    }

    /// Of the line that was walked.
    pub fn spans(&self) -> &[Span] {
        &self.spans[..self.spans_len]
    }

    /// From key to key while each is one that was expected: the loop that matters, and what it needs must stay in
    /// registers. Returns the step that is another.
    #[inline(always)]
    fn follow(&mut self, line: &Line, keys: &Keys) -> Option<usize> {
        let (buffer, parent) = (line.buffer, self.parent);
        let mut steps = line.structure[self.step..].iter();
        let (mut begin, mut last) = (self.begin, usize::from(self.last));
        let mut column = keys.get(last).meaning.column;
        let (spans, mut spans_len) = (&mut self.spans[..], self.spans_len);
        let at = loop {
            let at = *steps.next()? as usize;
            let Some((id, key)) = keys.follow(buffer, at, last, parent) else { break at };
            let end = match key.plain_bytes() {
                Some(bytes) => at - bytes,
                None => match special(line, keys, id, at, &mut spans[..spans_len], &mut self.seen) {
                    Some(end) => end,
                    None => break at,
                },
            };
            if end != begin {
                spans[spans_len] = Span { begin: begin as u32, end: end as u32, column };
                spans_len += 1;
            } else if buffer[begin] != b'{' {
                break at;
            }
            (last, begin, column) = (id, at + 1, key.meaning.column);
        };
        let step = line.structure.len() - steps.len();
        self.quotes += 2 * (step - 1 - self.step) as u32;
        (self.begin, self.step, self.last, self.spans_len) = (begin, step, last as u16, spans_len);
        Some(at)
    }

    /// A key that was not expected.
    #[inline(never)]
    fn key(&mut self, line: &Line, keys: &mut Keys, at: usize) -> Option<()> {
        let last = usize::from(self.last);
        let seldom = keys.follow_seldom(line.buffer, at, last, self.parent);
        let plain = seldom.and_then(|id| Some((id, at - keys.get(id).plain_bytes()?)));
        let (open, close) = match plain {
            Some(_) => (0, 0),
            None => quotes_of_key(line, at)?,
        };
        let end = match plain {
            Some((_, end)) => end,
            None => end_before(line, open - 1)?,
        };
        if end != self.begin {
            self.push(self.begin, end, keys.get(last).meaning.column);
        } else if line.buffer[end] != b'{' {
            return None;
        }
        let id = match plain {
            Some((id, _)) => id,
            None => keys.look_up(lead(line, end, open), &line.buffer[open + 1..close], last, self.parent)?,
        };
        replace_if_seen(keys, id, &mut self.spans[..self.spans_len], &mut self.seen);
        (self.last, self.begin) = (id as u16, at + 1);
        self.quotes += 2;
        Some(())
    }

    fn open(&mut self, line: &Line, keys: &Keys, at: usize) -> Option<()> {
        if self.depth == DEPTH_MAX || !is_all_blank(&line.buffer[self.begin..at]) {
            return None;
        }
        let meaning = keys.get(usize::from(self.last)).meaning;
        self.frames[self.depth] = Frame { parent: self.parent, column: meaning.column, start: at as u32 };
        (self.depth, self.parent, self.begin) = (self.depth + 1, meaning.node, at);
        Some(())
    }

    fn close(&mut self, line: &Line, keys: &Keys, at: usize) -> Option<()> {
        if line.buffer[self.begin] != b'{' {
            self.push(self.begin, at, keys.get(usize::from(self.last)).meaning.column);
        } else if !is_all_blank(&line.buffer[self.begin + 1..at]) {
            return None;
        }
        self.depth -= 1;
        let frame = self.frames[self.depth];
        if frame.column != NO_COLUMN {
            self.push(frame.start as usize, at + 1, frame.column);
        }
        (self.parent, self.begin) = (frame.parent, at);
        Some(())
    }

    #[inline(never)]
    fn array(&mut self, line: &Line, keys: &Keys, at: usize) -> Option<()> {
        if !is_all_blank(&line.buffer[self.begin..at]) {
            return None;
        }
        let steps = skip_array(line, self.step, self.depth)?;
        let close = line.structure[self.step + steps - 1] as usize;
        self.step += steps;
        self.quotes += quotes_between(line, at, close);
        let column = keys.get(usize::from(self.last)).meaning.column;
        if column != NO_COLUMN {
            self.push(at, close + 1, column);
        }
        self.begin = close;
        Some(())
    }

    fn push(&mut self, begin: usize, end: usize, column: u16) {
        self.spans[self.spans_len] = Span { begin: begin as u32, end: end as u32, column };
        self.spans_len += 1;
    }
}

/// A key of which the window said too little: the end of what stands before it, or it is none.
#[inline(never)]
fn special(line: &Line, keys: &Keys, id: usize, colon: usize, spans: &mut [Span], seen: &mut [u32]) -> Option<usize> {
    let open = keys.special(id, line.buffer, colon)?;
    let end = end_before(line, open - 1)?;
    replace_if_seen(keys, id, spans, seen);
    Some(end)
}

/// If this key was there before, nobody wants what stood below it then.
fn replace_if_seen(keys: &Keys, id: usize, spans: &mut [Span], seen: &mut [u32]) {
    let meaning = keys.get(id).meaning;
    if meaning.inner == 0 {
        return;
    }
    let seen = &mut seen[meaning.inner as usize];
    if let Some(since) = seen.checked_sub(1) {
        let below = keys.below(meaning.node);
        let spans = spans[since as usize..].iter_mut();
        spans.filter(|span| below.contains(&span.column)).for_each(|span| span.column = NO_COLUMN);
    }
    *seen = spans.len() as u32 + 1;
}

/// The comma before a key, or the brace that opened its object, given the byte before the key; else the key is none.
#[inline(always)]
fn end_before(line: &Line, before: usize) -> Option<usize> {
    let mut end = before;
    while is_blank(line.buffer[end]) {
        end -= 1;
    }
    matches!(line.buffer[end], b',' | b'{').then_some(end)
}

/// What leads a key, from the comma or brace at `end` on if at most a blank stands between, else the byte before it.
fn lead<'a>(line: &Line<'a>, end: usize, open: usize) -> &'a [u8] {
    &line.buffer[if open - end > 2 { open - 1 } else { end }..open]
}

/// The quotes of the key before a colon.
fn quotes_of_key(line: &Line, colon: usize) -> Option<(usize, usize)> {
    let close = colon - 1 - blanks_before(&line.buffer[line.start..colon]);
    if line.buffer[close] != b'"' {
        return None;
    }
    Some((quote_before(line, close)?, close))
}

/// The nearest unescaped quote before `at`.
fn quote_before(line: &Line, at: usize) -> Option<usize> {
    let bit = at - line.start;
    let mut index = bit / 64;
    let mut word = line.quotes[index] & ((1 << (bit % 64)) - 1);
    while word == 0 {
        index = index.checked_sub(1)?;
        word = line.quotes[index];
    }
    Some(line.start + index * 64 + 63 - word.leading_zeros() as usize)
}

/// How many steps lead from behind an opening `[`, inside `depth` brackets, to behind its `]`. No path leads into it;
/// brackets must match, and a colon stands in an object.
fn skip_array(line: &Line, step: usize, depth: usize) -> Option<usize> {
    let mut arrays = 1_u64;
    let mut inner = 1;
    for (steps, &at) in line.structure[step..].iter().enumerate() {
        if depth + inner > DEPTH_MAX {
            return None;
        }
        match (line.buffer[at as usize], arrays & 1) {
            (b'{', _) => (arrays, inner) = (arrays << 1, inner + 1),
            (b'[', _) => (arrays, inner) = (arrays << 1 | 1, inner + 1),
            (b'}', 0) | (b']', 1) => (arrays, inner) = (arrays >> 1, inner - 1),
            (b':', 0) => {}
            _ => return None,
        }
        if inner == 0 {
            return Some(steps + 1);
        }
    }
    None
}

/// Unescaped quotes in a range.
fn quotes_between(line: &Line, from: usize, to: usize) -> u32 {
    let (from, to) = (from - line.start, to - line.start);
    let words = &line.quotes[from / 64..=to / 64];
    let all: u32 = words.iter().map(|word| word.count_ones()).sum();
    let before = words[0] & ((1 << (from % 64)) - 1);
    let behind = words[words.len() - 1] >> (to % 64);
    all - before.count_ones() - behind.count_ones()
}

#[inline]
fn is_all_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| is_blank(*byte))
}

#[inline]
fn blanks_before(bytes: &[u8]) -> usize {
    bytes.iter().rev().take_while(|byte| is_blank(**byte)).count()
}
