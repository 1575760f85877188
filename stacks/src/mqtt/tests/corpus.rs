//! The fuzzer's first inputs: a file for each packet, its version before it.

use std::{fs, path::PathBuf};

use super::{
    samples::{Random, Shape, all, seed},
    whole,
};
use crate::mqtt::Version;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/mqtt")
}

#[test]
fn every_file_of_the_fuzzers_corpus_is_a_packet_and_every_packet_is_there() {
    let mut kinds = [0u16; 2];
    for entry in fs::read_dir(folder()).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        let version = Version::from_level(bytes[0]).unwrap();
        let packet = whole(&bytes[1..], version).unwrap();
        kinds[usize::from(version == Version::V5)] |= 1 << packet.packet_type() as u16;
    }
    assert_eq!(kinds, [0x7FFE, 0xFFFE]);
}

#[test]
#[ignore = "writes the fuzzer's corpus anew"]
fn write_the_fuzzers_corpus() {
    fs::create_dir_all(folder()).unwrap();
    let mut random = Random::new(seed());
    for (size, shape) in
        [Shape { properties: 2, repeats: 1 }, Shape { properties: 8, repeats: 2 }].into_iter().enumerate()
    {
        for (count, (kind, version, wire)) in all(&mut random, 2, shape).into_iter().enumerate() {
            let name = format!("{}-{}-{size}-{count}", version as u8, kind.name().to_ascii_lowercase());
            fs::write(folder().join(name), [&[version as u8], &wire[..]].concat()).unwrap();
        }
    }
}
