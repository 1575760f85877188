//! The examples that the standards print.

use std::slice::from_ref;

use super::*;

/// Decodes what `from` sent.
fn seen(from: Role, wire: &[u8]) -> Vec<Seen> {
    Receiver::new(Rules::new(other(from))).feed(wire).unwrap()
}

#[test]
fn the_frames_of_section_5_7_are_what_they_say() {
    let hello = vec![Seen::Message(Type::Text, b"Hello".to_vec())];
    assert_eq!(seen(Role::Server, b"\x81\x05Hello"), hello);
    assert_eq!(seen(Role::Client, b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"), hello);
    assert_eq!(seen(Role::Server, b"\x01\x03Hel\x80\x02lo"), hello);
    assert_eq!(seen(Role::Server, b"\x89\x05Hello"), [Seen::Ping(b"Hello".to_vec())]);
    assert_eq!(seen(Role::Client, b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"), [Seen::Pong(b"Hello".to_vec())]);
    for (head, size) in [(&b"\x82\x7E\x01\x00"[..], 256), (b"\x82\x7F\x00\x00\x00\x00\x00\x01\x00\x00", 65536)] {
        let payload = vec![7; size];
        assert_eq!(seen(Role::Server, &[head, &payload].concat()), [Seen::Message(Type::Binary, payload.clone())]);
        assert_eq!(Sender::new(Rules::new(Role::Server)).message(Type::Binary, &payload)[..head.len()], *head);
    }
    assert_eq!(Sender::new(Rules::new(Role::Server)).message(Type::Text, b"Hello"), b"\x81\x05Hello");
}

#[test]
fn the_messages_of_rfc_7692_section_7_2_3_are_hello() {
    let (client, _) = compressed(true, 15);
    let hello = Seen::Message(Type::Text, b"Hello".to_vec());
    let wires: [&[u8]; 5] = [
        b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00",
        b"\x41\x03\xf2\x48\xcd\x80\x04\xc9\xc9\x07\x00",
        // A block without compression, a block that says it is the last, two blocks.
        b"\xc1\x0b\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00",
        b"\xc1\x08\xf3\x48\xcd\xc9\xc9\x07\x00\x00",
        b"\xc1\x0d\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00",
    ];
    for wire in wires {
        assert_eq!(Receiver::new(client.clone()).feed(wire).unwrap(), from_ref(&hello), "{wire:X?}");
        // And again on one that goes on.
        let mut receiver = Receiver::new(client.clone());
        for _ in 0..3 {
            assert_eq!(receiver.feed(wire).unwrap(), from_ref(&hello), "{wire:X?}");
        }
    }
    // 7.2.3.2: the second refers to the first.
    let mut receiver = Receiver::new(client);
    assert_eq!(receiver.feed(wires[0]).unwrap(), from_ref(&hello));
    assert_eq!(receiver.feed(b"\xc1\x05\xf2\x00\x11\x00\x00").unwrap(), [hello]);
}

#[test]
fn an_empty_message_is_one_byte_compressed() {
    // RFC 7692, 7.2.3.6.
    let (client, server) = compressed(true, 15);
    let mut sender = Sender::new(server);
    let mut receiver = Receiver::new(client);
    for _ in 0..3 {
        let wire = sender.message(Type::Text, b"");
        assert!(wire.len() <= 4, "{wire:X?}");
        assert_eq!(receiver.feed(&wire).unwrap(), [Seen::Message(Type::Text, Vec::new())]);
        let wire = sender.fragments(Type::Binary, &[b"", b""]);
        assert_eq!(receiver.feed(&wire).unwrap()[1], Seen::Message(Type::Binary, Vec::new()));
    }
}

#[test]
fn a_mask_goes_on_where_it_was_cut() {
    let key = [1, 2, 3, 4];
    let bytes: Vec<u8> = (0..100).collect();
    let mut whole = bytes.clone();
    mask(&mut whole, key);
    for (at, byte) in whole.iter().enumerate() {
        assert_eq!(*byte, bytes[at] ^ key[at % 4]);
    }
    for cut in 0..bytes.len() {
        let mut parts = bytes.clone();
        mask(&mut parts[..cut], key);
        mask(&mut parts[cut..], super::super::frame::rotated(key, cut));
        assert_eq!(parts, whole);
    }
}
