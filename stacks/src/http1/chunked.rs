//! A chunked body, piece by piece (RFC 9112, 7.1).

use std::ops::Range;

use moonwire_runtime::Buffer;

use super::{Fault, Headers, Limits, head};

/// Bytes of one line with a chunk's size and its extensions.
const LINE_MAX: usize = 4096;

/// Bytes of extensions in one body: each chunk may have some, and nobody uses them.
const EXTENSIONS_MAX: usize = 16 * 1024;

/// Digits of a chunk's size: sixteen are 64 bits.
const DIGITS_MAX: usize = 16;

/// Where a body stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a size.
    Size,
    /// Inside a chunk, so many bytes before its end.
    Data(u64),
    /// Before the CR LF that ends a chunk.
    DataEnd,
    /// After the last chunk.
    Trailers,
    /// After the end.
    Done,
}

/// Takes the chunks of one body off the front of a buffer.
#[derive(Debug)]
pub struct Chunked {
    state: State,
    extensions: usize,
    limits: Limits,
}

/// What one step found.
#[derive(Debug)]
pub enum Step {
    /// These bytes of the buffer are the next piece; with it, so many bytes at the front are used up.
    Piece {
        /// Where the piece lies.
        piece: Range<usize>,
        /// How much of the buffer is done with.
        used: usize,
    },
    /// More bytes are needed; so many at the front are used up.
    More(usize),
    /// The body has ended; so many bytes at the front are used up.
    End(Headers, usize),
}

impl Chunked {
    /// Before the first chunk. `trailers` bounds what may come after the last.
    pub fn new(trailers: Limits) -> Self {
        Self { state: State::Size, extensions: 0, limits: trailers }
    }

    /// Whether the whole body has been taken.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// How many bytes are left of the chunk one is inside of.
    pub fn left(&self) -> u64 {
        if let State::Data(left) = self.state { left } else { 0 }
    }

    /// Passes over bytes of the chunk one is inside of, that the caller has already; at most [`Self::left`].
    pub fn pass(&mut self, count: u64) {
        if let State::Data(left) = self.state {
            let left = left.saturating_sub(count);
            self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
        }
    }

    /// Looks for the next piece, of at most `piece_max` bytes. Short chunks are moved together, so that many become
    /// one piece; the bytes between them are lost with that, but they are used up.
    pub fn step(&mut self, buffer: &mut Buffer, piece_max: usize) -> Result<Step, Fault> {
        let bytes = buffer.as_mut_slice();
        let mut piece = 0..0;
        let mut used = 0;
        loop {
            match self.state {
                State::Size => {
                    let Some((size, len)) = size_line(&bytes[used..], &mut self.extensions)? else { break };
                    used += len;
                    self.state = if size == 0 { State::Trailers } else { State::Data(size) };
                }
                State::Data(left) => {
                    let room = piece_max - piece.len();
                    let here = (bytes.len() - used).min(room).min(usize::try_from(left).unwrap_or(usize::MAX));
                    if here == 0 {
                        break;
                    }
                    if piece.is_empty() {
                        piece = used..used;
                    }
                    if piece.end < used {
                        bytes.copy_within(used..used + here, piece.end);
                    }
                    piece.end += here;
                    used += here;
                    self.pass(here as u64);
                }
                State::DataEnd => match &bytes[used..] {
                    [b'\r', b'\n', ..] => {
                        used += 2;
                        self.state = State::Size;
                    }
                    [] | [b'\r'] => break,
                    _ => return Err(Fault::protocol("a chunk is not as long as it says")),
                },
                // What came before is handed out first.
                State::Trailers | State::Done if !piece.is_empty() => break,
                State::Trailers => match head::trailers(&bytes[used..], &self.limits)? {
                    Some((trailers, len)) => {
                        self.state = State::Done;
                        return Ok(Step::End(trailers, used + len));
                    }
                    None => break,
                },
                State::Done => return Ok(Step::End(Headers::new(), used)),
            }
        }
        Ok(if piece.is_empty() { Step::More(used) } else { Step::Piece { piece, used } })
    }
}

/// The size of the next chunk and the length of the line it stands in.
fn size_line(bytes: &[u8], extensions: &mut usize) -> Result<Option<(u64, usize)>, Fault> {
    let digits = bytes.iter().take(DIGITS_MAX + 1).take_while(|byte| byte.is_ascii_hexdigit()).count();
    if digits == 0 && !bytes.is_empty() {
        return Err(Fault::protocol("a chunk begins without its size"));
    }
    if digits > DIGITS_MAX {
        return Err(Fault::protocol("the size of a chunk has too many digits"));
    }
    let size = bytes[..digits].iter().fold(0u64, |size, digit| size << 4 | u64::from(hex(*digit)));
    if size > i64::MAX as u64 {
        return Err(Fault::protocol("the size of a chunk is beyond all measure"));
    }
    let rest = &bytes[digits..];
    match rest {
        [] | [b'\r'] => Ok(None),
        [b'\r', b'\n', ..] => Ok(Some((size, digits + 2))),
        [b';' | b' ' | b'\t', ..] => {
            let Some(end) = memchr::memchr2(b'\n', b'\r', rest) else {
                if bytes.len() > LINE_MAX {
                    return Err(Fault::limit(400, "the extensions of a chunk are too long"));
                }
                check_extensions(rest)?;
                return Ok(None);
            };
            check_extensions(&rest[..end])?;
            *extensions += end;
            if digits + end > LINE_MAX || *extensions > EXTENSIONS_MAX {
                return Err(Fault::limit(400, "the extensions of the chunks are too long"));
            }
            match &rest[end..] {
                [b'\r'] => {
                    // Seen again with the LF.
                    *extensions -= end;
                    Ok(None)
                }
                [b'\r', b'\n', ..] if is_extension(&rest[..end]) => Ok(Some((size, digits + end + 2))),
                [b'\r', b'\n', ..] => {
                    Err(Fault::protocol("after the size of a chunk stands something else than extensions"))
                }
                _ => Err(Fault::protocol("a line of a chunk has a CR or LF alone")),
            }
        }
        _ => Err(Fault::protocol("the size of a chunk is not a number")),
    }
}

fn check_extensions(bytes: &[u8]) -> Result<(), Fault> {
    if super::is_field_text(bytes) {
        return Ok(());
    }
    Err(Fault::protocol("the extensions of a chunk have a control character"))
}

/// Extensions begin with a semicolon, which may stand after spaces (7.1.1). What they say is nobody's concern.
fn is_extension(bytes: &[u8]) -> bool {
    super::trim(bytes).first() == Some(&b';')
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}
