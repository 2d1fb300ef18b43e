//! A file of frames: reading it front to back, past damage. Knows nothing of lanes.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use memchr::memmem;

use super::frame::{HEADER_BYTES, Header, MAGIC};

const BUFFER_BYTES: usize = 1 << 18;

/// `lane/00000000000000000042.log`: the first frame it may hold is number 42.
pub fn path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}.log"))
}

/// The first number of a file of this name.
pub fn first_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    if digits.len() == 20 { digits.parse().ok() } else { None }
}

pub struct SegmentReader {
    file: BufReader<File>,
    /// Where the next frame begins.
    pub offset: u64,
    /// Where to stop.
    end: u64,
    rest: Vec<u8>,
}

pub enum Found {
    /// What is behind the header is in `SegmentReader::rest`.
    Frame(Header),
    /// Damage at `offset`.
    Damage,
    End,
}

impl SegmentReader {
    /// Reads up to `end`, or to where the file ends now.
    pub fn open(path: &Path, end: Option<u64>) -> io::Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        let end = end.map_or(len, |end| end.min(len));
        Ok(Self { file: BufReader::with_capacity(BUFFER_BYTES, file), offset: 0, end, rest: Vec::new() })
    }

    pub fn rest(&self) -> &[u8] {
        &self.rest
    }

    pub fn end(&self) -> u64 {
        self.end
    }

    /// The next frame that is wanted; its checksums hold, and those of the frames passed over.
    pub fn next(&mut self, wanted: impl Fn(&Header) -> bool) -> io::Result<Found> {
        loop {
            let left = self.end - self.offset;
            if left == 0 {
                return Ok(Found::End);
            }
            if left < HEADER_BYTES as u64 {
                return Ok(Found::Damage);
            }
            let mut fixed = [0; HEADER_BYTES];
            self.file.read_exact(&mut fixed)?;
            let Some(header) = Header::read(&fixed).filter(|header| (HEADER_BYTES + header.rest_len()) as u64 <= left)
            else {
                return Ok(Found::Damage);
            };
            self.rest.resize(header.rest_len(), 0);
            self.file.read_exact(&mut self.rest)?;
            if !header.holds(&fixed, &self.rest) {
                return Ok(Found::Damage);
            }
            self.offset += (HEADER_BYTES + header.rest_len()) as u64;
            if wanted(&header) {
                return Ok(Found::Frame(header));
            }
        }
    }

    /// Moves on to the next frame that is whole; false if there is none, and then stays where the damage began.
    pub fn skip_damage(&mut self) -> io::Result<bool> {
        self.file.seek(SeekFrom::Start(self.offset))?;
        let mut tail = Vec::new();
        (&mut self.file).take(self.end - self.offset).read_to_end(&mut tail)?;
        let whole = |&at: &usize| {
            let Some((fixed, rest)) = tail[at..].split_first_chunk::<HEADER_BYTES>() else { return false };
            let Some(header) = Header::read(fixed) else { return false };
            rest.get(..header.rest_len()).is_some_and(|rest| header.holds(fixed, rest))
        };
        let found = memmem::find_iter(&tail, &MAGIC).filter(|&at| at > 0).find(whole);
        if let Some(at) = found {
            self.offset += at as u64;
        }
        self.file.seek(SeekFrom::Start(self.offset))?;
        Ok(found.is_some())
    }
}
