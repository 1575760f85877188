//! The data representations of section 1.5: integers, strings and lengths, read and written.

use super::Fault;

/// The largest Variable Byte Integer (1.5.5).
pub const VARINT_MAX: u32 = 268_435_455;

/// The longest string or binary data (1.5.4, 1.5.6).
pub const LENGTH_MAX: usize = 65_535;

/// Takes fields off the front of a packet's bytes.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from their front.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether nothing is left.
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// How many bytes are left.
    pub const fn len(&self) -> usize {
        self.rest.len()
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize, what: &'static str) -> Result<&'a [u8], Fault> {
        let Some((taken, rest)) = self.rest.split_at_checked(n) else {
            return Err(Fault::malformed(format!("{what}: the packet ends before it does")));
        };
        self.rest = rest;
        Ok(taken)
    }

    /// One byte.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, Fault> {
        self.take(1, what).map(|bytes| bytes[0])
    }

    /// A Two Byte Integer (1.5.2).
    pub fn u16(&mut self, what: &'static str) -> Result<u16, Fault> {
        self.take(2, what).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A Four Byte Integer (1.5.3).
    pub fn u32(&mut self, what: &'static str) -> Result<u32, Fault> {
        self.take(4, what).map(|bytes| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// A Variable Byte Integer in its shortest form [MQTT-1.5.5-1].
    pub fn varint(&mut self, what: &'static str) -> Result<u32, Fault> {
        match varint(self.rest) {
            Varint::Whole { value, size, minimal: true } => {
                self.rest = &self.rest[size..];
                Ok(value)
            }
            Varint::Whole { .. } => Err(Fault::malformed(format!("{what}: not in its shortest form"))),
            Varint::Partial => Err(Fault::malformed(format!("{what}: the packet ends before it does"))),
            Varint::TooLong => Err(Fault::malformed(format!("{what}: longer than four bytes"))),
        }
    }

    /// Binary Data (1.5.6).
    pub fn bytes(&mut self, what: &'static str) -> Result<&'a [u8], Fault> {
        let length = self.u16(what)?;
        self.take(length.into(), what)
    }

    /// A UTF-8 Encoded String (1.5.4).
    pub fn text(&mut self, what: &'static str) -> Result<&'a str, Fault> {
        text(self.bytes(what)?, what)
    }
}

/// A string of the protocol: well-formed UTF-8 without surrogates [MQTT-1.5.4-1] (3.1.1:
/// [MQTT-1.5.3-1]) and without U+0000 [MQTT-1.5.4-2] (3.1.1: [MQTT-1.5.3-2]).
pub fn text<'a>(bytes: &'a [u8], what: &'static str) -> Result<&'a str, Fault> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Err(Fault::malformed(format!("{what}: not well-formed UTF-8")));
    };
    no_null(bytes, what)?;
    Ok(text)
}

/// Refuses U+0000.
pub(super) fn no_null(bytes: &[u8], what: &'static str) -> Result<(), Fault> {
    // Without a way out in the middle this is done for many bytes at once.
    if bytes.iter().fold(false, |found, &byte| found | (byte == 0)) {
        return Err(Fault::malformed(format!("{what}: contains the null character")));
    }
    Ok(())
}

/// What stands at the front of some bytes, read as a Variable Byte Integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Varint {
    /// A number, the bytes it took, and whether fewer would have done.
    Whole {
        /// The number.
        value: u32,
        /// How many bytes it took.
        size: usize,
        /// Whether that is the shortest form.
        minimal: bool,
    },
    /// It goes on after these bytes.
    Partial,
    /// It goes on after four bytes.
    TooLong,
}

/// Reads the front of `bytes` as a Variable Byte Integer (1.5.5).
pub fn varint(bytes: &[u8]) -> Varint {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Varint::Whole { value, size: index + 1, minimal: index == 0 || *byte != 0 };
        }
    }
    if bytes.len() < 4 { Varint::Partial } else { Varint::TooLong }
}

/// How many bytes the shortest form of `value` takes.
pub const fn varint_size(value: u32) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// The shortest form of `value` (at most [`VARINT_MAX`]): the bytes and their count.
pub const fn varint_bytes(mut value: u32) -> ([u8; 4], usize) {
    let mut bytes = [0; 4];
    let size = varint_size(value);
    let mut index = 0;
    while index < size {
        bytes[index] = (value & 0x7F) as u8 | if index + 1 < size { 0x80 } else { 0 };
        value >>= 7;
        index += 1;
    }
    (bytes, size)
}

/// Appends fields to a packet's bytes. Nothing is ever cut to fit.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Writes at the end of `out`.
    pub const fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    /// A Two Byte Integer.
    pub fn u16(&mut self, value: u16) {
        self.raw(&value.to_be_bytes());
    }

    /// A Four Byte Integer.
    pub fn u32(&mut self, value: u32) {
        self.raw(&value.to_be_bytes());
    }

    /// A Variable Byte Integer, in its shortest form [MQTT-1.5.5-1].
    pub fn varint(&mut self, value: usize, what: &'static str) -> Result<(), Fault> {
        match u32::try_from(value) {
            Ok(value) if value <= VARINT_MAX => {
                let (bytes, size) = varint_bytes(value);
                self.raw(&bytes[..size]);
                Ok(())
            }
            _ => Err(Fault::too_large(format!("{what}: {value}, at most {VARINT_MAX}"))),
        }
    }

    /// Binary Data: its length, then itself.
    pub fn bytes(&mut self, bytes: &[u8], what: &'static str) -> Result<(), Fault> {
        let Ok(length) = u16::try_from(bytes.len()) else {
            return Err(Fault::too_large(format!("{what}: {} bytes, at most {LENGTH_MAX}", bytes.len())));
        };
        self.u16(length);
        self.raw(bytes);
        Ok(())
    }

    /// A UTF-8 Encoded String.
    pub fn text(&mut self, text_: &str, what: &'static str) -> Result<(), Fault> {
        self.bytes(text(text_.as_bytes(), what)?.as_bytes(), what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_the_bytes_of_table_1_1() {
        let edges: [(u32, &[u8]); 8] = [
            (0, &[0x00]),
            (127, &[0x7F]),
            (128, &[0x80, 0x01]),
            (16_383, &[0xFF, 0x7F]),
            (16_384, &[0x80, 0x80, 0x01]),
            (2_097_151, &[0xFF, 0xFF, 0x7F]),
            (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
            (VARINT_MAX, &[0xFF, 0xFF, 0xFF, 0x7F]),
        ];
        for (value, wire) in edges {
            let mut out = Vec::new();
            Writer::new(&mut out).varint(value as usize, "length").unwrap();
            assert_eq!(out, wire);
            assert_eq!(varint(wire), Varint::Whole { value, size: wire.len(), minimal: true });
            assert_eq!(varint_size(value), wire.len());
            for cut in 0..wire.len() {
                assert_eq!(varint(&wire[..cut]), Varint::Partial);
            }
        }
        let mut out = Vec::new();
        assert_eq!(Writer::new(&mut out).varint(VARINT_MAX as usize + 1, "length").unwrap_err().code, 0x95);
        assert!(out.is_empty());
    }

    #[test]
    fn a_length_that_could_be_shorter_or_goes_on_is_refused() {
        // [MQTT-1.5.5-1]
        for wire in [&[0x80, 0x00][..], &[0xFF, 0x80, 0x00], &[0x80, 0x80, 0x80, 0x00]] {
            assert_eq!(Reader::new(wire).varint("length").unwrap_err().code, 0x81, "{wire:02X?}");
        }
        assert_eq!(varint(&[0x80, 0x80, 0x80, 0x80]), Varint::TooLong);
        assert_eq!(varint(&[0xFF, 0xFF, 0xFF, 0xFF, 0x7F]), Varint::TooLong);
    }

    #[test]
    fn a_string_is_utf_8_without_surrogates_and_null() {
        // The example of figure 1.1: "A" followed by U+2A6D4.
        assert_eq!(Reader::new(&[0, 5, 0x41, 0xF0, 0xAA, 0x9B, 0x94]).text("t").unwrap(), "A\u{2A6D4}");
        // [MQTT-1.5.4-3]: U+FEFF stays where it stands.
        assert_eq!(Reader::new(&[0, 3, 0xEF, 0xBB, 0xBF]).text("t").unwrap(), "\u{FEFF}");
        // [MQTT-1.5.4-1]: U+D800, an overlong "/", a lone continuation, beyond U+10FFFF. [MQTT-1.5.4-2]: U+0000.
        for bad in [&[0xED, 0xA0, 0x80][..], &[0xC0, 0xAF], &[0x80], &[0xF4, 0x90, 0x80, 0x80], b"a\0b", &[0xC0, 0x80]]
        {
            assert_eq!(text(bad, "t").unwrap_err().code, 0x81, "{bad:02X?}");
        }
    }

    #[test]
    fn a_string_of_65535_bytes_is_written_and_one_more_names_its_field() {
        let mut out = Vec::new();
        Writer::new(&mut out).text(&"x".repeat(LENGTH_MAX), "client_id").unwrap();
        assert_eq!(out.len(), 2 + LENGTH_MAX);
        let fault = Writer::new(&mut out).text(&"x".repeat(LENGTH_MAX + 1), "client_id").unwrap_err();
        assert_eq!(fault.kind, moonwire_runtime::Kind::Limit);
        assert_eq!(fault.message, "client_id: 65536 bytes, at most 65535");
        assert_eq!(out.len(), 2 + LENGTH_MAX);
    }
}
