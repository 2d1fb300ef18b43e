//! One lane: an append-only series of segments, written by one at a time.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::JournalError;
use super::frame::Frame;
use super::segment::{self, Found, SegmentReader};
use crate::time::Millis;

/// Name of the file that says which segment is the first; older ones are to be removed.
const FIRST_FILE: &str = "first";

pub struct Lane {
    number: usize,
    folder: PathBuf,
    segment_bytes: u64,
    writer: Mutex<Writer>,
    /// Held over a sync, so that the second of two does not return before the first is through.
    syncing: Mutex<()>,
}

struct Writer {
    /// Oldest first; the last is written to.
    segments: Vec<Segment>,
    file: Arc<File>,
    next: u64,
    /// Files with bytes that may not be on disk.
    unsynced: Vec<Arc<File>>,
    /// A segment was made since the folder was synced.
    folder_unsynced: bool,
    /// Once set, the lane takes nothing more: what is on disk is not known.
    failed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub first: u64,
    pub bytes: u64,
    /// Arrival of its newest frame, as far as is known without reading it through; `None` while it has none.
    pub newest: Option<Millis>,
}

/// What opening found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Bytes of a torn tail that were cut off.
    pub torn_bytes: u64,
    /// Frames that were lost to damage in the middle of the last segment.
    pub lost_frames: u64,
}

impl Lane {
    pub fn open(number: usize, folder: PathBuf, segment_bytes: u64) -> Result<(Self, Recovery), JournalError> {
        let io = |source| JournalError::Io { lane: number, source };
        fs::create_dir_all(&folder).map_err(io)?;
        let mut segments = list(&folder).map_err(io)?;
        let (next, recovery) = match segments.last_mut() {
            Some(last) => recover(&folder, last).map_err(io)?,
            None => (0, Recovery::default()),
        };
        if segments.is_empty() {
            segments.push(Segment { first: 0, bytes: 0, newest: None });
        }
        let first = segments[segments.len() - 1].first;
        let path = segment::path(&folder, first);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        // What a crash left in the page cache is not known to be on disk, and neither is the file's name.
        file.sync_data().and_then(|()| sync_folder(&folder)).map_err(io)?;
        let writer = Writer {
            segments,
            file: Arc::new(file),
            next,
            unsynced: Vec::new(),
            folder_unsynced: false,
            failed: false,
        };
        let lane = Self { number, folder, segment_bytes, writer: Mutex::new(writer), syncing: Mutex::new(()) };
        Ok((lane, recovery))
    }

    pub fn next(&self) -> u64 {
        self.writer().next
    }

    pub fn segments(&self) -> Vec<Segment> {
        self.writer().segments.clone()
    }

    pub fn path_of(&self, segment: &Segment) -> PathBuf {
        segment::path(&self.folder, segment.first)
    }

    /// Where it was written, once it is synced. An error leaves the lane as it was before.
    pub fn append(&self, mut frame: Frame) -> Result<u64, JournalError> {
        let mut writer = self.writer();
        if writer.failed {
            return Err(JournalError::Failed { lane: self.number });
        }
        let io = |source| JournalError::Io { lane: self.number, source };
        if writer.last().bytes >= self.segment_bytes {
            self.roll(&mut writer).map_err(io)?;
        }
        let sequence = writer.next;
        let bytes = frame.number(sequence);
        let at = writer.last().bytes;
        if let Err(source) = writer.file.write_all_at(bytes, at) {
            // A part may have been written: cut it off, or the next frame would follow garbage.
            writer.failed = writer.file.set_len(at).is_err();
            return Err(io(source));
        }
        let len = bytes.len() as u64;
        let last = writer.last_mut();
        last.bytes += len;
        last.newest = last.newest.max(Some(frame.arrival()));
        writer.next += 1;
        if writer.unsynced.is_empty() {
            let file = writer.file.clone();
            writer.unsynced.push(file);
        }
        Ok(sequence)
    }

    /// Makes everything durable that was appended before. A failure is final: after it nobody can say what is on disk.
    pub fn sync(&self) -> Result<(), JournalError> {
        let _syncing = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let (files, folder) = {
            let mut writer = self.writer();
            if writer.failed {
                return Err(JournalError::Failed { lane: self.number });
            }
            (std::mem::take(&mut writer.unsynced), std::mem::take(&mut writer.folder_unsynced))
        };
        let files_synced = files.iter().try_for_each(|file| file.sync_data());
        let synced = files_synced.and_then(|()| if folder { sync_folder(&self.folder) } else { Ok(()) });
        synced.map_err(|source| {
            self.writer().failed = true;
            JournalError::Io { lane: self.number, source }
        })
    }

    /// Begins a new segment if the last one has frames, all of which arrived before `before`.
    pub fn roll_if_older(&self, before: Millis) -> Result<(), JournalError> {
        let mut writer = self.writer();
        if !writer.failed && writer.last().newest.is_some_and(|newest| newest < before) {
            self.roll(&mut writer).map_err(|source| JournalError::Io { lane: self.number, source })?;
        }
        Ok(())
    }

    /// Forgets the segments before the one that begins with `first`: the pointer first, the files second, so that a crash
    /// between leaves files too many and never a hole.
    pub fn remove_before(&self, first: u64) -> Result<(), JournalError> {
        let io = |source| JournalError::Io { lane: self.number, source };
        let removed: Vec<Segment> = {
            let mut writer = self.writer();
            let keep = writer.segments.iter().position(|segment| segment.first >= first).unwrap_or(0);
            writer.segments.drain(..keep).collect()
        };
        if removed.is_empty() {
            return Ok(());
        }
        let pointer = self.folder.join(FIRST_FILE);
        let temporary = self.folder.join("first.new");
        write_synced(&temporary, format!("{first}\n").as_bytes()).map_err(io)?;
        fs::rename(&temporary, &pointer).and_then(|()| sync_folder(&self.folder)).map_err(io)?;
        for segment in removed {
            fs::remove_file(self.path_of(&segment)).map_err(io)?;
        }
        Ok(())
    }

    fn roll(&self, writer: &mut Writer) -> io::Result<()> {
        let path = segment::path(&self.folder, writer.next);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        writer.file = Arc::new(file);
        writer.folder_unsynced = true;
        let unsynced = writer.file.clone();
        writer.unsynced.push(unsynced);
        let first = writer.next;
        writer.segments.push(Segment { first, bytes: 0, newest: None });
        Ok(())
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    fn last(&self) -> &Segment {
        &self.segments[self.segments.len() - 1]
    }

    fn last_mut(&mut self) -> &mut Segment {
        let last = self.segments.len() - 1;
        &mut self.segments[last]
    }
}

/// The lane's segments, oldest first. Removes those that the pointer says are gone.
fn list(folder: &Path) -> io::Result<Vec<Segment>> {
    let pointer = match fs::read_to_string(folder.join(FIRST_FILE)) {
        Ok(text) => text.trim().parse().unwrap_or(0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let mut segments = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Some(first) = entry.file_name().to_str().and_then(segment::first_of) else { continue };
        if first < pointer {
            fs::remove_file(entry.path())?;
            continue;
        }
        let mut reader = SegmentReader::open(&entry.path(), None)?;
        let newest = match reader.next(|_| true)? {
            Found::Frame(header) => Some(header.arrival),
            Found::Damage | Found::End => None,
        };
        segments.push(Segment { first, bytes: reader.end(), newest });
    }
    segments.sort_unstable_by_key(|segment| segment.first);
    for at in 1..segments.len() {
        // The first frame of the next one arrived right after its last. An empty next one says nothing.
        let following = match segments[at].newest {
            Some(newest) => Some(newest),
            None => newest_in(&segment::path(folder, segments[at - 1].first))?,
        };
        segments[at - 1].newest = segments[at - 1].newest.max(following);
    }
    Ok(segments)
}

fn newest_in(path: &Path) -> io::Result<Option<Millis>> {
    let mut reader = SegmentReader::open(path, None)?;
    let mut newest = None;
    loop {
        match reader.next(|_| true)? {
            Found::Frame(header) => newest = newest.max(Some(header.arrival)),
            Found::Damage if reader.skip_damage()? => {}
            Found::Damage | Found::End => return Ok(newest),
        }
    }
}

/// Reads the last segment through, cuts off what is torn at its end, and says which number comes next.
fn recover(folder: &Path, last: &mut Segment) -> io::Result<(u64, Recovery)> {
    let path = segment::path(folder, last.first);
    let mut reader = SegmentReader::open(&path, None)?;
    let (mut next, mut recovery) = (last.first, Recovery::default());
    loop {
        match reader.next(|_| true)? {
            Found::Frame(header) => {
                recovery.lost_frames += header.sequence.saturating_sub(next);
                next = header.sequence + 1;
                last.newest = last.newest.max(Some(header.arrival));
            }
            Found::End => break,
            Found::Damage if reader.skip_damage()? => {}
            Found::Damage => {
                recovery.torn_bytes = reader.end() - reader.offset;
                OpenOptions::new().write(true).open(&path)?.set_len(reader.offset)?;
                break;
            }
        }
    }
    last.bytes = reader.offset;
    Ok((next, recovery))
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::write(path, bytes)?;
    File::open(path)?.sync_all()
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
