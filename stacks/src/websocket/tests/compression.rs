//! permessage-deflate: both sides of it, windows, bounds.

use moonwire_runtime::Kind;

use super::{super::code, *};

#[test]
fn messages_compressed_with_any_window_come_back() {
    let mut random = Random::new(seed());
    for window_bits in 9..=15 {
        for takeover in [true, false] {
            let (client, server) = compressed(takeover, window_bits);
            let mut there = (Sender::new(client.clone()), Receiver::new(server.clone()));
            let mut back = (Sender::new(server), Receiver::new(client));
            for _ in 0..40 {
                for (sender, receiver) in [(&mut there.0, &mut there.1), (&mut back.0, &mut back.1)] {
                    let (kind, payload) = random.message(40_000);
                    let wire = sender.message(kind, &payload);
                    assert_eq!(wire[0] & 0x40, 0x40);
                    assert_eq!(receiver.feed(&wire).unwrap(), [Seen::Message(kind, payload)]);
                }
            }
        }
    }
}

#[test]
fn a_message_refers_to_those_before_it_only_with_context_takeover() {
    let mut random = Random::new(seed());
    let payload = random.text(2000).into_bytes();
    for takeover in [true, false] {
        let (_, server) = compressed(takeover, 15);
        let mut sender = Sender::new(server);
        let first = sender.message(Type::Text, &payload).len();
        let second = sender.message(Type::Text, &payload).len();
        match takeover {
            true => assert!(second < first / 10, "{first} then {second}"),
            false => assert_eq!(second, first),
        }
    }
}

#[test]
fn a_sender_without_context_takeover_can_be_read_by_one_with_it() {
    let (client, _) = compressed(true, 15);
    let (_, server) = compressed(false, 15);
    let (mut sender, mut receiver) = (Sender::new(server), Receiver::new(client));
    let mut random = Random::new(seed());
    for _ in 0..50 {
        let (kind, payload) = random.message(3000);
        assert_eq!(receiver.feed(&sender.message(kind, &payload)).unwrap(), [Seen::Message(kind, payload)]);
    }
}

#[test]
fn short_messages_are_not_compressed() {
    let (client, server) = compressed(true, 15);
    let mut sender = Sender::new(Rules { threshold: 10, ..server });
    let mut receiver = Receiver::new(client);
    for (payload, bit) in [(&b"123456789"[..], 0), (b"1234567890", 0x40)] {
        let wire = sender.message(Type::Text, payload);
        assert_eq!(wire[0] & 0x40, bit);
        assert_eq!(receiver.feed(&wire).unwrap(), [Seen::Message(Type::Text, payload.to_vec())]);
    }
}

#[test]
fn a_small_message_that_becomes_a_large_one_is_refused_before_it_is_large() {
    let (client, server) = compressed(true, 15);
    let mut receiver = Receiver::new(Rules { message_max: 100_000, ..client });
    let mut sender = Sender::new(server);
    assert_eq!(receiver.feed(&sender.message(Type::Binary, &vec![0; 100_000])).unwrap().len(), 1);
    let bomb = sender.message(Type::Binary, &vec![0; 64 << 20]);
    assert!(bomb.len() < 100_000);
    let fault = receiver.feed(&bomb).unwrap_err();
    assert_eq!((fault.kind, fault.code), (Kind::Limit, code::TOO_BIG));
    let held = receiver.state.unwrap().bytes_capacity();
    assert!(held <= 400_000, "{held} bytes held");
}

#[test]
fn a_large_message_comes_in_pieces_of_a_bounded_size() {
    let (client, server) = compressed(true, 15);
    let mut receiver = Receiver::new(Rules { message_max: 1000, frame_max: 1000, ..client });
    let wire = Sender::new(server).message(Type::Binary, &vec![0; 64 << 20]);
    receiver.input.extend(&wire);
    let (mut total, mut done) = (0usize, false);
    while !done {
        let (used, event) =
            decode(receiver.input.as_mut_slice(), &receiver.rules, &mut receiver.state, &mut receiver.spares, true)
                .unwrap();
        let Some(Event::Piece(Type::Binary, piece, last)) = event else { panic!("{event:?}") };
        receiver.input.skip(used);
        assert!(piece.len() <= 256 * 1024, "a piece of {} bytes", piece.len());
        assert!(piece.iter().all(|&byte| byte == 0));
        total += piece.len();
        done = last;
    }
    assert_eq!(total, 64 << 20);
}

#[test]
fn damaged_compressed_messages_are_refused_or_taken_but_never_panic() {
    let mut random = Random::new(seed());
    let (client, server) = compressed(true, 15);
    let mut refused = 0;
    for _ in 0..2000 {
        let (kind, payload) = random.message(600);
        let mut wire = Sender::new(server.clone()).message(kind, &payload);
        for _ in 0..3 {
            let at = 2 + random.below(wire.len() - 2);
            wire[at] ^= 1 << random.below(8);
        }
        let mut receiver = Receiver::new(Rules { message_max: 100_000, ..client.clone() });
        refused += usize::from(receiver.feed(&wire).is_err());
    }
    assert!(refused > 500, "only {refused} of 2000 were refused");
}
