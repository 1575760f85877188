//! Whole packets: vectors from the standards, every cut, random and damaged input, and another
//! implementation as an oracle.

mod corpus;
mod hot;
mod oracle;
mod random;
mod samples;
mod vectors;

use moonwire_runtime::Buffer;

use super::{Fault, PACKET_MAX, Packet, Version, decode, encode};

/// Decodes bytes that are one whole packet.
fn whole(wire: &[u8], version: Version) -> Result<Packet<'_>, Fault> {
    let (packet, size) = decode(wire, Some(version), PACKET_MAX)?.expect("a whole packet");
    assert_eq!(size, wire.len(), "{wire:02X?}");
    Ok(packet)
}

/// Encodes one packet by itself.
fn encoded(packet: &Packet<'_>, version: Version) -> Result<Vec<u8>, Fault> {
    let mut out = Buffer::new();
    encode(&mut out, packet, version, PACKET_MAX)?;
    Ok(out.as_slice().to_vec())
}
