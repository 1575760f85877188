//! Frames of WebSocket: what comes out is the same however the bytes are cut, texts are UTF-8, and what is too long is
//! refused.
//!
//! The first byte of an input says who reads, and how it is compressed; the second where it is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moonwire::websocket::{
    Compression, Role, Rules,
    deflate::Spares,
    incoming::{Event, Incoming, Type, decode},
};

const MESSAGE_MAX: usize = 64 * 1024;

fuzz_target!(|input: &[u8]| {
    let [kind, cut, wire @ ..] = input else { return };
    let role = if kind & 1 == 0 { Role::Client } else { Role::Server };
    let takeover = kind & 4 != 0;
    let inflate = (kind & 2 != 0).then_some(Compression { window_bits: 9 + kind % 7, takeover });
    let rules = Rules { frame_max: MESSAGE_MAX as u64, message_max: MESSAGE_MAX, inflate, ..Rules::new(role) };
    let whole = read(wire, wire.len().max(1), &rules, false);
    let cut = read(wire, 1 + usize::from(*cut), &rules, false);
    assert_eq!(whole, cut);
    // Pieces know no limit, and are those of the same messages.
    let pieces = read(wire, 7, &Rules { message_max: usize::MAX, ..rules }, true);
    if whole.1.is_none() {
        assert_eq!(whole.0, pieces.0);
    }
});

/// What came, as words, and why there is no more.
fn read(wire: &[u8], step: usize, rules: &Rules, pieces: bool) -> (Vec<(u8, Vec<u8>)>, Option<u16>) {
    let (mut state, mut spares) = (None::<Box<Incoming>>, Spares::default());
    let (mut held, mut events, mut open) = (Vec::new(), Vec::new(), Vec::new());
    for part in wire.chunks(step) {
        held.extend_from_slice(part);
        loop {
            let used = match decode(&mut held, rules, &mut state, &mut spares, pieces) {
                Ok((used, None)) => {
                    held.drain(..used);
                    break;
                }
                Ok((used, Some(event))) => {
                    match event {
                        Event::Message(kind, bytes) => {
                            assert!(bytes.len() <= rules.message_max);
                            assert!(kind == Type::Binary || std::str::from_utf8(&bytes).is_ok());
                            events.push((kind as u8, bytes.into_owned()));
                        }
                        Event::Piece(kind, bytes, last) => {
                            assert!(pieces && (kind == Type::Binary || std::str::from_utf8(&bytes).is_ok()));
                            open.extend_from_slice(&bytes);
                            if last {
                                events.push((kind as u8, std::mem::take(&mut open)));
                            }
                        }
                        Event::Ping(bytes) => events.push((10, bytes.to_vec())),
                        Event::Pong(bytes) => events.push((11, bytes.to_vec())),
                        Event::Close(code, reason) => {
                            events.push((12, format!("{code:?} {reason}").into_bytes()));
                            return (events, Some(0));
                        }
                    }
                    used
                }
                Err(fault) => return (events, Some(fault.code)),
            };
            held.drain(..used);
        }
    }
    (events, None)
}
