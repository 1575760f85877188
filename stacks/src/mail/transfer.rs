//! Bodies as lines, in pieces of any size: CRLF at each line's end, dots stuffed, base64.

use encodify::base64::MIME;
use memchr::memchr2;

/// Bytes that make one line of 76 characters of base64 (RFC 2045, 6.8).
pub const LINE_BYTES: usize = 57;

/// Where a text is between two pieces of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Place {
    /// At the beginning of a line.
    #[default]
    LineStart,
    /// In a line.
    Line,
    /// After a CR, which has been written as a whole line end.
    AfterCr,
}

/// Appends `data` to `out` with CRLF for each CRLF, CR and LF; with `dots`, a dot at the beginning of a line is doubled
/// (RFC 5321, 4.5.2). Answers where the text is now.
pub fn lines(out: &mut Vec<u8>, mut data: &[u8], mut place: Place, dots: bool) -> Place {
    while let Some(&first) = data.first() {
        match (place, first) {
            (Place::AfterCr, b'\n') => {
                data = &data[1..];
                place = Place::LineStart;
                continue;
            }
            (Place::AfterCr | Place::LineStart, b'.') if dots => out.push(b'.'),
            _ => {}
        }
        let Some(end) = memchr2(b'\r', b'\n', data) else {
            out.extend_from_slice(data);
            return Place::Line;
        };
        out.extend_from_slice(&data[..end]);
        out.extend_from_slice(b"\r\n");
        place = if data[end] == b'\r' { Place::AfterCr } else { Place::LineStart };
        data = &data[end + 1..];
    }
    place
}

/// Appends `data` as lines of base64, each with its CRLF; only the last piece of a body may be other than a multiple
/// of [`LINE_BYTES`].
pub fn base64(out: &mut Vec<u8>, data: &[u8]) {
    if !data.is_empty() {
        MIME.encode_append(data, out);
        if !out.ends_with(b"\r\n") {
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Bytes of base64 lines for a body of `size` bytes.
pub fn base64_size(size: u64) -> u64 {
    let digits = size.div_ceil(3) * 4;
    digits + size.div_ceil(LINE_BYTES as u64) * 2
}

/// What there is to know of a text before it is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    /// Bytes, once every line end is CRLF and the last line has one.
    pub size: u64,
    /// The longest line, without its end.
    pub line_max: u64,
    /// A byte beyond 127 is in it.
    pub eight_bit: bool,
    /// A NUL is in it.
    pub nul: bool,
    /// A line ends in CR or LF alone.
    pub bare: bool,
    line: u64,
    after_cr: bool,
}

impl Scan {
    /// Looks at the next piece.
    pub fn update(&mut self, mut data: &[u8]) {
        self.eight_bit |= !data.is_ascii();
        self.nul |= memchr::memchr(0, data).is_some();
        if self.after_cr && !data.is_empty() {
            if data[0] == b'\n' {
                data = &data[1..]
            } else {
                self.bare = true
            }
            self.after_cr = false;
        }
        while let Some(end) = memchr2(b'\r', b'\n', data) {
            self.run(end);
            self.size += 2;
            self.line = 0;
            let cr = data[end] == b'\r';
            data = &data[end + 1..];
            match (cr, data.first()) {
                (true, Some(b'\n')) => data = &data[1..],
                (true, None) => self.after_cr = true,
                _ => self.bare = true,
            }
        }
        self.run(data.len());
    }

    /// The text has ended.
    pub fn finish(&mut self) {
        self.bare |= std::mem::take(&mut self.after_cr);
        if self.line > 0 {
            self.size += 2;
            self.line = 0;
        }
    }

    fn run(&mut self, count: usize) {
        self.size += count as u64;
        self.line += count as u64;
        self.line_max = self.line_max.max(self.line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8], dots: bool) -> Vec<u8> {
        let mut out = Vec::new();
        lines(&mut out, text, Place::default(), dots);
        out
    }

    const TEXT: &[u8] = b".a\r\n..b\n\r\r\n\n.\r.\r\n\r\n x.y\n\n.";

    #[test]
    fn each_kind_of_line_end_is_crlf_and_a_leading_dot_is_doubled() {
        assert_eq!(all(b"a\nb\rc\r\nd", false), b"a\r\nb\r\nc\r\nd");
        assert_eq!(all(b"\n\r\r\n", false), b"\r\n\r\n\r\n");
        assert_eq!(all(b".\n..\r.x\r\na.b", true), b"..\r\n...\r\n..x\r\na.b");
        assert_eq!(all(b".\n", false), b".\r\n");
    }

    #[test]
    fn a_text_cut_anywhere_gives_the_same_lines_and_the_same_scan() {
        for dots in [true, false] {
            let whole = all(TEXT, dots);
            for cut in 0..=TEXT.len() {
                for second in cut..=TEXT.len() {
                    let mut out = Vec::new();
                    let mut place = Place::default();
                    let mut scan = Scan::default();
                    for piece in [&TEXT[..cut], &TEXT[cut..second], &TEXT[second..]] {
                        place = lines(&mut out, piece, place, dots);
                        scan.update(piece);
                    }
                    scan.finish();
                    assert_eq!(out, whole, "cut at {cut} and {second}");
                    if !dots {
                        assert_eq!(scan.size, whole.len() as u64 + 2, "cut at {cut} and {second}");
                        assert_eq!((scan.line_max, scan.bare, scan.nul, scan.eight_bit), (4, true, false, false));
                    }
                }
            }
        }
    }

    #[test]
    fn a_scan_tells_what_the_server_must_be_able_to_take() {
        let mut scan = Scan::default();
        scan.update("Grüße\r\n".as_bytes());
        scan.finish();
        assert_eq!((scan.size, scan.eight_bit, scan.bare), (9, true, false));
        let mut scan = Scan::default();
        scan.update(b"a\0\r");
        scan.finish();
        assert_eq!((scan.size, scan.nul, scan.bare), (4, true, true));
        let mut scan = Scan::default();
        scan.finish();
        assert_eq!(scan, Scan::default());
    }

    #[test]
    fn base64_in_pieces_is_base64_of_the_whole_with_lines_of_76() {
        let data: Vec<u8> = (0..1000u32).map(|n| (n * 7) as u8).collect();
        let whole = data_encoding::BASE64.encode(&data);
        for count in [1, 3, 7] {
            let mut out = Vec::new();
            for piece in data.chunks(LINE_BYTES * count) {
                base64(&mut out, piece);
            }
            let text = String::from_utf8(out).unwrap();
            assert!(text.ends_with("\r\n") && text.lines().all(|line| line.len() <= 76));
            assert_eq!(text.replace("\r\n", ""), whole);
            assert_eq!(text.len() as u64, base64_size(data.len() as u64));
        }
        for size in [0, 1, 56, 57, 58, 114] {
            let mut out = Vec::new();
            base64(&mut out, &data[..size]);
            assert_eq!(out.len() as u64, base64_size(size as u64), "{size}");
        }
    }
}
