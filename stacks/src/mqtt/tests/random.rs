//! Every cut, every limit, damaged and random input.

use moonwire_runtime::{Buffer, Kind};

use super::{
    encoded,
    samples::{Random, Shape, all, seed},
    whole,
};
use crate::mqtt::{PACKET_MAX, Version, decode, encode, packet::PacketType};

const FULL: Shape = Shape { properties: 9, repeats: 4 };

#[test]
fn a_packet_encoded_again_is_the_same_bytes() {
    let mut random = Random::new(seed());
    for (kind, version, wire) in all(&mut random, 200, FULL) {
        let packet = whole(&wire, version).unwrap_or_else(|fault| panic!("{kind:?} {version:?}: {fault} {wire:02X?}"));
        assert_eq!(packet.packet_type(), kind);
        assert_eq!(encoded(&packet, version).unwrap(), wire, "{kind:?} {version:?}");
    }
}

#[test]
fn a_packet_cut_at_any_byte_is_not_yet_a_packet() {
    let mut random = Random::new(seed());
    for (kind, version, wire) in all(&mut random, 10, FULL) {
        for cut in 0..wire.len() {
            assert_eq!(decode(&wire[..cut], Some(version), PACKET_MAX), Ok(None), "{kind:?} {version:?} cut at {cut}");
        }
    }
}

#[test]
fn what_follows_a_packet_is_left_alone() {
    let mut random = Random::new(seed());
    for (kind, version, wire) in all(&mut random, 10, FULL) {
        let packet = whole(&wire, version).unwrap();
        let longer = [&wire[..], &[0xFF; 7]].concat();
        assert_eq!(decode(&longer, Some(version), PACKET_MAX), Ok(Some((packet, wire.len()))), "{kind:?}");
    }
}

#[test]
fn a_packet_whose_length_lies_is_refused() {
    // The same bytes under a remaining length that is one less or one more.
    let mut random = Random::new(seed());
    for (kind, version, wire) in all(&mut random, 20, FULL) {
        let packet = whole(&wire, version).unwrap();
        if wire[1] >= 0x7F || wire[1] == 0 {
            continue;
        }
        for lie in [wire[1] - 1, wire[1] + 1] {
            let mut lying = wire.clone();
            lying[1] = lie;
            // No reason code and no property length, so that it cannot be a longer form of the same.
            lying.push(0xFF);
            // A payload, a last string or a list may be as long as the packet says; nothing may be read beyond it.
            if let Ok(Some((found, size))) = decode(&lying, Some(version), PACKET_MAX) {
                assert_eq!(size, 2 + usize::from(lie));
                assert_ne!(found, packet, "{kind:?} {version:?}");
            }
        }
    }
}

#[test]
fn a_packet_larger_than_the_limit_is_refused_from_its_first_bytes_and_one_of_the_limit_is_taken() {
    let mut random = Random::new(seed());
    for (kind, version, wire) in all(&mut random, 10, FULL) {
        assert!(decode(&wire, Some(version), wire.len()).is_ok());
        let header = if wire[1] < 0x80 { 2 } else { 3 };
        let fault = decode(&wire[..header], Some(version), wire.len() - 1).unwrap_err();
        assert_eq!((fault.kind, fault.code), (Kind::Limit, 0x95), "{kind:?}");

        let mut out = Buffer::new();
        out.extend(b"before");
        let packet = whole(&wire, version).unwrap();
        assert_eq!(encode(&mut out, &packet, version, wire.len() - 1).unwrap_err().kind, Kind::Limit);
        assert_eq!(out.as_slice(), b"before");
        encode(&mut out, &packet, version, wire.len()).unwrap();
        assert_eq!(&out.as_slice()[6..], wire);
    }
}

#[test]
fn damaged_packets_neither_panic_nor_change_when_encoded_again() {
    let mut random = Random::new(seed());
    let packets = all(&mut random, 20, FULL);
    let mut taken = 0u32;
    for _ in 0..300_000 {
        let (_, version, wire) = &packets[random.below(packets.len())];
        let mut wire = wire.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(wire.len());
            match random.below(4) {
                0 => wire[at] = random.next() as u8,
                1 => wire[at] ^= 1 << random.below(8),
                2 => wire.insert(at, random.next() as u8),
                _ => drop(wire.remove(at)),
            }
            if wire.is_empty() {
                wire.push(0x30);
            }
        }
        taken += u32::from(stands_by_it(&wire, *version));
    }
    assert!(taken > 1000, "only {taken} damaged packets were still packets: this tests too little");
}

#[test]
fn random_bytes_neither_panic_nor_change_when_encoded_again() {
    let mut random = Random::new(seed());
    for round in 0..300_000u32 {
        let mut wire = random.bytes(64);
        if round % 2 == 0 && wire.len() > 2 {
            // A first byte and a length that fit, so that decoding goes further than the header.
            let kind = PacketType::ALL[random.below(15)];
            wire[0] = (kind as u8) << 4 | kind.flags().unwrap_or(random.pick(&[0, 1, 2, 10, 4]));
            wire[1] = (wire.len() - 2) as u8;
        }
        for version in [Version::V311, Version::V5] {
            stands_by_it(&wire, version);
        }
        let _ = decode(&wire, None, PACKET_MAX);
    }
}

/// What is taken can be said again, and is then the same packet.
fn stands_by_it(wire: &[u8], version: Version) -> bool {
    let Ok(Some((packet, size))) = decode(wire, Some(version), PACKET_MAX) else { return false };
    assert!(size <= wire.len());
    // CONNECT says its version itself.
    let version = if let crate::mqtt::Packet::Connect(connect) = &packet { connect.version } else { version };
    let again = encoded(&packet, version).unwrap_or_else(|fault| panic!("{fault}: {packet:?} from {wire:02X?}"));
    assert_eq!(whole(&again, version), Ok(packet), "{wire:02X?}");
    true
}
