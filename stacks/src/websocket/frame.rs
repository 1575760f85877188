//! The header of a frame (5.2), and masking (5.3).

use bytes::BufMut;
use moonwire_runtime::Buffer;

use super::{Fault, Role};

/// The longest payload of a control frame (5.5).
pub const CONTROL_MAX: u64 = 125;

/// What a frame is (5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// More of the message that has begun.
    Continuation = 0x0,
    /// The beginning of a message that is UTF-8.
    Text = 0x1,
    /// The beginning of a message of any bytes.
    Binary = 0x2,
    /// The last frame of this direction.
    Close = 0x8,
    /// Asks for a Pong with the same payload.
    Ping = 0x9,
    /// Answers a Ping, or just says that we are there.
    Pong = 0xA,
}

impl Opcode {
    fn new(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }

    /// Whether this is a control frame, which may come between the frames of a message (5.5).
    pub const fn is_control(self) -> bool {
        self as u8 >= 0x8
    }
}

/// What a frame says before its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The last frame of its message.
    pub fin: bool,
    /// RSV1: the message is compressed (RFC 7692, 6).
    pub compressed: bool,
    /// What it is.
    pub opcode: Opcode,
    /// The masking key, in frames of clients.
    pub key: Option<[u8; 4]>,
    /// Bytes of payload.
    pub length: u64,
}

impl Header {
    /// Reads the header at the front of `bytes`: it and its size, or `None` when not all of it is here. What cannot
    /// be right is refused with the first byte that tells. `compression`: RSV1 may be set. `sender`: whose frame it is.
    pub fn parse(bytes: &[u8], sender: Role, compression: bool) -> Result<Option<(Self, usize)>, Fault> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        let Some(opcode) = Opcode::new(first & 0x0F) else {
            return Err(Fault::protocol(format!("a frame has the reserved opcode 0x{:X}", first & 0x0F)));
        };
        let (fin, rsv1) = (first & 0x80 != 0, first & 0x40 != 0);
        if first & 0x30 != 0 || (rsv1 && !compression) {
            return Err(Fault::protocol("a frame has a reserved bit set that no extension gives a meaning"));
        }
        if opcode.is_control() && !fin {
            return Err(Fault::protocol("a control frame is fragmented"));
        }
        // RFC 7692, 6.1: only the first frame of a message, and no control frame.
        if rsv1 && !matches!(opcode, Opcode::Text | Opcode::Binary) {
            return Err(Fault::protocol("RSV1 is set on a frame that does not begin a message"));
        }
        let Some(&second) = bytes.get(1) else { return Ok(None) };
        let masked = second & 0x80 != 0;
        match sender {
            Role::Client if !masked => return Err(Fault::protocol("the client sends a frame that is not masked")),
            Role::Server if masked => return Err(Fault::protocol("the server sends a masked frame")),
            _ => {}
        }
        let short = u64::from(second & 0x7F);
        if opcode.is_control() && short > CONTROL_MAX {
            return Err(Fault::protocol("a control frame is longer than 125 bytes"));
        }
        let (length, least, mut size) = match short {
            126 => match bytes.get(2..4) {
                Some(field) => (u64::from(field[0]) << 8 | u64::from(field[1]), 126, 4),
                None => return Ok(None),
            },
            127 => match bytes.get(2..10) {
                Some(field) => (field.iter().fold(0, |length, &byte| length << 8 | u64::from(byte)), 0x1_0000, 10),
                None if bytes.get(2).is_some_and(|byte| byte & 0x80 != 0) => (1 << 63, 0, 10),
                None => return Ok(None),
            },
            _ => (short, 0, 2),
        };
        if length >> 63 != 0 {
            return Err(Fault::protocol("the length of a frame has its highest bit set"));
        }
        if length < least {
            return Err(Fault::protocol("the length of a frame is not in its shortest form"));
        }
        let key = match masked {
            true => match bytes.get(size..size + 4) {
                Some(key) => {
                    size += 4;
                    Some([key[0], key[1], key[2], key[3]])
                }
                None => return Ok(None),
            },
            false => None,
        };
        Ok(Some((Self { fin, compressed: rsv1, opcode, key, length }, size)))
    }

    /// Appends the header.
    pub fn put(&self, out: &mut Buffer) {
        let first = u8::from(self.fin) << 7 | u8::from(self.compressed) << 6 | self.opcode as u8;
        let mask = u8::from(self.key.is_some()) << 7;
        let tail = out.tail();
        match self.length {
            0..=125 => tail.put_slice(&[first, mask | self.length as u8]),
            126..=0xFFFF => {
                tail.put_slice(&[first, mask | 126, (self.length >> 8) as u8, self.length as u8]);
            }
            _ => {
                tail.put_slice(&[first, mask | 127]);
                tail.put_u64(self.length);
            }
        }
        if let Some(key) = self.key {
            tail.put_slice(&key);
        }
    }
}

/// Masks or unmasks in place; `key` begins with the first byte.
pub fn mask(bytes: &mut [u8], key: [u8; 4]) {
    // What servers send.
    if key == [0; 4] {
        return;
    }
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut words = bytes.chunks_exact_mut(8);
    for word in &mut words {
        let mut eight = [0; 8];
        eight.copy_from_slice(word);
        word.copy_from_slice(&(u64::from_ne_bytes(eight) ^ wide).to_ne_bytes());
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// The key for what follows the first `n` bytes.
pub fn rotated(mut key: [u8; 4], n: usize) -> [u8; 4] {
    key.rotate_left(n % 4);
    key
}
