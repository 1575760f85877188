//! Bytes that have arrived and wait to be read, in memory that idle sockets do not hold.

use super::{Readiness, Transport, TransportError};

/// Size of the shared read buffers: what one read takes from the kernel at most.
pub(crate) const CHUNK: usize = 64 * 1024;

/// Read buffers kept for the next socket.
const KEPT: usize = 16;

/// Growth of one buffer beyond what has arrived: a claimed length alone allocates no more than this.
const AHEAD_MAX: usize = 1024 * 1024;

/// Buffers that sockets borrow while they have something in them.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    chunks: Vec<Box<[u8]>>,
    outputs: Vec<Vec<u8>>,
    /// Memory given back that is not kept: a script may be about to get its bytes.
    parting: Box<[u8]>,
}

impl Pool {
    /// An initialised buffer of [`CHUNK`] bytes.
    pub(crate) fn chunk(&mut self) -> Box<[u8]> {
        self.chunks.pop().unwrap_or_else(|| vec![0; CHUNK].into())
    }

    pub(crate) fn give_chunk(&mut self, chunk: Box<[u8]>) {
        if chunk.len() == CHUNK && self.chunks.len() < KEPT {
            self.chunks.push(chunk);
        } else if !chunk.is_empty() {
            self.parting = chunk;
        }
    }

    /// Frees what was given back and is not kept, once no answer points to it any more.
    pub(crate) fn part(&mut self) {
        if !self.parting.is_empty() {
            self.parting = Box::default();
        }
    }

    /// An empty buffer for bytes to send.
    pub(crate) fn output(&mut self) -> Vec<u8> {
        self.outputs.pop().unwrap_or_default()
    }

    pub(crate) fn give_output(&mut self, mut output: Vec<u8>) {
        if (1..=CHUNK).contains(&output.capacity()) && self.outputs.len() < KEPT {
            output.clear();
            self.outputs.push(output);
        }
    }
}

/// The unread bytes of one stream: `memory[start..end]`. The memory is initialised throughout, so
/// that it can be read into.
#[derive(Debug, Default)]
pub(crate) struct Input {
    memory: Box<[u8]>,
    start: u32,
    end: u32,
}

impl Input {
    pub(crate) fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.memory[self.start as usize..self.end as usize]
    }

    /// Drops `n` bytes off the front. The memory stays as it is until the next call; `settle` does not free it.
    pub(crate) fn consume(&mut self, n: usize) {
        debug_assert!(n <= self.len());
        self.start += n as u32;
    }

    /// One read of at most `most` bytes into the free end; `wanted` is how many bytes in all the reader waits for.
    pub(crate) fn fill(
        &mut self,
        pool: &mut Pool,
        transport: &mut Transport,
        ready: &mut Readiness,
        wanted: usize,
        most: usize,
    ) -> Result<usize, TransportError> {
        self.make_room(pool, wanted);
        let free = &mut self.memory[self.end as usize..];
        let most = most.min(free.len());
        let n = transport.read(ready, &mut free[..most])?;
        self.end += n as u32;
        Ok(n)
    }

    fn make_room(&mut self, pool: &mut Pool, wanted: usize) {
        let (start, end) = (self.start as usize, self.end as usize);
        if self.memory.len() < CHUNK {
            let mut chunk = pool.chunk();
            chunk[..end - start].copy_from_slice(&self.memory[start..end]);
            self.memory = chunk;
            (self.start, self.end) = (0, (end - start) as u32);
        } else if end == self.memory.len() {
            if start >= end - start {
                self.memory.copy_within(start..end, 0);
                (self.start, self.end) = (0, (end - start) as u32);
            } else {
                let ahead = (start + wanted).saturating_sub(end).clamp(CHUNK, AHEAD_MAX);
                let mut grown = std::mem::take(&mut self.memory).into_vec();
                grown.reserve_exact(ahead);
                grown.resize(end + ahead, 0);
                self.memory = grown.into();
            }
        }
    }

    /// Gives memory back that an idle stream does not need.
    pub(crate) fn settle(&mut self, pool: &mut Pool) {
        let len = self.len();
        if len == 0 {
            pool.give_chunk(std::mem::take(&mut self.memory));
            (self.start, self.end) = (0, 0);
        } else if self.memory.len() >= CHUNK && len <= CHUNK / 4 {
            let small = self.as_slice().into();
            pool.give_chunk(std::mem::replace(&mut self.memory, small));
            (self.start, self.end) = (0, len as u32);
        }
    }
}
