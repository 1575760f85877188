//! Compressing and decompressing messages (RFC 7692, 7.2), with bounds on what comes out.

use flate2::{Compress, Compression as Level, Decompress, FlushCompress, FlushDecompress, Status};

use super::{Compression, Fault};

/// What ends every compressed message and is not sent (RFC 7692, 7.2.1).
pub const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

/// Room made for output at a time.
const STEP: usize = 4096;
/// And at most, as more comes.
const STEP_MAX: usize = 256 * 1024;

/// The smallest window zlib has for raw deflate.
pub const WINDOW_BITS_MIN: u8 = 9;

/// Engines that no connection keeps, for the next message: making one costs more than most messages do.
#[derive(Debug, Default)]
pub struct Spares {
    inflate: Option<Inflater>,
    deflate: Option<Deflater>,
}

/// Decompresses the messages of one direction.
#[derive(Debug)]
pub struct Inflater {
    inner: Box<Decompress>,
    window_bits: u8,
    /// The last call filled the room it had: there may be more to come out.
    pending: bool,
    /// A block said that it is the last: the window is gone (RFC 7692, 7.2.3.5).
    ended: bool,
}

impl Inflater {
    /// A decompressor for a direction, from the spares if there is one.
    pub fn new(rules: Compression, spares: &mut Spares) -> Self {
        let window_bits = rules.window_bits.max(WINDOW_BITS_MIN);
        match spares.inflate.take_if(|spare| spare.window_bits == window_bits) {
            Some(spare) => spare,
            None => Self {
                inner: Box::new(Decompress::new_with_window_bits(false, window_bits)),
                window_bits,
                pending: false,
                ended: false,
            },
        }
    }

    /// Whether more may come out without anything going in.
    pub fn is_pending(&self) -> bool {
        self.pending
    }

    /// Decompresses `input` onto `out` until the first is used up or the second holds `most` bytes, or a little
    /// more. Answers how much of `input` was used.
    pub fn run(&mut self, input: &[u8], out: &mut Vec<u8>, most: usize) -> Result<usize, Fault> {
        let (mut used, mut step) = (0, STEP);
        while out.len() < most && (used < input.len() || self.pending) {
            out.reserve(step.min(most - out.len()));
            step = (2 * step).min(STEP_MAX);
            let before = (self.inner.total_in(), out.len());
            let status = self.inner.decompress_vec(&input[used..], out, FlushDecompress::Sync);
            let status = status.map_err(|_| Fault::invalid("a compressed message is damaged"))?;
            let taken = (self.inner.total_in() - before.0) as usize;
            used += taken;
            self.pending = out.len() == out.capacity();
            if status == Status::StreamEnd {
                self.inner.reset(false);
                (self.pending, self.ended) = (false, true);
            } else if taken == 0 && out.len() == before.1 && used < input.len() {
                return Err(Fault::invalid("a compressed message is damaged"));
            }
        }
        Ok(used)
    }

    /// The message is over: keeps what the next one needs.
    pub fn finish(&mut self) {
        if self.ended {
            self.inner.reset(false);
            self.ended = false;
        }
    }

    /// Leaves it to the next connection.
    pub fn give(mut self, spares: &mut Spares) {
        self.inner.reset(false);
        (self.pending, self.ended) = (false, false);
        spares.inflate = Some(self);
    }
}

/// Compresses the messages of one direction.
#[derive(Debug)]
pub struct Deflater {
    inner: Box<Compress>,
    window_bits: u8,
    level: u32,
}

impl Deflater {
    /// A compressor for a direction, from the spares if there is one.
    pub fn new(rules: Compression, level: u32, spares: &mut Spares) -> Self {
        let window_bits = rules.window_bits.max(WINDOW_BITS_MIN);
        match spares.deflate.take_if(|spare| spare.window_bits == window_bits && spare.level == level) {
            Some(spare) => spare,
            None => Self {
                inner: Box::new(Compress::new_with_window_bits(Level::new(level), false, window_bits)),
                window_bits,
                level,
            },
        }
    }

    /// Compresses `input` so that all of it can be read; `last` leaves away what ends a message.
    pub fn run(&mut self, input: &[u8], last: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(input.len() / 2 + 64);
        let mut used = 0;
        loop {
            let before = self.inner.total_in();
            // The only errors are those of wrong use.
            let status = self.inner.compress_vec(&input[used..], &mut out, FlushCompress::Sync);
            debug_assert!(status.is_ok(), "{status:?}");
            used += (self.inner.total_in() - before) as usize;
            if used == input.len() && out.len() < out.capacity() {
                break;
            }
            out.reserve(out.len().clamp(STEP, STEP_MAX));
        }
        if last {
            match out.ends_with(&TAIL) {
                true => out.truncate(out.len() - TAIL.len()),
                // Nothing came out, since nothing went in (RFC 7692, 7.2.3.6).
                false => out.push(0),
            }
        }
        out
    }

    /// Leaves it to the next connection.
    pub fn give(mut self, spares: &mut Spares) {
        self.inner.reset();
        spares.deflate = Some(self);
    }
}
