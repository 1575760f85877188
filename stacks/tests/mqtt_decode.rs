//! Random and damaged MQTT packets, very many of them: no panic, and no memory but for the words of a refusal.
//!
//! A short count runs with the other tests. For all of them, in a minute or two:
//!
//! ```sh
//! MOONWIRE_DECODES=100000000 cargo test --release -p moonwire --test mqtt_decode -- --nocapture
//! ```

use std::{fs, path::Path, time::Instant};

use allocation_counter::measure;
use moonwire::mqtt::{PACKET_MAX, Packet, Version, decode};

/// Decodes of a run with the other tests.
const DECODES: u64 = 300_000;
/// Bytes that a refusal may take: its words, once as they are made and once as they grow.
const REFUSAL_MAX: u64 = 512;

/// Random numbers (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: usize) -> usize {
        ((self.next() >> 33) as usize) % n
    }
}

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The packets that are damaged, each behind its version.
fn packets() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/mqtt");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Makes the next input: one in four is nothing but random.
fn next_input(random: &mut Random, packets: &[Vec<u8>], wire: &mut Vec<u8>) -> u8 {
    wire.clear();
    let packet = &packets[random.below(packets.len())];
    if random.below(4) == 0 {
        let length = random.below(64);
        wire.extend((0..length).map(|_| random.next() as u8));
        if length > 2 && random.below(2) == 0 {
            // A length that fits, so that decoding goes on behind the header.
            wire[1] = (length - 2) as u8;
        }
        return packet[0];
    }
    wire.extend_from_slice(&packet[1..]);
    for _ in 0..random.below(4) {
        let at = random.below(wire.len().max(1));
        match random.below(5) {
            0 => wire.insert(at.min(wire.len()), random.next() as u8),
            1 if !wire.is_empty() => drop(wire.remove(at)),
            2 => wire.truncate(at),
            3 if !wire.is_empty() => wire[at] ^= 1 << random.below(8),
            _ if !wire.is_empty() => wire[at] = random.next() as u8,
            _ => {}
        }
    }
    packet[0]
}

/// Looks at everything in a packet, as the Lua side does.
fn look_at(packet: &Packet<'_>) -> usize {
    match packet {
        Packet::Publish(publish) => publish.properties.iter().count() + publish.payload.len(),
        Packet::Subscribe(subscribe) => subscribe.subscriptions.iter().map(|one| one.filter.len()).sum(),
        Packet::Unsubscribe(unsubscribe) => unsubscribe.filters.iter().map(str::len).sum(),
        Packet::Connect(connect) => connect.properties.iter().count(),
        Packet::Connack(connack) => connack.properties.iter().count(),
        Packet::Ack(_, ack) => ack.properties.iter().count(),
        Packet::Acks(_, acks) => acks.properties.iter().count() + acks.reason_codes.len(),
        Packet::Reason(_, reason) => reason.properties.iter().count(),
        Packet::Pingreq | Packet::Pingresp => 0,
    }
}

#[test]
fn whatever_comes_is_decoded_without_a_panic_and_without_memory_of_its_own() {
    let (seed, decodes) = (variable("MOONWIRE_SEED", 2_611_221), variable("MOONWIRE_DECODES", DECODES));
    println!("MOONWIRE_SEED={seed} MOONWIRE_DECODES={decodes}");
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let packets = packets();
    let (mut taken, mut partial, mut refused, mut looked, mut most) = (0u64, 0u64, 0u64, 0, 0);
    let mut wire = Vec::with_capacity(4096);
    let started = Instant::now();
    for _ in 0..decodes {
        let level = next_input(&mut random, &packets, &mut wire);
        let version = Version::from_level(level).filter(|_| random.below(16) > 0);
        let mut outcome = 0;
        let memory = measure(|| {
            outcome = match decode(&wire, version, PACKET_MAX) {
                Ok(Some((packet, size))) => {
                    assert!(size <= wire.len());
                    looked += look_at(&packet);
                    1
                }
                Ok(None) => 2,
                Err(_) => 3,
            }
        });
        match outcome {
            1 => taken += 1,
            2 => partial += 1,
            _ => refused += 1,
        }
        let allowed = if outcome == 3 { REFUSAL_MAX } else { 0 };
        most = most.max(memory.bytes_total);
        assert!(memory.bytes_total <= allowed, "{memory:?} for {version:?} {wire:02X?}: {outcome}");
        assert_eq!(memory.bytes_current, 0, "{version:?} {wire:02X?}");
    }
    println!(
        "{decodes} decodes in {:.1} s: {taken} packets, {partial} not whole, {refused} refused; a refusal took at most \
         {most} bytes ({looked} things looked at)",
        started.elapsed().as_secs_f64()
    );
    assert!(taken > decodes / 100 && partial > decodes / 100 && refused > decodes / 100, "this tests too little");
}
