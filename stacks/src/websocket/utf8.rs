//! UTF-8 that comes in pieces (8.1): wrong bytes are found when they come, a character may be cut anywhere.

/// The beginning of a character whose end has not come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Utf8 {
    held: [u8; 4],
    len: u8,
}

impl Utf8 {
    /// Looks at the next bytes: whether all so far may be the beginning of UTF-8.
    #[must_use]
    pub fn feed(&mut self, mut bytes: &[u8]) -> bool {
        while self.len > 0 {
            let Some((&first, rest)) = bytes.split_first() else { return true };
            let len = usize::from(self.len);
            self.held[len] = first;
            self.len += 1;
            bytes = rest;
            match std::str::from_utf8(&self.held[..=len]) {
                Ok(_) => self.len = 0,
                // Three bytes of a character are never an error that is yet to be seen, and four are whole.
                Err(error) if error.error_len().is_some() => return false,
                Err(_) => {}
            }
        }
        match std::str::from_utf8(bytes) {
            Ok(_) => true,
            Err(error) if error.error_len().is_some() => false,
            Err(error) => {
                let rest = &bytes[error.valid_up_to()..];
                self.held[..rest.len()].copy_from_slice(rest);
                self.len = rest.len() as u8;
                true
            }
        }
    }

    /// Whether no character is cut.
    pub fn is_complete(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the character that is cut.
    pub fn held(&self) -> usize {
        self.len.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cut_anywhere_is_text() {
        let text = "aß€\u{10FFFF}\u{D7FF}\u{E000}z".as_bytes();
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let mut utf8 = Utf8::default();
                assert!(utf8.feed(&text[..first]) && utf8.feed(&text[first..second]) && utf8.feed(&text[second..]));
                assert!(utf8.is_complete());
            }
        }
    }

    #[test]
    fn what_is_no_text_is_found_at_its_first_wrong_byte() {
        // A surrogate, beyond U+10FFFF, too long a form, a lone continuation, a byte that never occurs.
        for (good, wrong) in [
            (&b"a\xED"[..], 0xA0),
            (b"\xF4", 0x90),
            (b"\xE0", 0x80),
            (b"\xF0", 0x8F),
            (b"ok", 0x80),
            (b"", 0xFF),
            (b"\xC3", b'a'),
            (b"\xE2\x82", b'a'),
        ] {
            let mut utf8 = Utf8::default();
            for byte in good {
                assert!(utf8.feed(&[*byte]), "{good:X?}");
            }
            assert!(!utf8.feed(&[wrong]), "{good:X?} {wrong:X}");
            let mut utf8 = Utf8::default();
            assert!(!utf8.feed(&[good, &[wrong]].concat()));
        }
    }

    #[test]
    fn text_that_ends_within_a_character_is_incomplete() {
        let mut utf8 = Utf8::default();
        assert!(utf8.feed(b"\xF0\x9F\x98"));
        assert!(!utf8.is_complete());
        assert_eq!(utf8.held(), 3);
    }
}
