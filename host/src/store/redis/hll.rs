//! Our sketches as the strings of Redis's own HyperLogLog, on which `PFCOUNT` and `PFMERGE` answer rightly.
//!
//! `HYLL`, the encoding (0 dense, 1 sparse), three zero bytes, eight bytes of a cached count, of which the top bit says that it
//! is stale; then dense: 16,384 registers of six bits, least significant bit first; sparse: runs, see `encode_sparse`.
//! Redis hashes otherwise, but counts and merges by registers alone: what must not be done is `PFADD` to such a string.

use crate::engine::sketch::{REGISTERS, SPARSE_ENTRIES_MAX, Sketch};

const HEADER: usize = 16;
const DENSE_BYTES: usize = HEADER + REGISTERS * 6 / 8;
/// Redis's sparse form holds no higher rank.
const SPARSE_RANK_MAX: u8 = 32;
/// With more registers set, dense is what Redis itself would take.
const SPARSE_REGISTERS_MAX: usize = 1_500;

/// Whichever form is the shorter.
pub fn encode(sketch: &Sketch) -> Vec<u8> {
    let registers = sketch.registers();
    let set = registers.iter().filter(|&&rank| rank > 0).count();
    let fits = set <= SPARSE_REGISTERS_MAX && registers.iter().all(|&rank| rank <= SPARSE_RANK_MAX);
    if fits { encode_sparse(&registers) } else { encode_dense(&registers) }
}

pub fn encode_dense(registers: &[u8; REGISTERS]) -> Vec<u8> {
    let mut out = header(0, DENSE_BYTES);
    for four in registers.chunks_exact(4) {
        let bits = four.iter().rev().fold(0u32, |bits, &rank| bits << 6 | u32::from(rank & 63));
        out.extend_from_slice(&bits.to_le_bytes()[..3]);
    }
    out
}

/// Runs: `00xxxxxx` 1 to 64 zeros; `01xxxxxx yyyyyyyy` 1 to 16,384 zeros; `1vvvvvxx` the rank 1 to 32, 1 to 4 times.
fn encode_sparse(registers: &[u8; REGISTERS]) -> Vec<u8> {
    let mut out = header(1, HEADER);
    for run in registers.chunk_by(|a, b| a == b) {
        match run[0] {
            0 if run.len() <= 64 => out.push(run.len() as u8 - 1),
            0 => out.extend_from_slice(&(0x4000 | (run.len() as u16 - 1)).to_be_bytes()),
            rank => {
                let times = (0..run.len()).step_by(4).map(|at| (run.len() - at).min(4) as u8);
                out.extend(times.map(|times| 0x80 | (rank - 1) << 2 | (times - 1)));
            }
        }
    }
    out
}

fn header(encoding: u8, capacity: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(capacity);
    out.extend_from_slice(b"HYLL");
    out.extend_from_slice(&[encoding, 0, 0, 0]);
    out.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0x80]);
    out
}

/// The registers of a dense string; `None` where it is none.
pub fn decode_dense(bytes: &[u8]) -> Option<Box<[u8; REGISTERS]>> {
    if bytes.len() < DENSE_BYTES || !bytes.starts_with(b"HYLL\0") {
        return None;
    }
    let mut registers = Box::new([0; REGISTERS]);
    for (four, packed) in registers.chunks_exact_mut(4).zip(bytes[HEADER..DENSE_BYTES].chunks_exact(3)) {
        let bits = u32::from_le_bytes([packed[0], packed[1], packed[2], 0]);
        four.iter_mut().enumerate().for_each(|(at, rank)| *rank = (bits >> (6 * at)) as u8 & 63);
    }
    Some(registers)
}

/// The sketch that a cell has become: appended sparse entries, in any order and with repeats, and what was dense.
pub fn join(entries: &[u8], dense: Option<&[u8]>) -> Option<Sketch> {
    let entries: Vec<u32> =
        entries.chunks(4).map(|e| e.try_into().map(u32::from_le_bytes).ok()).collect::<Option<_>>()?;
    let mut sketch = Sketch::from_entries(entries);
    if let Some(dense) = dense {
        let mut joined = Sketch::Dense(decode_dense(dense)?);
        joined.merge(&sketch);
        sketch = joined;
    }
    Some(sketch)
}

/// Sparse entries as they are appended.
pub fn entry_bytes(entries: &[u32]) -> Vec<u8> {
    debug_assert!(entries.len() <= SPARSE_ENTRIES_MAX);
    entries.iter().flat_map(|entry| entry.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_64;

    #[test]
    fn dense_registers_come_back() {
        for n in [0u64, 1, 5_000, 200_000] {
            let mut sketch = Sketch::default();
            (0..n).for_each(|n| sketch.insert(xxh3_64(&n.to_le_bytes())));
            let registers = sketch.registers();
            let bytes = encode_dense(&registers);
            assert_eq!(bytes.len(), 12_304);
            assert_eq!(decode_dense(&bytes).as_ref(), Some(&registers));
            assert_eq!(decode_dense(&bytes[1..]), None);
        }
    }

    #[test]
    fn a_cell_in_pieces_is_the_sketch_in_one() {
        for (entries, dense) in [(0..100u64, 0..0u64), (0..9_000, 0..0), (0..50, 20..6_000), (0..0, 0..5_000)] {
            let sketch = |range: std::ops::Range<u64>| {
                let mut sketch = Sketch::default();
                range.for_each(|n| sketch.insert(xxh3_64(&n.to_le_bytes())));
                sketch
            };
            let hashes = entries.clone().chain(entries.clone().take(10)).map(|n| xxh3_64(&n.to_le_bytes()));
            let appended: Vec<u8> = hashes.flat_map(|hash| crate::engine::sketch::entry(hash).to_le_bytes()).collect();
            let stored = (!dense.is_empty()).then(|| encode_dense(&sketch(dense.clone()).registers()));
            let mut whole = sketch(entries);
            whole.merge(&sketch(dense));
            assert_eq!(join(&appended, stored.as_deref()), Some(whole));
        }
        assert_eq!(join(&[1, 2, 3], None), None);
        assert_eq!(join(&[], Some(b"HYLL")), None);
    }
}
