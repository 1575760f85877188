//! Zstandard (RFC 8878) from pieces. The decoder below wants whole blocks, so each is gathered first.

use std::io::Read;

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::Step;

/// Largest window, as RFC 9659 has it for content codings.
const WINDOW_MAX: u64 = 8 * 1024 * 1024;
/// Largest block (RFC 8878, 3.1.1.2.4).
const BLOCK_MAX: usize = 128 * 1024;

const MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

/// What the next bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// The magic number of a frame, or nothing more at all.
    Frame,
    /// The rest of a frame's header.
    Header,
    /// A block's header.
    Block,
    /// The size of a skippable frame.
    SkippableSize,
    /// The content of a skippable frame, so many bytes.
    Skippable(u32),
}

/// A Zstandard body in the middle.
pub(super) struct Zstd {
    frame: FrameDecoder,
    next: Next,
    /// Whether a checksum follows the last block.
    checksum: bool,
    /// The beginning of a header or block that has not come whole.
    gathered: Vec<u8>,
    /// Frames begun.
    frames: u64,
    /// Whether the checksum of the frame that has ended is still to be compared: once everything is handed out.
    unchecked: bool,
}

impl Zstd {
    pub(super) fn new() -> Self {
        let mut frame = FrameDecoder::new();
        frame.set_max_window_size(WINDOW_MAX);
        Self { frame, next: Next::Frame, checksum: false, gathered: Vec::new(), frames: 0, unchecked: false }
    }

    /// Whether the body may end here.
    pub(super) fn is_complete(&self) -> bool {
        self.next == Next::Frame
            && self.gathered.is_empty()
            && self.frames > 0
            && !self.unchecked
            && self.frame.can_collect() == 0
    }

    /// Hands out what is decoded; else decodes one block.
    pub(super) fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, String> {
        if self.frame.can_collect() > 0 {
            let made = self.frame.read(output).map_err(|fault| fault.to_string())?;
            return Ok(Step { taken: 0, made, more: true });
        }
        if std::mem::take(&mut self.unchecked)
            && self.frame.get_checksum_from_data() != self.frame.get_calculated_checksum()
        {
            return Err("the checksum is wrong".to_owned());
        }
        if let Next::Skippable(left) = self.next {
            let taken = input.len().min(left as usize);
            let left = left - taken as u32;
            self.next = if left == 0 { Next::Frame } else { Next::Skippable(left) };
            return Ok(Step { taken, made: 0, more: taken < input.len() });
        }
        let mut taken = 0;
        loop {
            let wanted = self.wanted()?;
            if self.gathered.len() >= wanted {
                break;
            }
            let more = (wanted - self.gathered.len()).min(input.len() - taken);
            if more == 0 {
                return Ok(Step { taken, made: 0, more: false });
            }
            self.gathered.extend_from_slice(&input[taken..taken + more]);
            taken += more;
        }
        self.advance()?;
        Ok(Step { taken, made: 0, more: true })
    }

    /// How many bytes the next thing has, as far as one knows.
    fn wanted(&self) -> Result<usize, String> {
        Ok(match self.next {
            Next::Frame | Next::SkippableSize => 4,
            Next::Header => match self.gathered.get(4) {
                None => 5,
                Some(descriptor) => 5 + header_rest(*descriptor),
            },
            Next::Block => {
                let Some(&[low, middle, high]) = self.gathered.first_chunk::<3>() else { return Ok(3) };
                let header = u32::from_le_bytes([low, middle, high, 0]);
                let size = (header >> 3) as usize;
                // RFC 8878, 3.1.1.2: raw blocks and compressed ones have their size, a repeated byte is one.
                let content = match header >> 1 & 3 {
                    1 => 1,
                    3 => return Err("a block of the reserved type".to_owned()),
                    _ => size,
                };
                if size > BLOCK_MAX {
                    return Err(format!("a block of {size} bytes, more than {BLOCK_MAX}"));
                }
                3 + content + if header & 1 == 1 && self.checksum { 4 } else { 0 }
            }
            Next::Skippable(_) => 0,
        })
    }

    /// Takes what was gathered.
    fn advance(&mut self) -> Result<(), String> {
        match self.next {
            Next::Frame if self.gathered == MAGIC => {
                self.next = Next::Header;
                return Ok(());
            }
            // RFC 8878, 3.1.2
            Next::Frame if self.gathered[1..] == [0x2A, 0x4D, 0x18] && self.gathered[0] & 0xF0 == 0x50 => {
                self.frames += 1;
                self.next = Next::SkippableSize;
            }
            Next::Frame => return Err("no frame begins where one should".to_owned()),
            Next::SkippableSize => {
                let size = self.gathered.first_chunk::<4>().map_or(0, |size| u32::from_le_bytes(*size));
                self.next = if size == 0 { Next::Frame } else { Next::Skippable(size) };
            }
            Next::Header => {
                self.checksum = self.gathered[4] & 4 != 0;
                self.frame.reset(self.gathered.as_slice()).map_err(|fault| fault.to_string())?;
                self.frames += 1;
                self.next = Next::Block;
            }
            Next::Block => {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                let last =
                    self.frame.decode_blocks(self.gathered.as_slice(), one).map_err(|fault| fault.to_string())?;
                if last {
                    self.unchecked = self.checksum;
                    self.next = Next::Frame;
                }
            }
            Next::Skippable(_) => {}
        }
        self.gathered.clear();
        Ok(())
    }
}

/// How many bytes of a frame's header follow its descriptor (RFC 8878, 3.1.1.1.1).
fn header_rest(descriptor: u8) -> usize {
    let single_segment = descriptor >> 5 & 1 == 1;
    let content_size = match descriptor >> 6 {
        0 => usize::from(single_segment),
        1 => 2,
        2 => 4,
        _ => 8,
    };
    usize::from(!single_segment) + [0, 1, 2, 4][usize::from(descriptor & 3)] + content_size
}
