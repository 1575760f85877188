//! Reason codes: which packet may carry which, and their words (section 2.4).

use super::{Version, packet::PacketType};

/// Malformed Packet.
pub const MALFORMED_PACKET: u8 = 0x81;
/// Protocol Error.
pub const PROTOCOL_ERROR: u8 = 0x82;
/// Unsupported Protocol Version.
pub const UNSUPPORTED_PROTOCOL_VERSION: u8 = 0x84;
/// Topic Alias invalid.
pub const TOPIC_ALIAS_INVALID: u8 = 0x94;
/// Packet too large.
pub const PACKET_TOO_LARGE: u8 = 0x95;

/// Whether `packet` may carry `code`.
pub const fn allowed(packet: PacketType, version: Version, code: u8) -> bool {
    use PacketType as P;
    match (version, packet) {
        // Table 3.1 - Connect Return code values (3.1.1, 3.2.2.3)
        (Version::V311, P::Connack) => code <= 5,
        // [MQTT-3.9.3-2] (3.1.1)
        (Version::V311, P::Suback) => matches!(code, 0..=2 | 0x80),
        (Version::V311, _) => code == 0,
        // [MQTT-3.2.2-8]
        (Version::V5, P::Connack) => {
            matches!(code, 0 | 0x80..=0x8A | 0x8C | 0x90 | 0x95 | 0x97 | 0x99..=0x9D | 0x9F)
        }
        // [MQTT-3.4.2-1], [MQTT-3.5.2-1]
        (Version::V5, P::Puback | P::Pubrec) => {
            matches!(code, 0 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
        }
        // [MQTT-3.6.2-1], [MQTT-3.7.2-1]
        (Version::V5, P::Pubrel | P::Pubcomp) => matches!(code, 0 | 0x92),
        // [MQTT-3.9.3-2]
        (Version::V5, P::Suback) => {
            matches!(code, 0..=2 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91 | 0x97 | 0x9E | 0xA1 | 0xA2)
        }
        // [MQTT-3.11.3-2]
        (Version::V5, P::Unsuback) => matches!(code, 0 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91),
        // [MQTT-3.14.2-1]
        (Version::V5, P::Disconnect) => {
            matches!(code, 0 | 4 | 0x80..=0x83 | 0x87 | 0x89 | 0x8B | 0x8D..=0x8F | 0x90 | 0x93..=0xA2)
        }
        // [MQTT-3.15.2-1]
        (Version::V5, P::Auth) => matches!(code, 0 | 0x18 | 0x19),
        (Version::V5, _) => code == 0,
    }
}

/// The words of table 2-6. `0x00` is said by each packet in its own way; here it is "success".
pub const fn words(code: u8) -> Option<&'static str> {
    Some(match code {
        0x00 => "success",
        0x01 => "granted QoS 1",
        0x02 => "granted QoS 2",
        0x04 => "disconnect with will message",
        0x10 => "no matching subscribers",
        0x11 => "no subscription existed",
        0x18 => "continue authentication",
        0x19 => "re-authenticate",
        0x80 => "unspecified error",
        0x81 => "malformed packet",
        0x82 => "protocol error",
        0x83 => "implementation specific error",
        0x84 => "unsupported protocol version",
        0x85 => "client identifier not valid",
        0x86 => "bad user name or password",
        0x87 => "not authorized",
        0x88 => "server unavailable",
        0x89 => "server busy",
        0x8A => "banned",
        0x8B => "server shutting down",
        0x8C => "bad authentication method",
        0x8D => "keep alive timeout",
        0x8E => "session taken over",
        0x8F => "topic filter invalid",
        0x90 => "topic name invalid",
        0x91 => "packet identifier in use",
        0x92 => "packet identifier not found",
        0x93 => "receive maximum exceeded",
        0x94 => "topic alias invalid",
        0x95 => "packet too large",
        0x96 => "message rate too high",
        0x97 => "quota exceeded",
        0x98 => "administrative action",
        0x99 => "payload format invalid",
        0x9A => "retain not supported",
        0x9B => "QoS not supported",
        0x9C => "use another server",
        0x9D => "server moved",
        0x9E => "shared subscriptions not supported",
        0x9F => "connection rate exceeded",
        0xA0 => "maximum connect time",
        0xA1 => "subscription identifiers not supported",
        0xA2 => "wildcard subscriptions not supported",
        _ => return None,
    })
}

/// The words of 3.1.1's Connect Return codes (3.2.2.3).
pub const fn connect_return_words(code: u8) -> Option<&'static str> {
    Some(match code {
        0 => "connection accepted",
        1 => "unacceptable protocol version",
        2 => "identifier rejected",
        3 => "server unavailable",
        4 => "bad user name or password",
        5 => "not authorized",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_a_packet_may_carry_has_words_and_every_worded_code_a_packet() {
        for code in 0..=255 {
            let carried = PacketType::ALL.iter().any(|&packet| allowed(packet, Version::V5, code));
            assert_eq!(carried, words(code).is_some(), "0x{code:02X}");
            assert_eq!(allowed(PacketType::Connack, Version::V311, code), connect_return_words(code).is_some());
        }
    }

    #[test]
    fn each_packet_has_as_many_codes_as_its_table() {
        use PacketType as P;
        let count = |packet| (0..=255).filter(|&code| allowed(packet, Version::V5, code)).count();
        let tables = [
            (P::Connack, 22),
            (P::Puback, 9),
            (P::Pubrec, 9),
            (P::Pubrel, 2),
            (P::Pubcomp, 2),
            (P::Suback, 12),
            (P::Unsuback, 7),
            (P::Disconnect, 29),
            (P::Auth, 3),
        ];
        for (packet, codes) in tables {
            assert_eq!(count(packet), codes, "{packet:?}");
        }
    }
}
