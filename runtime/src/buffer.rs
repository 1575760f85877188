//! Mutable bytes: what streams fill and codecs take from.

use bytes::{Buf, BufMut, BytesMut};

/// Bytes that are filled at the end and taken from the front.
///
/// A Lua script sees it as `cosocket.buffer()`, a codec as [`BufferRef`](crate::BufferRef).
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: BytesMut,
}

/// Capacity above which an emptied buffer gives its memory back.
const KEPT_CAPACITY: usize = 64 * 1024;

/// In which order an integer's bytes stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Most significant byte first, as network protocols do.
    Big,
    /// Least significant byte first.
    Little,
}

impl Buffer {
    /// An empty buffer; allocates nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes it holds.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Everything it holds.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// Everything it holds, for changing in place.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Adds bytes at the end.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The end of the buffer, for codecs that encode through [`BufMut`].
    pub fn tail(&mut self) -> &mut impl BufMut {
        &mut self.bytes
    }

    /// Drops up to `n` bytes off the front. An emptied buffer gives large memory back.
    pub fn skip(&mut self, n: usize) {
        self.bytes.advance(n.min(self.bytes.len()));
        // Little of the memory may lie behind what was dropped, and much before it.
        if self.bytes.is_empty() && self.bytes.try_reclaim(KEPT_CAPACITY + 1) {
            self.bytes = BytesMut::new();
        }
    }

    /// Takes `n` bytes off the front; `None` when there are fewer.
    pub fn take(&mut self, n: usize) -> Option<BytesMut> {
        (n <= self.bytes.len()).then(|| self.bytes.split_to(n))
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.skip(usize::MAX);
    }

    /// Keeps the first `n` bytes: what an encoder does to take back a half-written message.
    pub fn truncate(&mut self, n: usize) {
        self.bytes.truncate(n);
    }

    /// Offset of the first `needle` at or after `from`.
    pub fn find(&self, needle: &[u8], from: usize) -> Option<usize> {
        let hay = self.bytes.get(from..)?;
        memchr::memmem::find(hay, needle).map(|at| at + from)
    }

    /// Length of the first line and of the line with its end: `(text, whole)`.
    pub fn line(&self) -> Option<(usize, usize)> {
        let end = memchr::memchr(b'\n', &self.bytes)?;
        let text = if end > 0 && self.bytes[end - 1] == b'\r' { end - 1 } else { end };
        Some((text, end + 1))
    }

    /// The unsigned integer of `size` (1 to 8) bytes at `offset`; `None` when not all of it is here.
    pub fn uint(&self, size: usize, offset: usize, order: Order) -> Option<u64> {
        let bytes = self.bytes.get(offset..offset.checked_add(size)?)?;
        let fold = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        Some(match order {
            Order::Big => bytes.iter().fold(0, fold),
            Order::Little => bytes.iter().rev().fold(0, fold),
        })
    }

    /// The two's complement integer of `size` bytes at `offset`.
    pub fn int(&self, size: usize, offset: usize, order: Order) -> Option<i64> {
        let unused = 64 - 8 * size as u32;
        self.uint(size, offset, order).map(|value| (value << unused) as i64 >> unused)
    }

    /// Appends the low `size` bytes of `value`.
    pub fn put_uint(&mut self, value: u64, size: usize, order: Order) {
        match order {
            Order::Big => self.bytes.put_uint(value, size),
            Order::Little => self.bytes.put_uint_le(value, size),
        }
    }

    /// Overwrites `size` bytes at `offset`; `false` when they are not all here.
    pub fn set_uint(&mut self, offset: usize, value: u64, size: usize, order: Order) -> bool {
        let Some(end) = offset.checked_add(size) else { return false };
        let Some(mut room) = self.bytes.get_mut(offset..end) else { return false };
        match order {
            Order::Big => room.put_uint(value, size),
            Order::Little => room.put_uint_le(value, size),
        }
        true
    }

    /// Room for `n` more bytes; what was there stays.
    pub fn reserve(&mut self, n: usize) {
        self.bytes.reserve(n);
    }
}

/// Whether `value` fits an unsigned (`signed`: two's complement) integer of `size` bytes.
pub fn fits(value: i64, size: usize, signed: bool) -> bool {
    if size >= 8 {
        return true;
    }
    let bits = 8 * size as u32;
    if signed {
        (-(1i64 << (bits - 1))..1i64 << (bits - 1)).contains(&value)
    } else {
        (0..1i64 << bits).contains(&value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_at_the_end_comes_out_at_the_front() {
        let mut buffer = Buffer::new();
        buffer.extend(b"hello ");
        buffer.extend(b"world");
        assert_eq!(buffer.take(6).as_deref(), Some(&b"hello "[..]));
        assert_eq!(buffer.take(6), None);
        assert_eq!(buffer.as_slice(), b"world");
    }

    #[test]
    fn integers_of_every_size_and_order_come_back() {
        for size in 1..=8 {
            for order in [Order::Big, Order::Little] {
                for value in [0i64, 1, -1, 127, -128, i64::MAX, i64::MIN] {
                    if !fits(value, size, true) {
                        continue;
                    }
                    let mut buffer = Buffer::new();
                    buffer.put_uint(value as u64, size, order);
                    assert_eq!(buffer.len(), size);
                    assert_eq!(buffer.int(size, 0, order), Some(value), "{value} in {size} {order:?}");
                    assert_eq!(buffer.int(size, 1, order), None);
                }
            }
        }
    }

    #[test]
    fn a_line_ends_with_lf_or_crlf() {
        let mut buffer = Buffer::new();
        buffer.extend(b"one\r");
        assert_eq!(buffer.line(), None);
        buffer.extend(b"\ntwo\n");
        assert_eq!(buffer.line(), Some((3, 5)));
        buffer.skip(5);
        assert_eq!(buffer.line(), Some((3, 4)));
    }

    #[test]
    fn an_emptied_large_buffer_gives_its_memory_back() {
        let mut buffer = Buffer::new();
        buffer.extend(&vec![0; 1 << 20]);
        buffer.clear();
        assert!(buffer.bytes.capacity() <= KEPT_CAPACITY);
    }

    #[test]
    fn however_a_large_buffer_is_emptied_none_of_its_memory_is_kept() {
        for (size, step) in [(1 << 20, 1 << 20), (1 << 20, 1000), (KEPT_CAPACITY + 1, 7), (KEPT_CAPACITY, 7), (100, 7)]
        {
            let mut buffer = Buffer::new();
            buffer.bytes = BytesMut::with_capacity(size);
            buffer.extend(&vec![0; size]);
            while !buffer.is_empty() {
                buffer.skip(step);
            }
            // As much as there is again without asking for more.
            assert!(!buffer.bytes.try_reclaim(KEPT_CAPACITY + 1), "{size} in steps of {step}");
            assert_eq!(buffer.bytes.try_reclaim(size), size <= KEPT_CAPACITY, "{size} in steps of {step}");
        }
    }
}
