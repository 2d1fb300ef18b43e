//! Cuts the sources into numbered pieces of whole lines. Knows nothing of events.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::ReplayError;
use crate::engine::decode::PADDING_BYTES;

/// A line longer than this is cut: it is far beyond what an event may be, and is rejected as too long.
const LINE_BYTES_MAX: usize = 16 << 20;
/// What an event has, to guess how many there are.
const EVENT_BYTES_GUESS: u64 = 500;

type Reader = Box<dyn Read + Send>;

pub struct Source {
    name: String,
    reader: Reader,
    /// `None`: not known before its end.
    bytes: Option<u64>,
}

impl Source {
    /// A file, or standard input for `-`.
    pub fn open(name: &str) -> Result<Self, ReplayError> {
        if name == "-" {
            return Ok(Self { name: "standard input".into(), reader: Box::new(io::stdin()), bytes: None });
        }
        let failed = |source| ReplayError::Read { name: name.to_string(), source };
        let file = File::open(Path::new(name)).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(failed(io::Error::new(io::ErrorKind::IsADirectory, "is a folder")));
        }
        // A pipe has no length.
        let bytes = metadata.is_file().then_some(metadata.len());
        Ok(Self { name: name.into(), reader: Box::new(file), bytes })
    }

    /// Text that is already there.
    pub fn text(name: &str, text: String) -> Self {
        let bytes = Some(text.len() as u64);
        Self { name: name.into(), reader: Box::new(io::Cursor::new(text)), bytes }
    }

    pub fn bytes(&self) -> Option<u64> {
        self.bytes
    }

    /// Read through this from now on: for whoever wants to see how far it is.
    pub fn through(self, wrap: impl FnOnce(Reader) -> Reader) -> Self {
        Self { reader: wrap(self.reader), ..self }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Piece {
    pub number: u64,
    /// Bytes of lines in the buffer, before the padding.
    pub len: usize,
}

pub struct Pieces {
    sources: VecDeque<Source>,
    piece_bytes: usize,
    next_number: u64,
    /// The beginning of a line whose end was not read yet.
    rest: Vec<u8>,
}

impl Pieces {
    pub fn new(sources: Vec<Source>, piece_bytes: usize) -> Self {
        Self { sources: sources.into(), piece_bytes: piece_bytes.max(1), next_number: 0, rest: Vec::new() }
    }

    pub fn expected_events(&self) -> usize {
        (self.sources.iter().filter_map(|source| source.bytes).sum::<u64>() / EVENT_BYTES_GUESS) as usize
    }

    /// Fills the buffer with the next whole lines and their padding; `None` at the end of the last source. The end of a source
    /// ends its line. What the buffer holds behind the padding means nothing: it only ever grows, so that it is cleared once.
    pub fn next(&mut self, buffer: &mut Vec<u8>) -> Result<Option<Piece>, ReplayError> {
        loop {
            let Some(source) = self.sources.front_mut() else { return Ok(None) };
            let name = &source.name;
            let failed = |source| ReplayError::Read { name: name.clone(), source };
            let mut filled = self.rest.len();
            grow(buffer, filled);
            buffer[..filled].copy_from_slice(&self.rest);
            self.rest.clear();
            let (len, ended) = loop {
                let wanted = self.piece_bytes.max(filled);
                grow(buffer, filled + wanted);
                let read = read_some(&mut source.reader, &mut buffer[filled..filled + wanted]).map_err(failed)?;
                let end = memchr::memrchr(b'\n', &buffer[filled..filled + read]).map(|end| filled + end + 1);
                filled += read;
                match end {
                    _ if read < wanted => break (filled, true),
                    Some(end) => break (end, false),
                    None => filled = filled.min(LINE_BYTES_MAX),
                }
            };
            self.rest.extend_from_slice(&buffer[len..filled]);
            if ended {
                self.sources.pop_front();
            }
            if len == 0 {
                continue;
            }
            grow(buffer, len);
            buffer[len..len + PADDING_BYTES].fill(0);
            let number = self.next_number;
            self.next_number += 1;
            return Ok(Some(Piece { number, len }));
        }
    }
}

/// At least so many bytes, and the padding.
fn grow(buffer: &mut Vec<u8>, bytes: usize) {
    if buffer.len() < bytes + PADDING_BYTES {
        buffer.resize(bytes + PADDING_BYTES, 0);
    }
}

/// Fills the buffer as far as the source goes.
fn read_some(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_whole_lines_in_order() {
        let text = "a\nbb\n\nccc\nlast without end";
        for piece_bytes in 1..text.len() + 2 {
            let sources = vec![Source::text("one", text.into()), Source::text("two", "z\n".into())];
            let mut pieces = Pieces::new(sources, piece_bytes);
            let (mut all, mut buffer, mut count) = (Vec::new(), Vec::new(), 0);
            while let Some(piece) = pieces.next(&mut buffer).unwrap() {
                assert_eq!(piece.number, count);
                count += 1;
                assert!(buffer[piece.len..piece.len + PADDING_BYTES].iter().all(|byte| *byte == 0));
                let lines = std::str::from_utf8(&buffer[..piece.len]).unwrap().lines();
                all.extend(lines.filter(|line| !line.is_empty()).map(str::to_string));
            }
            assert_eq!(all, ["a", "bb", "ccc", "last without end", "z"], "pieces of {piece_bytes} bytes");
        }
    }
}
