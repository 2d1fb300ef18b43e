//! One batch in the journal. Encoding 1, little endian, frozen:
//!
//! ```text
//!  0  magic "TMJ1"
//!  4  CRC32C of the header from byte 8 on, user agent included
//!  8  payload length in bytes, u32       12  CRC32C of the payload
//! 16  sequence number, u64               24  arrival, Unix ms, i64
//! 32  length of the lines, u32           36  flags: 1 = the payload is zstd
//! 37  address: 0 none, 4, 6              38  length of the user agent, u16
//! 40  address, 16 bytes (IPv4 in the first 4)
//! 56  user agent, then the payload
//! ```

use std::cell::RefCell;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use crc32c::crc32c;
use zstd::bulk::{Compressor, Decompressor};

use crate::engine::decode::PADDING_BYTES;
use crate::ingest::{Client, RawBatch};

pub const MAGIC: [u8; 4] = *b"TMJ1";
pub const HEADER_BYTES: usize = 56;
/// A longer one is cut.
const USER_AGENT_BYTES_MAX: usize = 4096;
/// Lines of a batch; the length of its payload has the same bound.
pub const BATCH_BYTES_MAX: usize = 1 << 30;
/// Smaller batches are kept as they are.
const COMPRESS_BYTES_MIN: usize = 256;
const ZSTD_LEVEL: i32 = 1;
const FLAG_ZSTD: u8 = 1;

/// A batch ready to be appended; only its sequence number is missing.
pub struct Frame {
    bytes: Vec<u8>,
    header_len: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a batch of {0} bytes is too large for the journal")]
    TooLarge(usize),
    #[error("compression failed: {0}")]
    Compress(io::Error),
}

impl Frame {
    /// Compresses and checksums: made where the batch came in, so that many are made at once.
    pub fn encode(batch: &RawBatch) -> Result<Self, FrameError> {
        let lines = &batch.bytes[..batch.len];
        if lines.len() > BATCH_BYTES_MAX {
            return Err(FrameError::TooLarge(lines.len()));
        }
        let compressed = match &batch.zstd {
            Some(zstd) => Some(zstd.clone()),
            None if lines.len() < COMPRESS_BYTES_MIN => None,
            None => Some(compress(lines).map_err(FrameError::Compress)?.into()),
        };
        let compressed: Option<Bytes> = compressed.filter(|zstd| zstd.len() < lines.len());
        let (flags, payload) = compressed.as_deref().map_or((0, lines), |zstd| (FLAG_ZSTD, zstd));
        let agent = batch.client.user_agent.as_deref().map_or("", |agent| cut(agent, USER_AGENT_BYTES_MAX));
        let mut bytes = Vec::with_capacity(HEADER_BYTES + agent.len() + payload.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&crc32c(payload).to_le_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&batch.arrival.to_le_bytes());
        bytes.extend_from_slice(&(lines.len() as u32).to_le_bytes());
        let (family, address) = address_bytes(batch.client.address);
        bytes.extend_from_slice(&[flags, family]);
        bytes.extend_from_slice(&(agent.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&address);
        bytes.extend_from_slice(agent.as_bytes());
        let header_len = bytes.len();
        bytes.extend_from_slice(payload);
        Ok(Self { bytes, header_len })
    }

    /// Its bytes under this sequence number.
    pub fn number(&mut self, sequence: u64) -> &[u8] {
        self.bytes[16..24].copy_from_slice(&sequence.to_le_bytes());
        let crc = crc32c(&self.bytes[8..self.header_len]);
        self.bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        &self.bytes
    }

    pub fn arrival(&self) -> i64 {
        i64::from_le_bytes(array(&self.bytes, 24))
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        false
    }
}

/// The fixed part of a header, not yet checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    crc: u32,
    pub payload_len: usize,
    payload_crc: u32,
    pub sequence: u64,
    pub arrival: i64,
    lines_len: usize,
    flags: u8,
    family: u8,
    pub agent_len: usize,
    address: [u8; 16],
}

impl Header {
    /// `None`: there is no frame here.
    pub fn read(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let header = Self {
            crc: u32::from_le_bytes(array(bytes, 4)),
            payload_len: u32::from_le_bytes(array(bytes, 8)) as usize,
            payload_crc: u32::from_le_bytes(array(bytes, 12)),
            sequence: u64::from_le_bytes(array(bytes, 16)),
            arrival: i64::from_le_bytes(array(bytes, 24)),
            lines_len: u32::from_le_bytes(array(bytes, 32)) as usize,
            flags: bytes[36],
            family: bytes[37],
            agent_len: usize::from(u16::from_le_bytes(array(bytes, 38))),
            address: array(bytes, 40),
        };
        let sane = header.lines_len <= BATCH_BYTES_MAX
            && header.payload_len <= BATCH_BYTES_MAX
            && header.agent_len <= USER_AGENT_BYTES_MAX
            && header.flags & !FLAG_ZSTD == 0;
        (bytes[..4] == MAGIC && sane).then_some(header)
    }

    /// Bytes behind the fixed part.
    pub fn rest_len(&self) -> usize {
        self.agent_len + self.payload_len
    }

    /// Whether the checksums hold. `fixed` is the fixed part, `rest` what is behind it.
    pub fn holds(&self, fixed: &[u8; HEADER_BYTES], rest: &[u8]) -> bool {
        if rest.len() != self.rest_len() {
            return false;
        }
        let (agent, payload) = rest.split_at(self.agent_len);
        crc32c::crc32c_append(crc32c(&fixed[8..]), agent) == self.crc && crc32c(payload) == self.payload_crc
    }

    /// The batch again; `None` where the payload is not what the header says.
    pub fn batch(&self, rest: &[u8]) -> Option<RawBatch> {
        let (agent, payload) = rest.split_at_checked(self.agent_len)?;
        let mut bytes = vec![0; self.lines_len + PADDING_BYTES];
        if self.flags & FLAG_ZSTD != 0 {
            let written = decompress(payload, &mut bytes[..self.lines_len]).ok()?;
            if written != self.lines_len {
                return None;
            }
        } else {
            bytes.get_mut(..payload.len())?.copy_from_slice(payload);
            if payload.len() != self.lines_len {
                return None;
            }
        }
        let user_agent = if agent.is_empty() { None } else { Some(Arc::from(std::str::from_utf8(agent).ok()?)) };
        let address = match self.family {
            4 => Some(IpAddr::from(array::<4>(&self.address, 0))),
            6 => Some(IpAddr::from(self.address)),
            _ => None,
        };
        let client = Client { address, user_agent };
        Some(RawBatch { bytes, len: self.lines_len, zstd: None, arrival: self.arrival, client, messages: None })
    }
}

// Contexts take a megabyte to set up: one a thread is kept.
thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

fn compress(lines: &[u8]) -> io::Result<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|kept| match kept {
        Some(compressor) => compressor.compress(lines),
        none => none.insert(Compressor::new(ZSTD_LEVEL)?).compress(lines),
    })
}

fn decompress(payload: &[u8], into: &mut [u8]) -> io::Result<usize> {
    DECOMPRESSOR.with_borrow_mut(|kept| match kept {
        Some(decompressor) => decompressor.decompress_to_buffer(payload, into),
        none => none.insert(Decompressor::new()?).decompress_to_buffer(payload, into),
    })
}

fn address_bytes(address: Option<IpAddr>) -> (u8, [u8; 16]) {
    match address {
        None => (0, [0; 16]),
        Some(IpAddr::V4(address)) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            (4, bytes)
        }
        Some(IpAddr::V6(address)) => (6, address.octets()),
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}
