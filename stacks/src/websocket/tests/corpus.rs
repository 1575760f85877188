//! The fuzzer's first inputs: messages, each behind a byte that says who reads and how it is compressed, and one that
//! says where it is cut.

use std::{fs, path::PathBuf};

use super::*;

/// Bits of the first byte: a server reads, it is compressed, and with context takeover.
const TO_SERVER: u8 = 1;
const COMPRESSED: u8 = 2;
const TAKEOVER: u8 = 4;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/websocket")
}

/// Our rules, as the fuzzer reads them off the first byte.
fn rules(kind: u8) -> Rules {
    let role = if kind & TO_SERVER == 0 { Role::Client } else { Role::Server };
    let both =
        (kind & COMPRESSED != 0).then_some(Compression { window_bits: 9 + kind % 7, takeover: kind & TAKEOVER != 0 });
    Rules { inflate: both, deflate: both, threshold: 0, ..Rules::new(role) }
}

#[test]
fn every_file_of_the_fuzzers_corpus_is_messages_and_every_kind_is_there() {
    let mut kinds = [0; 8];
    for entry in fs::read_dir(folder()).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        let seen = Receiver::new(rules(bytes[0])).feed(&bytes[2..]).unwrap();
        assert!(matches!(seen.last(), Some(Seen::Close(..))) && seen.len() > 3, "{seen:?}");
        kinds[usize::from(bytes[0])] += 1;
    }
    assert_eq!(kinds.map(|count| count > 0), [true; 8]);
}

#[test]
#[ignore = "writes the fuzzer's corpus anew"]
fn write_the_fuzzers_corpus() {
    fs::create_dir_all(folder()).unwrap();
    let mut random = Random::new(seed());
    for (count, kind) in (0..8).chain(0..8).enumerate() {
        let from = rules(kind ^ TO_SERVER);
        let role = from.role;
        // Windows are of the same size on both sides, whoever reads.
        let both = rules(kind).inflate;
        let mut sender = Sender::new(Rules { inflate: both, deflate: both, ..from });
        let mut wire = sender.message(Type::Text, random.text(20).as_bytes());
        let size = random.below(300);
        let text = random.text(size);
        let (first, rest) = text.split_at(text.char_indices().nth(text.chars().count() / 2).map_or(0, |(at, _)| at));
        wire.extend(sender.fragments(Type::Text, &[first.as_bytes(), rest.as_bytes()]));
        let (kind_of, payload) = random.message(if count < 8 { 60 } else { 5000 });
        wire.extend(sender.message(kind_of, &payload));
        wire.extend(frame(role, 0x88, b"\x03\xE8bye"));
        fs::write(folder().join(format!("{count}")), [&[kind, random.below(64) as u8], &wire[..]].concat()).unwrap();
    }
}
