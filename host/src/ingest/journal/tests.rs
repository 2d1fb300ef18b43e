//! The journal against damage, crashes and full limits.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::engine::decode::PADDING_BYTES;
use crate::ingest::Client;

/// A folder of this test's own, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tidemark-journal-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const SMALL: JournalSettings =
    JournalSettings { lanes: 2, segment_bytes: 600, bytes_max: 1 << 30, age_max_ms: 1 << 40 };

/// Different for each `n`; compressible and not, with and without a client, empty too.
fn batch(n: u64) -> RawBatch {
    let line = match n % 4 {
        0 => format!("{{\"n\":{n}}}\n"),
        1 => format!("{{\"n\":{n},\"text\":\"{}\"}}\n", "abc".repeat(200)),
        2 => (0..300).map(|at| ((n * 31 + at * at * 7) % 95 + 32) as u8 as char).collect(),
        _ => String::new(),
    };
    let len = line.len();
    let mut bytes = line.into_bytes();
    bytes.resize(len + PADDING_BYTES, 0);
    let address = match n % 3 {
        0 => None,
        1 => Some("192.0.2.7".parse().unwrap()),
        _ => Some("2001:db8::7".parse().unwrap()),
    };
    let user_agent = (n % 2 == 1).then(|| Arc::from(format!("agent/{n} ü")));
    RawBatch {
        bytes,
        len,
        zstd: None,
        arrival: 1_000 + n as i64,
        client: Client { address, user_agent },
        messages: None,
    }
}

fn append(journal: &Journal, lane: usize, n: u64) -> u64 {
    journal.append(lane, Frame::encode(&batch(n)).unwrap()).unwrap()
}

/// Numbers read from the lane; each batch must be the one that was appended under its number.
fn numbers(journal: &Journal, lane: usize, from: u64) -> Vec<u64> {
    let check = |read: Result<(u64, RawBatch), JournalError>| {
        let (number, read) = read.unwrap();
        let written = batch(number);
        assert_eq!((&read.bytes, read.len), (&written.bytes, written.len), "batch {number}");
        assert_eq!((read.arrival, read.client), (written.arrival, written.client), "batch {number}");
        number
    };
    journal.read(lane, from).map(check).collect()
}

fn segments(folder: &Path, lane: usize) -> Vec<PathBuf> {
    let listed = fs::read_dir(folder.join(format!("lane-{lane:02}"))).unwrap();
    let mut paths: Vec<_> = listed.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    paths.sort();
    paths
}

#[test]
fn gives_back_what_was_appended_from_any_position() {
    let folder = Folder::new("roundtrip");
    for opened in 0..3u64 {
        let journal = Journal::open(&folder.0, SMALL).unwrap();
        assert_eq!(journal.recovery(), Recovery::default());
        for n in opened * 10..opened * 10 + 10 {
            assert_eq!(append(&journal, 1, n), n);
            assert_eq!(journal.next(1), n + 1);
        }
        journal.sync(&[1]).unwrap();
        for from in 0..=journal.next(1) {
            assert_eq!(numbers(&journal, 1, from), (from..journal.next(1)).collect::<Vec<_>>());
        }
        assert_eq!((numbers(&journal, 0, 0), journal.next(0), journal.lost_frames()), (vec![], 0, 0));
    }
    assert!(segments(&folder.0, 1).len() > 3, "it rolled");
}

#[test]
fn takes_what_the_client_compressed_as_it_is() {
    let folder = Folder::new("client");
    let journal = Journal::open(&folder.0, SMALL).unwrap();
    let mut sent = batch(1);
    sent.zstd = Some(zstd::bulk::compress(&sent.bytes[..sent.len], 19).unwrap().into());
    journal.append(0, Frame::encode(&sent).unwrap()).unwrap();
    let (_, read) = journal.read(0, 0).next().unwrap().unwrap();
    assert_eq!(read.bytes, sent.bytes);
}

#[test]
fn a_crash_at_any_byte_of_the_tail_loses_only_what_was_cut() {
    let folder = Folder::new("torn");
    let journal = Journal::open(&folder.0, JournalSettings { segment_bytes: 1 << 20, ..SMALL }).unwrap();
    let mut ends = vec![0];
    for n in 0..5 {
        append(&journal, 0, n);
        ends.push(journal.bytes());
    }
    drop(journal);
    let path = segments(&folder.0, 0).remove(0);
    let whole = fs::read(&path).unwrap();
    for cut in 0..=whole.len() {
        // Blocks that were allocated and not written are zeros.
        for zeros in [0, 100] {
            fs::write(&path, [&whole[..cut], &vec![0; zeros][..]].concat()).unwrap();
            let journal = Journal::open(&folder.0, SMALL).unwrap();
            let kept = ends.iter().filter(|&&end| end > 0 && end <= cut as u64).count() as u64;
            assert_eq!(numbers(&journal, 0, 0), (0..kept).collect::<Vec<_>>(), "cut at {cut}");
            assert_eq!(journal.recovery().torn_bytes, (cut + zeros) as u64 - ends[kept as usize]);
            assert_eq!(append(&journal, 0, kept), kept);
            assert_eq!(numbers(&journal, 0, kept), [kept], "and it goes on");
        }
    }
}

#[test]
fn damage_in_the_middle_is_passed_over_and_counted() {
    let folder = Folder::new("damage");
    let journal = Journal::open(&folder.0, SMALL).unwrap();
    (0..20).for_each(|n| {
        append(&journal, 0, n);
    });
    let next = journal.next(0);
    drop(journal);
    for (at, path) in segments(&folder.0, 0).iter().enumerate() {
        let whole = fs::read(path).unwrap();
        let is_last = at + 1 == segments(&folder.0, 0).len();
        for byte in (0..whole.len()).step_by(7) {
            let mut damaged = whole.clone();
            damaged[byte] ^= 0x55;
            fs::write(path, &damaged).unwrap();
            let journal = Journal::open(&folder.0, SMALL).unwrap();
            let read = numbers(&journal, 0, 0);
            assert_eq!(read.len() as u64, next - 1, "one frame is lost at byte {byte} of segment {at}: {read:?}");
            // The last frame of all looks like a torn tail.
            let torn = is_last && journal.recovery().torn_bytes > 0;
            assert_eq!(journal.lost_frames(), u64::from(!torn), "byte {byte} of segment {at}");
            assert_eq!(journal.next(0), next - u64::from(torn));
        }
        fs::write(path, &whole).unwrap();
    }
}

#[test]
fn expires_by_age_and_size_but_never_what_is_still_needed() {
    let folder = Folder::new("expire");
    let open =
        |bytes_max, age_max_ms| Journal::open(&folder.0, JournalSettings { bytes_max, age_max_ms, ..SMALL }).unwrap();
    let journal = open(1 << 30, 1 << 40);
    (0..40).for_each(|n| {
        append(&journal, (n % 2) as usize, n / 2);
    });
    assert_eq!(journal.expire(1 << 41, &[0, 0]).unwrap(), 0, "everything is still needed");
    assert_eq!(journal.expire(2_000, &[20, 20]).unwrap(), 0, "nothing is over a limit");
    drop(journal);

    let journal = open(1 << 30, 500);
    journal.expire(1_515, &[20, 5]).unwrap();
    let (first, second) = (journal.first(0), journal.first(1));
    assert!((6..=15).contains(&first) && second <= 5, "by age {first}, as far as needed {second}");
    assert_eq!(numbers(&journal, 0, 0), (first..20).collect::<Vec<_>>());
    assert_eq!(numbers(&journal, 1, 0), (second..20).collect::<Vec<_>>());
    drop(journal);

    let journal = open(1_500, 1 << 40);
    assert_eq!(journal.first(0), first, "what is gone stays gone");
    let before = journal.bytes();
    let removed = journal.expire(2_000, &[20, 20]).unwrap();
    assert!(removed > 0 && journal.bytes() == before - removed && journal.bytes() <= 1_500);
    drop(journal);

    let journal = open(1 << 30, 1);
    journal.expire(1 << 40, &[20, 20]).unwrap();
    assert_eq!((journal.first(0), journal.next(0), journal.bytes()), (20, 20, 0), "the numbers go on");
    drop(journal);
    assert_eq!(open(1, 1).next(0), 20);
}

#[test]
fn files_that_a_crash_left_behind_the_pointer_are_removed() {
    let folder = Folder::new("pointer");
    let journal = Journal::open(&folder.0, SMALL).unwrap();
    (0..20).for_each(|n| {
        append(&journal, 0, n);
    });
    drop(journal);
    let paths = segments(&folder.0, 0);
    let pointer: u64 = segment::first_of(paths[2].file_name().unwrap().to_str().unwrap()).unwrap();
    fs::write(folder.0.join("lane-00/first"), format!("{pointer}\n")).unwrap();
    let journal = Journal::open(&folder.0, SMALL).unwrap();
    assert_eq!(numbers(&journal, 0, 0), (pointer..20).collect::<Vec<_>>());
    assert_eq!(segments(&folder.0, 0), paths[2..]);
}

#[test]
fn fewer_lanes_than_there_are_is_an_error() {
    let folder = Folder::new("lanes");
    drop(Journal::open(&folder.0, SMALL).unwrap());
    let fewer = Journal::open(&folder.0, JournalSettings { lanes: 1, ..SMALL });
    assert!(matches!(fewer, Err(JournalError::Lanes { found: 2, wanted: 1, .. })));
}

#[test]
fn bytes_that_are_no_frame_never_panic() {
    let mut frame = Frame::encode(&batch(1)).unwrap();
    let good = frame.number(7).to_vec();
    for byte in 0..good.len() {
        for flip in [1u8, 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[byte] ^= flip;
            let (fixed, rest) = bytes.split_first_chunk().unwrap();
            if let Some(header) = frame::Header::read(fixed) {
                assert!(!header.holds(fixed, rest), "byte {byte}");
                let _ = header.batch(rest);
            }
        }
    }
}
