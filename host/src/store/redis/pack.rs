//! MessagePack, as far as the functions in Redis need it: they read it with `cmsgpack`.

/// Writes.
#[derive(Default)]
pub struct Pack(pub Vec<u8>);

impl Pack {
    pub fn array(&mut self, len: usize) -> &mut Self {
        match len {
            0..16 => self.0.push(0x90 | len as u8),
            _ => {
                self.0.push(0xdd);
                self.0.extend_from_slice(&(len as u32).to_be_bytes());
            }
        }
        self
    }

    pub fn bytes(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let bytes = bytes.as_ref();
        match bytes.len() {
            len @ 0..32 => self.0.push(0xa0 | len as u8),
            len => {
                self.0.push(0xdb);
                self.0.extend_from_slice(&(len as u32).to_be_bytes());
            }
        }
        self.0.extend_from_slice(bytes);
        self
    }

    /// Lua's numbers are exact up to 2^53.
    pub fn number(&mut self, number: u64) -> &mut Self {
        match number {
            0..128 => self.0.push(number as u8),
            _ => {
                self.0.push(0xcf);
                self.0.extend_from_slice(&number.to_be_bytes());
            }
        }
        self
    }
}

/// Reads a list of texts as `cmsgpack.pack` writes it; `None` where it is none.
pub fn texts(mut bytes: &[u8]) -> Option<Vec<&str>> {
    let len = match take_byte(&mut bytes)? {
        // Lua's empty table may be either.
        0x80 => 0,
        byte @ 0x90..=0x9f => usize::from(byte & 15),
        0xdc => take_length(&mut bytes, 2)?,
        0xdd => take_length(&mut bytes, 4)?,
        _ => return None,
    };
    let mut texts = Vec::with_capacity(len.min(bytes.len()));
    for _ in 0..len {
        let len = match take_byte(&mut bytes)? {
            byte @ 0xa0..=0xbf => usize::from(byte & 31),
            0xd9 | 0xc4 => take_length(&mut bytes, 1)?,
            0xda | 0xc5 => take_length(&mut bytes, 2)?,
            0xdb | 0xc6 => take_length(&mut bytes, 4)?,
            _ => return None,
        };
        let (text, rest) = bytes.split_at_checked(len)?;
        texts.push(std::str::from_utf8(text).ok()?);
        bytes = rest;
    }
    bytes.is_empty().then_some(texts)
}

fn take_byte(bytes: &mut &[u8]) -> Option<u8> {
    let (&first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(first)
}

fn take_length(bytes: &mut &[u8], width: usize) -> Option<usize> {
    let (length, rest) = bytes.split_at_checked(width)?;
    *bytes = rest;
    Some(length.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_whatever_their_length() {
        let long = ["x".repeat(31), "y".repeat(32), "z".repeat(300), "ö".repeat(40_000)];
        let many: Vec<String> = (0..20).map(|n| n.to_string()).collect();
        for list in [&[][..], &[String::new()], &long, &many] {
            let mut pack = Pack::default();
            pack.array(list.len());
            for text in list.iter() {
                pack.bytes(text);
            }
            assert_eq!(texts(&pack.0).unwrap(), list);
            (0..pack.0.len()).for_each(|cut| assert_eq!(texts(&pack.0[..cut]), None));
        }
    }
}
