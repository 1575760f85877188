//! Packets of MQTT: whatever is decoded can be encoded, and is then decoded as the same packet.
//!
//! The first byte of an input chooses the version: 4, 5, or a server before CONNECT.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moonwire::mqtt::{PACKET_MAX, Packet, Version, decode, encode};
use moonwire_runtime::Buffer;

fuzz_target!(|input: &[u8]| {
    let Some((&level, wire)) = input.split_first() else { return };
    let version = Version::from_level(level);
    let Ok(Some((packet, size))) = decode(wire, version, PACKET_MAX) else { return };
    assert!(size <= wire.len());
    let version = match (&packet, version) {
        // It says its version itself.
        (Packet::Connect(connect), _) => connect.version,
        (_, Some(version)) => version,
        (_, None) => panic!("only CONNECT comes first"),
    };
    let mut out = Buffer::new();
    encode(&mut out, &packet, version, PACKET_MAX).expect("what was decoded can be said");
    let again = decode(out.as_slice(), Some(version), PACKET_MAX).expect("what was encoded can be read");
    assert_eq!(again, Some((packet, out.len())));
});
