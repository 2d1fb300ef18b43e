//! Cuts the sources into numbered pieces of whole lines. Knows nothing of events.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::ReplayError;
use crate::engine::decode::PADDING_BYTES;

/// A line longer than this is cut: it is far beyond what an event may be, and is rejected as too long.
const LINE_BYTES_MAX: usize = 16 << 20;
/// What an event has, to guess how many there are.
const EVENT_BYTES_GUESS: u64 = 500;
/// Of a file, looked through for the end of a line.
const LOOK_BYTES: usize = 4 << 10;

pub struct Source {
    name: Arc<str>,
    input: Input,
}

enum Input {
    /// Its pieces can be read side by side.
    File {
        file: Arc<File>,
        /// Where the next piece begins.
        at: u64,
        bytes: u64,
    },
    /// Has no known end, and one reader.
    Stream(Box<dyn Read + Send>),
}

impl Source {
    /// A file, or standard input for `-`.
    pub fn open(name: &str) -> Result<Self, ReplayError> {
        if name == "-" {
            return Ok(Self { name: "standard input".into(), input: Input::Stream(Box::new(io::stdin())) });
        }
        let failed = |source| ReplayError::Read { name: name.to_string(), source };
        let file = File::open(Path::new(name)).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(failed(io::Error::new(io::ErrorKind::IsADirectory, "is a folder")));
        }
        // A pipe has no length, and files that the kernel makes up say that they have none.
        let input = match metadata.len() {
            bytes if metadata.is_file() && bytes > 0 => Input::File { file: Arc::new(file), at: 0, bytes },
            _ => Input::Stream(Box::new(file)),
        };
        Ok(Self { name: name.into(), input })
    }

    /// `None`: not known before its end.
    pub fn bytes(&self) -> Option<u64> {
        match self.input {
            Input::File { bytes, .. } => Some(bytes),
            Input::Stream(_) => None,
        }
    }
}

/// Some whole lines.
pub struct Piece {
    pub number: u64,
    /// Bytes of lines, before the padding.
    pub len: usize,
    /// Where they are to be read; else they are in the buffer already.
    place: Option<Place>,
}

struct Place {
    name: Arc<str>,
    file: Arc<File>,
    at: u64,
}

impl Piece {
    /// Brings its lines and their padding into the buffer that it was taken with. What the buffer holds behind the padding means
    /// nothing: it only ever grows, so that it is cleared once.
    pub fn read(&self, buffer: &mut Vec<u8>) -> Result<(), ReplayError> {
        grow(buffer, self.len);
        if let Some(Place { name, file, at }) = &self.place {
            let failed = |source| ReplayError::Read { name: name.to_string(), source };
            file.read_exact_at(&mut buffer[..self.len], *at).map_err(failed)?;
        }
        buffer[self.len..self.len + PADDING_BYTES].fill(0);
        Ok(())
    }
}

pub struct Pieces {
    sources: VecDeque<Source>,
    piece_bytes: usize,
    next_number: u64,
    /// The beginning of a line of a stream whose end was not read yet.
    rest: Vec<u8>,
}

impl Pieces {
    pub fn new(sources: Vec<Source>, piece_bytes: usize) -> Self {
        Self { sources: sources.into(), piece_bytes: piece_bytes.max(1), next_number: 0, rest: Vec::new() }
    }

    pub fn expected_events(&self) -> usize {
        (self.sources.iter().filter_map(Source::bytes).sum::<u64>() / EVENT_BYTES_GUESS) as usize
    }

    /// The next whole lines; `None` at the end of the last source. The end of a source ends its line. Others wait meanwhile: of a
    /// file only where its pieces end is looked for here, `Piece::read` brings them.
    pub fn next(&mut self, buffer: &mut Vec<u8>) -> Result<Option<Piece>, ReplayError> {
        loop {
            let Some(source) = self.sources.front_mut() else { return Ok(None) };
            let name = source.name.clone();
            let failed = |source| ReplayError::Read { name: name.to_string(), source };
            let (len, place, ended) = match &mut source.input {
                Input::File { file, at, bytes } => {
                    let from = *at;
                    *at = end_of_line(file, from + self.piece_bytes as u64, *bytes).map_err(failed)?;
                    let len = ((*at - from) as usize).min(self.piece_bytes + LINE_BYTES_MAX);
                    (len, Some(Place { name: name.clone(), file: file.clone(), at: from }), *at == *bytes)
                }
                Input::Stream(reader) => {
                    let (len, ended) =
                        next_of_stream(reader, self.piece_bytes, &mut self.rest, buffer).map_err(failed)?;
                    (len, None, ended)
                }
            };
            if ended {
                self.sources.pop_front();
            }
            if len == 0 {
                continue;
            }
            let number = self.next_number;
            self.next_number += 1;
            return Ok(Some(Piece { number, len, place }));
        }
    }
}

/// Where the line ends that reaches up to `wanted`, or over it.
fn end_of_line(file: &File, wanted: u64, bytes: u64) -> io::Result<u64> {
    let (mut at, mut look) = (wanted - 1, [0; LOOK_BYTES]);
    while at < bytes {
        let some = (bytes - at).min(LOOK_BYTES as u64) as usize;
        file.read_exact_at(&mut look[..some], at)?;
        if let Some(end) = memchr::memchr(b'\n', &look[..some]) {
            return Ok(at + end as u64 + 1);
        }
        at += some as u64;
    }
    Ok(bytes)
}

/// Fills the buffer with the next whole lines. Gives their bytes, and whether the stream has ended.
fn next_of_stream(
    reader: &mut dyn Read,
    piece_bytes: usize,
    rest: &mut Vec<u8>,
    buffer: &mut Vec<u8>,
) -> io::Result<(usize, bool)> {
    let mut filled = rest.len();
    grow(buffer, filled);
    buffer[..filled].copy_from_slice(rest);
    rest.clear();
    let (len, ended) = loop {
        let wanted = piece_bytes.max(filled);
        grow(buffer, filled + wanted);
        let read = read_some(reader, &mut buffer[filled..filled + wanted])?;
        let end = memchr::memrchr(b'\n', &buffer[filled..filled + read]).map(|end| filled + end + 1);
        filled += read;
        match end {
            _ if read < wanted => break (filled, true),
            Some(end) => break (end, false),
            None => filled = filled.min(LINE_BYTES_MAX),
        }
    };
    rest.extend_from_slice(&buffer[len..filled]);
    Ok((len, ended))
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
    use std::io::Write;

    use super::*;

    fn stream(text: &str) -> Source {
        Source { name: "stream".into(), input: Input::Stream(Box::new(io::Cursor::new(text.to_owned()))) }
    }

    fn file(text: &str) -> (tempfile::NamedTempFile, Source) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let source = Source::open(file.path().to_str().unwrap()).unwrap();
        (file, source)
    }

    /// Every line in its order, by pieces of so many bytes.
    fn lines(sources: Vec<Source>, piece_bytes: usize) -> Vec<String> {
        let mut pieces = Pieces::new(sources, piece_bytes);
        let (mut all, mut buffer, mut count) = (Vec::new(), Vec::new(), 0);
        while let Some(piece) = pieces.next(&mut buffer).unwrap() {
            piece.read(&mut buffer).unwrap();
            assert_eq!(piece.number, count);
            count += 1;
            assert!(buffer[piece.len..piece.len + PADDING_BYTES].iter().all(|byte| *byte == 0));
            let lines = std::str::from_utf8(&buffer[..piece.len]).unwrap().lines();
            all.extend(lines.filter(|line| !line.is_empty()).map(str::to_string));
        }
        all
    }

    #[test]
    fn pieces_are_whole_lines_in_order() {
        let text = "a\nbb\n\nccc\nlast without end";
        for piece_bytes in 1..text.len() + 2 {
            let (_one, first) = file(text);
            let (_two, empty) = file("");
            for sources in [vec![stream(text), stream("z\n")], vec![first, empty, stream("z\n")]] {
                let all = lines(sources, piece_bytes);
                assert_eq!(all, ["a", "bb", "ccc", "last without end", "z"], "pieces of {piece_bytes} bytes");
            }
        }
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let text = format!("{}\nb\n", "a".repeat(2 * LINE_BYTES_MAX));
        let (_file, of_file) = file(&text);
        for source in [stream(&text), of_file] {
            let lens: Vec<usize> = lines(vec![source], 1 << 10).iter().map(String::len).collect();
            assert!(
                lens.len() == 2 && (LINE_BYTES_MAX..2 * LINE_BYTES_MAX).contains(&lens[0]) && lens[1] == 1,
                "{lens:?}"
            );
        }
    }

    #[test]
    fn a_file_that_shrinks_is_an_error() {
        let (shrinking, source) = file("a\nb\n");
        let (mut pieces, mut buffer) = (Pieces::new(vec![source], 100), Vec::new());
        shrinking.as_file().set_len(1).unwrap();
        let outcome = pieces.next(&mut buffer).and_then(|piece| piece.unwrap().read(&mut buffer));
        assert!(matches!(outcome, Err(ReplayError::Read { .. })), "{outcome:?}");
    }
}
