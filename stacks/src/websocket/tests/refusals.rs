//! What the standards forbid, and our limits.

use moonwire_runtime::Kind;

use super::{
    super::{MESSAGE_MAX, code},
    *,
};

/// What `from` sent, as the other side judges it.
fn verdict(from: Role, wire: &[u8]) -> Result<Vec<Seen>, u16> {
    Receiver::new(Rules::new(other(from))).feed(wire).map_err(|fault| fault.code)
}

#[test]
fn reserved_bits_and_opcodes_are_refused_with_the_first_byte() {
    for from in [Role::Client, Role::Server] {
        for first in 0..=u8::MAX {
            let known = matches!(first & 0x0F, 0x0..=0x2 | 0x8..=0xA) && first & 0x70 == 0;
            let whole_control = first & 0x08 == 0 || first & 0x80 != 0;
            let outcome = verdict(from, &[first]);
            match known && whole_control {
                true => assert_eq!(outcome, Ok(vec![]), "{first:X}"),
                false => assert_eq!(outcome, Err(code::PROTOCOL_ERROR), "{first:X}"),
            }
        }
    }
}

#[test]
fn rsv1_is_refused_where_no_compressed_message_begins() {
    let (client, _) = compressed(true, 15);
    for first in [0xC0, 0x40, 0xC8, 0xC9, 0xCA] {
        let outcome = Receiver::new(client.clone()).feed(&[first]);
        assert_eq!(outcome.unwrap_err().code, code::PROTOCOL_ERROR, "{first:X}");
    }
    for first in [0xA1, 0x91, 0xB1, 0xE1, 0xD1] {
        assert_eq!(Receiver::new(client.clone()).feed(&[first]).unwrap_err().code, code::PROTOCOL_ERROR);
    }
    assert!(Receiver::new(client).feed(&[0xC1]).is_ok());
}

#[test]
fn clients_mask_and_servers_do_not() {
    // 5.1
    assert_eq!(verdict(Role::Client, b"\x81\x05"), Err(code::PROTOCOL_ERROR));
    assert_eq!(verdict(Role::Server, b"\x81\x85"), Err(code::PROTOCOL_ERROR));
}

#[test]
fn lengths_are_in_their_shortest_form() {
    // 5.2
    for (wire, right) in [
        (&b"\x82\x7E\x00\x7D"[..], false),
        (b"\x82\x7E\x00\x7E", true),
        (b"\x82\x7F\x00\x00\x00\x00\x00\x00\xFF\xFF", false),
        (b"\x82\x7F\x00\x00\x00\x00\x00\x01\x00\x00", true),
        (b"\x82\x7F\x80", false),
        (b"\x82\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", false),
        (b"\x89\x7E", false),
        (b"\x88\x7F", false),
    ] {
        let expected = if right { Ok(vec![]) } else { Err(code::PROTOCOL_ERROR) };
        assert_eq!(verdict(Role::Server, wire), expected, "{wire:X?}");
    }
}

#[test]
fn fragments_come_in_turn() {
    // 5.4
    assert_eq!(verdict(Role::Server, b"\x80\x00"), Err(code::PROTOCOL_ERROR));
    assert_eq!(verdict(Role::Server, b"\x00\x01a"), Err(code::PROTOCOL_ERROR));
    assert_eq!(verdict(Role::Server, b"\x01\x01a\x81\x01b"), Err(code::PROTOCOL_ERROR));
    assert_eq!(verdict(Role::Server, b"\x01\x01a\x02\x01b"), Err(code::PROTOCOL_ERROR));
    assert_eq!(verdict(Role::Server, b"\x81\x01a\x80\x01b"), Err(code::PROTOCOL_ERROR));
}

#[test]
fn a_close_frame_says_a_code_that_may_be_sent() {
    // 7.4
    for number in 0..=u16::MAX {
        let [high, low] = number.to_be_bytes();
        let right =
            (1000..=1014).contains(&number) && ![1004, 1005, 1006].contains(&number) || (3000..=4999).contains(&number);
        let expected = if right { Ok(vec![Seen::Close(Some(number), "x".into())]) } else { Err(code::PROTOCOL_ERROR) };
        assert_eq!(verdict(Role::Server, &[0x88, 3, high, low, b'x']), expected, "{number}");
    }
    assert_eq!(verdict(Role::Server, b"\x88\x00"), Ok(vec![Seen::Close(None, String::new())]));
    assert_eq!(verdict(Role::Server, b"\x88\x01\x03"), Err(code::PROTOCOL_ERROR));
    assert_eq!(verdict(Role::Server, b"\x88\x03\x03\xE8\xFF"), Err(code::INVALID_DATA));
}

#[test]
fn text_that_is_none_is_refused_with_the_byte_that_tells() {
    // 8.1; the first wrong byte is the one with the value 0x90.
    let wrong = b"good \xF4\x90 never read";
    let payload_begins = 6;
    for from in [Role::Client, Role::Server] {
        let whole = frame(from, 0x81, wrong);
        let header = whole.len() - wrong.len();
        assert_eq!(verdict(from, &whole[..header + payload_begins]), Ok(vec![]));
        assert_eq!(verdict(from, &whole[..header + payload_begins + 1]), Err(code::INVALID_DATA));
        // In a later fragment, and with the character cut between two.
        let split = [frame(from, 0x01, &wrong[..payload_begins]), frame(from, 0x80, &wrong[payload_begins..])].concat();
        assert_eq!(verdict(from, &split), Err(code::INVALID_DATA));
        // In a frame that is too long to wait for.
        let long = [&wrong[..], &[b'a'; 10_000]].concat();
        assert_eq!(verdict(from, &frame(from, 0x81, &long)[..100]), Err(code::INVALID_DATA));
        // The end within a character.
        assert_eq!(verdict(from, &frame(from, 0x81, b"a\xE2\x82")), Err(code::INVALID_DATA));
        let split = [frame(from, 0x01, b"a"), frame(from, 0x80, b"\xE2\x82")].concat();
        assert_eq!(verdict(from, &split), Err(code::INVALID_DATA));
    }
}

#[test]
fn what_is_too_long_is_refused_from_its_header() {
    let rules = Rules { frame_max: 1000, message_max: 1500, ..Rules::new(Role::Client) };
    let judge = |wire: &[u8]| Receiver::new(rules.clone()).feed(wire);
    let payload = [b'a'; 1500];
    assert!(judge(&frame(Role::Server, 0x82, &payload[..1000])).is_ok());
    let fault = judge(&frame(Role::Server, 0x82, &payload[..1001])[..4]).unwrap_err();
    assert_eq!((fault.kind, fault.code), (Kind::Limit, code::TOO_BIG));
    let begun = frame(Role::Server, 0x02, &payload[..1000]);
    let seen = judge(&[begun.clone(), frame(Role::Server, 0x80, &payload[..500])].concat()).unwrap();
    assert_eq!(seen, [Seen::Message(Type::Binary, payload.to_vec())]);
    let fault = judge(&[&begun[..], &frame(Role::Server, 0x80, &payload[..501])[..4]].concat()).unwrap_err();
    assert_eq!((fault.kind, fault.code), (Kind::Limit, code::TOO_BIG));
}

#[test]
fn a_claimed_length_allocates_nothing() {
    let mut receiver =
        Receiver::new(Rules { frame_max: u64::MAX, message_max: usize::MAX, ..Rules::new(Role::Client) });
    let wire = [&b"\x82\x7F\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF"[..], &[1; 5000]].concat();
    assert_eq!(receiver.feed(&wire).unwrap(), []);
    let held = receiver.state.as_ref().unwrap().bytes_capacity();
    assert!((5000..=16 * 1024).contains(&held), "{held} bytes held for 5,000 that came");
    assert_eq!(MESSAGE_MAX, Rules::new(Role::Client).message_max);
}

#[test]
fn no_message_under_way_is_no_memory_held() {
    for (takeover, kept) in [(false, false), (true, true)] {
        let (client, server) = compressed(takeover, 15);
        let (mut sender, mut receiver) = (Sender::new(server), Receiver::new(client));
        let wire = sender.message(Type::Text, &[b'a'; 9000]);
        assert_eq!(receiver.feed(&wire).unwrap().len(), 1);
        assert_eq!((sender.state.is_some(), receiver.state.is_some()), (kept, kept));
    }
    let mut receiver = Receiver::new(Rules::new(Role::Client));
    for wire in [frame(Role::Server, 0x82, &[1; 9000]), frame(Role::Server, 0x82, &[1; 9])] {
        for chunk in wire.chunks(1000) {
            receiver.feed(chunk).unwrap();
        }
        assert!(receiver.state.is_none());
    }
}

#[test]
fn mistakes_of_the_sender_send_nothing() {
    let rules = Rules::new(Role::Server);
    let (mut out, mut state, mut means) = (Buffer::new(), None, Means::default());
    let wrong = outgoing::message(&mut out, &rules, Type::Text, b"\xFF", &mut state, &mut means);
    assert_eq!(wrong, Err(outgoing::Mistake::NotText));
    let wrong = outgoing::piece(&mut out, &rules, None, b"", true, &mut state, &mut means);
    assert_eq!(wrong, Err(outgoing::Mistake::OutOfTurn));
    assert!(out.is_empty());
    outgoing::piece(&mut out, &rules, Some(Type::Text), b"a", false, &mut state, &mut means).unwrap();
    let begun = out.len();
    let wrong = outgoing::message(&mut out, &rules, Type::Text, b"b", &mut state, &mut means);
    assert_eq!(wrong, Err(outgoing::Mistake::OutOfTurn));
    let wrong = outgoing::piece(&mut out, &rules, None, b"\xC3", true, &mut state, &mut means);
    assert_eq!(wrong, Err(outgoing::Mistake::NotText));
    assert_eq!(out.len(), begun);
    let event = decode(out.as_mut_slice(), &Rules::new(Role::Client), &mut None, &mut Spares::default(), false);
    assert_eq!(event, Ok((begun, None)));
    assert_eq!(
        decode(&mut b"\x81\x01b".to_vec(), &Rules::new(Role::Client), &mut None, &mut Spares::default(), false),
        Ok((3, Some(text(b"b"))))
    );
}
