//! A request's body to lines of JSON: decompression under a limit, an array's elements to lines. Does not know what an event is.

use std::io::Read;

use bytes::Bytes;

use crate::engine::decode::PADDING_BYTES;

/// 32 MiB of window: what `zstd --long=25` asks of its reader.
const ZSTD_WINDOW_LOG_MAX: u32 = 25;
/// Stands where a control character was that would have ended the line: no JSON string may hold it either.
const BROKEN: u8 = 0x01;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Plain,
    Gzip,
    Zstd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A line an event.
    Lines,
    /// An array of events, or one event.
    Json,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("the body is larger than {bytes_max} bytes when decompressed")]
    TooLarge { bytes_max: usize },
    #[error("the body is no valid {encoding}: {reason}")]
    Corrupt { encoding: &'static str, reason: String },
    #[error("the body has no events")]
    Empty,
}

/// Lines as `RawBatch` wants them.
#[derive(Debug, PartialEq, Eq)]
pub struct Lines {
    /// `PADDING_BYTES` zeros follow `len`.
    pub bytes: Vec<u8>,
    pub len: usize,
    pub zstd: Option<Bytes>,
}

/// `raw` is the body as it came; a plain body of lines is passed on without a copy if it has room for the padding.
pub fn lines(raw: Vec<u8>, encoding: Encoding, format: Format, bytes_max: usize) -> Result<Lines, BodyError> {
    let (mut bytes, zstd) = match decompressed(&raw, encoding, bytes_max)? {
        None => (raw, None),
        Some(plain) => {
            let kept = encoding == Encoding::Zstd && format == Format::Lines;
            (plain, kept.then(|| Bytes::from(raw)))
        }
    };
    if bytes.len() > bytes_max {
        return Err(BodyError::TooLarge { bytes_max });
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(BodyError::Empty);
    }
    if format == Format::Json {
        bytes = json_to_lines(&bytes);
    }
    let len = bytes.len();
    bytes.resize(len + PADDING_BYTES, 0);
    Ok(Lines { bytes, len, zstd })
}

/// `None`: it was not compressed.
pub fn decompressed(raw: &[u8], encoding: Encoding, bytes_max: usize) -> Result<Option<Vec<u8>>, BodyError> {
    let plain = match encoding {
        Encoding::Plain => return Ok(None),
        Encoding::Gzip => read_bounded(flate2::read::MultiGzDecoder::new(raw), "gzip", raw.len(), bytes_max)?,
        Encoding::Zstd => {
            let broken = |error: std::io::Error| BodyError::Corrupt { encoding: "zstd", reason: error.to_string() };
            let mut decoder = zstd::Decoder::with_buffer(raw).map_err(broken)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(broken)?;
            read_bounded(decoder, "zstd", raw.len(), bytes_max)?
        }
    };
    Ok(Some(plain))
}

fn read_bounded(
    mut decoder: impl Read,
    encoding: &'static str,
    compressed: usize,
    bytes_max: usize,
) -> Result<Vec<u8>, BodyError> {
    let guess = compressed.saturating_mul(6).min(bytes_max) + PADDING_BYTES;
    let mut out = Vec::with_capacity(guess);
    match (&mut decoder).take(bytes_max as u64 + 1).read_to_end(&mut out) {
        Err(error) => Err(BodyError::Corrupt { encoding, reason: error.to_string() }),
        Ok(_) if out.len() > bytes_max => Err(BodyError::TooLarge { bytes_max }),
        Ok(_) => Ok(out),
    }
}

/// One line for each element of an array, or one for anything else. What is wrong with an element stays wrong with its line
/// alone; what is wrong between elements makes a line of its own that is no JSON.
pub(super) fn json_to_lines(json: &[u8]) -> Vec<u8> {
    let start = json.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(json.len());
    let mut out = Vec::with_capacity(json.len() + PADDING_BYTES + 16);
    let mut walk = Walk::default();
    if json.get(start) != Some(&b'[') {
        json[start..].iter().for_each(|&byte| out.push(walk.step(byte)));
        return out;
    }
    let mut rest = json[start + 1..].iter();
    let (mut element, mut separated) = (0, false);
    for &byte in rest.by_ref() {
        if walk.depth == 0 && !walk.in_string && matches!(byte, b',' | b']') {
            let blank = out[element..].iter().all(u8::is_ascii_whitespace);
            // `[]` has no element; `[,]` and `[{},]` lack one.
            if blank && (byte == b',' || separated) {
                out.push(b',');
            }
            if byte == b']' {
                return finish_array(out, rest.as_slice());
            }
            out.push(b'\n');
            (element, separated) = (out.len(), true);
        } else {
            out.push(walk.step(byte));
        }
    }
    // The array was not closed: its last element is not whole.
    out.push(BROKEN);
    out
}

fn finish_array(mut out: Vec<u8>, behind: &[u8]) -> Vec<u8> {
    if !behind.iter().all(u8::is_ascii_whitespace) {
        out.extend_from_slice(b"\n]");
    }
    out
}

/// Where in a JSON text we are, as far as finding the ends of elements needs it.
#[derive(Default)]
struct Walk {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Walk {
    /// Goes on by one byte and gives what stands for it in a line.
    #[inline]
    fn step(&mut self, byte: u8) -> u8 {
        let ends_line = byte == b'\n' || byte == b'\r';
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return if ends_line { BROKEN } else { byte };
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        if ends_line { b' ' } else { byte }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn text(lines: &Lines) -> &str {
        assert_eq!(lines.bytes[lines.len..], [0; PADDING_BYTES]);
        std::str::from_utf8(&lines.bytes[..lines.len]).unwrap()
    }

    #[test]
    fn json_becomes_lines() {
        let cases = [
            (r#"{"a":1}"#, r#"{"a":1}"#),
            ("  {\n\"a\":\r\n1}\n", "{ \"a\":  1} "),
            ("{\"a\":\"x\ny\"}", "{\"a\":\"x\u{1}y\"}"),
            ("{}\n{}", "{} {}"),
            (r#"[{"a":1},{"b":[1,2]}]"#, "{\"a\":1}\n{\"b\":[1,2]}"),
            ("[\n  {\n    \"a\": 1\n  },\n  {}\n]\n", "   {     \"a\": 1   }\n   {} "),
            (r#"[{"a":"],[\"\\"},{}]"#, "{\"a\":\"],[\\\"\\\\\"}\n{}"),
            ("[{\"a\":\"x\ny\"},{}]", "{\"a\":\"x\u{1}y\"}\n{}"),
            ("[{\"a\":\"\\\n\"},{}]", "{\"a\":\"\\\u{1}\"}\n{}"),
            ("[1,\"x\",null]", "1\n\"x\"\nnull"),
            ("[]", ""),
            ("[ ]", " "),
            ("[{},]", "{}\n,"),
            ("[,{}]", ",\n{}"),
            ("[{},,{}]", "{}\n,\n{}"),
            ("[{},{}", "{}\n{}\u{1}"),
            ("[{},{\"a\":", "{}\n{\"a\":\u{1}"),
            ("[{}] {}", "{}\n]"),
            ("[{}]]", "{}\n]"),
            ("[{}}},{}]", "{}}}\n{}"),
        ];
        for (json, expected) in cases {
            let lines = lines(json.into(), Encoding::Plain, Format::Json, 1_000).unwrap();
            assert_eq!(text(&lines), expected, "{json}");
        }
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn compressed_bodies_are_bounded() {
        let ndjson = "{\"a\":1}\n".repeat(1_000).into_bytes();
        let zstd = zstd::encode_all(ndjson.as_slice(), 3).unwrap();
        for (raw, encoding) in [(gzip(&ndjson), Encoding::Gzip), (zstd.clone(), Encoding::Zstd)] {
            let whole = lines(raw.clone(), encoding, Format::Lines, ndjson.len()).unwrap();
            assert_eq!(text(&whole).as_bytes(), ndjson);
            assert_eq!(whole.zstd.is_some(), encoding == Encoding::Zstd);
            let less = ndjson.len() - 1;
            let refused = lines(raw.clone(), encoding, Format::Lines, less);
            assert_eq!(refused, Err(BodyError::TooLarge { bytes_max: less }));
            for cut in [raw[..raw.len() - 3].to_vec(), b"neither".to_vec()] {
                let corrupt = lines(cut, encoding, Format::Lines, ndjson.len());
                assert!(matches!(corrupt, Err(BodyError::Corrupt { .. })), "{encoding:?}: {corrupt:?}");
            }
        }
        let two = [gzip(b"{}\n"), gzip(b"{}\n")].concat();
        assert_eq!(text(&lines(two, Encoding::Gzip, Format::Lines, 10).unwrap()), "{}\n{}\n");
        assert_eq!(lines(zstd, Encoding::Zstd, Format::Json, ndjson.len()).unwrap().zstd, None);
    }

    #[test]
    fn blank_bodies_are_empty() {
        for body in ["", " ", "\n\r\n\t"] {
            for format in [Format::Lines, Format::Json] {
                assert_eq!(lines(body.into(), Encoding::Plain, format, 10), Err(BodyError::Empty));
            }
        }
    }
}
