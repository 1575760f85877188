//! What was said on streams and in datagrams, for whoever listens: a tap hears the plaintext of one socket, both ways,
//! TLS or not.
//!
//! Nothing here calls Lua: what is heard is put onto a tape, which the loop plays after each turn.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use super::TransportError;

/// Bytes of one record; what is heard beyond begins another.
const RECORD_MAX: usize = 64 * 1024;

/// Something that happened on a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The stream is heard from now on: the addresses of this side and of the other.
    Opened(String, String),
    /// What the owner says that is spoken from now on, and which side this one is.
    Spoken(String, String),
    /// TLS is between us and the other side: version, cipher.
    Secured(String),
    Sent(Vec<u8>),
    Received(Vec<u8>),
    /// A datagram, and whom it went to.
    SentTo(Vec<u8>, String),
    /// A datagram, and whom it came from.
    ReceivedFrom(Vec<u8>, String),
    /// The other side has ended its direction.
    Ended,
    /// Nothing more can be read or written, and why.
    Failed(String),
    /// This side has closed the stream.
    Closed,
}

/// What has been heard and not been played.
#[derive(Debug, Default)]
pub(crate) struct Tape {
    records: RefCell<Vec<(u32, Heard)>>,
    taps: Cell<u32>,
    /// Whether every stream made from now on has a tap.
    pub(crate) streams: Cell<bool>,
    /// Whether every socket of datagrams made from now on has one.
    pub(crate) datagrams: Cell<bool>,
    waiting: Cell<bool>,
}

impl Tape {
    /// Whether something is to be played.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.get()
    }

    /// Takes what has been heard, in order.
    pub(crate) fn take(&self) -> Vec<(u32, Heard)> {
        self.waiting.set(false);
        self.records.take()
    }

    fn put(&self, tap: u32, heard: Heard) {
        self.waiting.set(true);
        self.records.borrow_mut().push((tap, heard));
    }

    fn put_bytes(&self, tap: u32, bytes: &[u8], make: fn(Vec<u8>) -> Heard) {
        let mut records = self.records.borrow_mut();
        let fresh = make(Vec::new());
        if let Some((last, heard)) = records.last_mut()
            && *last == tap
            && std::mem::discriminant(heard) == std::mem::discriminant(&fresh)
            && let Heard::Sent(held) | Heard::Received(held) = heard
            && held.len() + bytes.len() <= RECORD_MAX
        {
            held.extend_from_slice(bytes);
        } else {
            records.push((tap, make(bytes.to_vec())));
        }
        drop(records);
        self.waiting.set(true);
    }
}

/// Hears one stream, or one socket of datagrams.
#[derive(Debug)]
pub(crate) struct Tap {
    number: u32,
    tape: Rc<Tape>,
    secured: bool,
    over: bool,
}

impl Tap {
    pub(crate) fn new(tape: &Rc<Tape>, local: String, peer: String) -> Self {
        let number = tape.taps.get() + 1;
        tape.taps.set(number);
        tape.put(number, Heard::Opened(local, peer));
        Self { number, tape: tape.clone(), secured: false, over: false }
    }

    pub(crate) fn spoken(&self, protocol: String, side: String) {
        self.tape.put(self.number, Heard::Spoken(protocol, side));
    }

    /// Tells of TLS, once.
    pub(crate) fn secured(&mut self, what: impl FnOnce() -> Option<String>) {
        if !self.secured
            && let Some(what) = what()
        {
            self.secured = true;
            self.tape.put(self.number, Heard::Secured(what));
        }
    }

    pub(crate) fn sent(&self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.tape.put_bytes(self.number, bytes, Heard::Sent);
        }
    }

    /// What a read came to.
    pub(crate) fn read(&mut self, result: &Result<usize, TransportError>, into: &[u8]) {
        match result {
            Ok(0) if !into.is_empty() => self.over(Heard::Ended),
            Ok(0) => {}
            Ok(n) => self.tape.put_bytes(self.number, &into[..*n], Heard::Received),
            Err(error) => self.failed(error),
        }
    }

    /// A datagram has left. An empty one is a datagram, too.
    pub(crate) fn sent_to(&self, bytes: &[u8], to: String) {
        self.tape.put(self.number, Heard::SentTo(bytes.to_vec(), to));
    }

    /// A datagram has come.
    pub(crate) fn received_from(&self, bytes: &[u8], from: String) {
        self.tape.put(self.number, Heard::ReceivedFrom(bytes.to_vec(), from));
    }

    pub(crate) fn failed(&mut self, error: &TransportError) {
        match error {
            TransportError::Blocked => {}
            TransportError::Io(error) => self.over(Heard::Failed(error.to_string())),
            TransportError::Tls(error) => self.over(Heard::Failed(format!("TLS: {error}"))),
        }
    }

    fn over(&mut self, heard: Heard) {
        if !self.over {
            self.over = true;
            self.tape.put(self.number, heard);
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.tape.put(self.number, Heard::Closed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_at_once_is_one_record_and_the_other_direction_another() {
        let tape = Rc::new(Tape::default());
        assert!(!tape.is_waiting());
        let mut tap = Tap::new(&tape, "a".into(), "b".into());
        tap.sent(b"one ");
        tap.sent(b"two");
        tap.sent(b"");
        tap.read(&Ok(2), b"ok...");
        tap.read(&Err(TransportError::Blocked), b"");
        tap.read(&Ok(0), b".....");
        tap.read(&Ok(0), b".....");
        drop(tap);
        assert!(tape.is_waiting());
        let heard: Vec<Heard> = tape.take().into_iter().map(|(_, heard)| heard).collect();
        assert_eq!(
            heard,
            [
                Heard::Opened("a".into(), "b".into()),
                Heard::Sent(b"one two".to_vec()),
                Heard::Received(b"ok".to_vec()),
                Heard::Ended,
                Heard::Closed,
            ]
        );
        assert!(!tape.is_waiting());
    }

    #[test]
    fn each_datagram_is_a_record_with_its_address() {
        let tape = Rc::new(Tape::default());
        let tap = Tap::new(&tape, String::new(), String::new());
        tap.sent_to(b"one", "a".into());
        tap.sent_to(b"", "a".into());
        tap.received_from(b"two", "b".into());
        let heard: Vec<Heard> = tape.take().into_iter().skip(1).map(|(_, heard)| heard).collect();
        assert_eq!(
            heard,
            [
                Heard::SentTo(b"one".to_vec(), "a".into()),
                Heard::SentTo(Vec::new(), "a".into()),
                Heard::ReceivedFrom(b"two".to_vec(), "b".into()),
            ]
        );
    }

    #[test]
    fn a_record_does_not_grow_without_end() {
        let tape = Rc::new(Tape::default());
        let tap = Tap::new(&tape, String::new(), String::new());
        tap.sent(&[0; RECORD_MAX - 1]);
        tap.sent(&[0; 2]);
        assert_eq!(tape.take().len(), 3);
    }
}
