//! Every cut, and random input.

use super::*;

/// What a sender of `rules` makes of random messages, some fragmented, and what the other side is to see.
fn exchange(random: &mut Random, rules: Rules, count: usize, most: usize) -> (Vec<u8>, Vec<Seen>) {
    let mut sender = Sender::new(rules);
    let (mut wire, mut expected) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let (kind, payload) = random.message(most);
        if random.below(2) == 0 {
            wire.extend(sender.message(kind, &payload));
        } else {
            let (a, b) = (random.below(payload.len() + 1), random.below(payload.len() + 1));
            let parts = [&payload[..a.min(b)], &payload[a.min(b)..a.max(b)], &payload[a.max(b)..]];
            wire.extend(sender.fragments(kind, &parts));
            expected.extend([Seen::Ping(b"?".to_vec()), Seen::Ping(b"?".to_vec())]);
        }
        expected.push(Seen::Message(kind, payload));
    }
    (wire, expected)
}

fn kinds() -> Vec<(Rules, Rules)> {
    let plain = (Rules::new(Role::Client), Rules::new(Role::Server));
    let (client, server) = compressed(true, 15);
    let (client_alone, server_alone) = compressed(false, 10);
    let pairs = [plain, (client, server), (client_alone, server_alone)];
    pairs.into_iter().flat_map(|(client, server)| [(client.clone(), server.clone()), (server, client)]).collect()
}

#[test]
fn frames_cut_at_any_byte_are_the_same_messages() {
    let mut random = Random::new(seed());
    for (from, to) in kinds() {
        let (wire, expected) = exchange(&mut random, from, 6, 400);
        for cut in 0..=wire.len() {
            let mut receiver = Receiver::new(to.clone());
            let mut seen = receiver.feed(&wire[..cut]).unwrap();
            seen.extend(receiver.feed(&wire[cut..]).unwrap());
            assert_eq!(seen, expected, "cut at {cut}");
        }
        let mut receiver = Receiver::new(to.clone());
        let seen: Vec<Seen> = wire.chunks(1).flat_map(|byte| receiver.feed(byte).unwrap()).collect();
        assert_eq!(seen, expected);
    }
}

#[test]
fn large_frames_in_parts_of_any_size_are_the_same_messages() {
    let mut random = Random::new(seed());
    for (from, to) in kinds() {
        let (wire, expected) = exchange(&mut random, from, 20, 100_000);
        let mut receiver = Receiver::new(to.clone());
        let (mut seen, mut rest) = (Vec::new(), &wire[..]);
        while !rest.is_empty() {
            let (part, left) = rest.split_at(1 + random.below(rest.len().min(70_000)));
            seen.extend(receiver.feed(part).unwrap());
            rest = left;
        }
        assert!(seen == expected);
        for step in [1 + random.below(5000), 65_536] {
            let mut receiver = Receiver::new(to.clone());
            assert!(receiver.feed_pieces(&wire, step).unwrap() == expected, "pieces of {step}");
        }
    }
}

#[test]
fn random_bytes_neither_panic_nor_hang() {
    let mut random = Random::new(seed());
    for round in 0..100_000 {
        let size = random.below(80);
        let mut wire = random.bytes(size);
        if let Some(first) = wire.first_mut().filter(|_| round % 2 == 0) {
            // So that decoding goes further than the first byte.
            *first = [0x81, 0x82, 0x01, 0x02, 0x80, 0x00, 0x88, 0x89, 0x8A, 0xC1, 0x41][random.below(11)];
        }
        for (_, to) in kinds().into_iter().take(4) {
            let (mut one, mut two) = (Receiver::new(to.clone()), Receiver::new(to));
            let at_once = one.feed(&wire);
            let cut = random.below(wire.len() + 1);
            let in_two = two.feed(&wire[..cut]).and_then(|mut seen| {
                seen.extend(two.feed(&wire[cut..])?);
                Ok(seen)
            });
            assert_eq!(at_once.map_err(|fault| fault.code), in_two.map_err(|fault| fault.code), "{wire:X?} at {cut}");
        }
    }
}
