//! Topic names, topic filters, and which filter matches which name (section 4.7 and 4.8).

use super::{Fault, Version};

/// Refuses what is not a topic name: empty [MQTT-4.7.3-1], or with a wildcard [MQTT-3.3.2-2]
/// (3.1.1: [MQTT-4.7.1-1]). That it is a string without U+0000 was seen when it was read.
pub fn check_name(name: &str, what: &'static str) -> Result<(), Fault> {
    if name.is_empty() {
        return Err(Fault::malformed(format!("{what}: a topic name has at least one character")));
    }
    // Without a way out in the middle this is done for many bytes at once.
    if name.bytes().fold(false, |found, byte| found | (byte == b'+') | (byte == b'#')) {
        return Err(Fault::malformed(format!("{what}: a topic name has no wildcards")));
    }
    Ok(())
}

/// Refuses what is not a topic filter. Shared subscriptions came with MQTT 5: before it,
/// `$share/` is the beginning of a filter like any other.
pub fn check_filter(filter: &str, version: Version) -> Result<(), Fault> {
    match fault_of(filter, version) {
        None => Ok(()),
        Some(why) => Err(Fault::malformed(format!("topic filter {:?}: {why}", shown(filter)))),
    }
}

fn fault_of(filter: &str, version: Version) -> Option<&'static str> {
    let mut levels = filter;
    if let (Some(rest), Version::V5) = (filter.strip_prefix("$share/"), version) {
        // [MQTT-4.8.2-1], [MQTT-4.8.2-2]
        match rest.split_once('/') {
            None => return Some("a share name is followed by a slash and a filter"),
            Some(("", _)) => return Some("the share name is empty"),
            Some((name, _)) if name.contains(['+', '#']) => return Some("a share name has no wildcards"),
            Some((_, inner)) => levels = inner,
        }
    }
    // [MQTT-4.7.3-1]
    if levels.is_empty() {
        return Some("a topic filter has at least one character");
    }
    let mut levels = levels.split('/').peekable();
    while let Some(level) = levels.next() {
        // [MQTT-4.7.1-1] (3.1.1: [MQTT-4.7.1-2])
        if level == "#" && levels.peek().is_some() {
            return Some("\"#\" stands only at the end");
        }
        // [MQTT-4.7.1-2] (3.1.1: [MQTT-4.7.1-3])
        if level.len() > 1 && level.contains(['+', '#']) {
            return Some("a wildcard stands alone in its level");
        }
    }
    None
}

/// The front of a filter, for a message of one line.
fn shown(filter: &str) -> &str {
    let end = filter.char_indices().nth(60).map_or(filter.len(), |(at, _)| at);
    &filter[..end]
}

/// The share name and the filter within, when this is a shared subscription's filter (4.8.2).
pub fn shared(filter: &str) -> Option<(&str, &str)> {
    filter.strip_prefix("$share/")?.split_once('/')
}

/// Whether `filter`, a valid one, matches the topic name `name`. A shared subscription's
/// filter matches as the filter within.
pub fn matches(filter: &[u8], name: &[u8]) -> bool {
    let filter = match filter.strip_prefix(b"$share/") {
        Some(rest) => match rest.iter().position(|&byte| byte == b'/') {
            Some(slash) => &rest[slash + 1..],
            None => filter,
        },
        None => filter,
    };
    // A wildcard in front does not match names that begin with "$" [MQTT-4.7.2-1].
    if let ([b'+' | b'#', ..], [b'$', ..]) = (filter, name) {
        return false;
    }
    let (mut filter, mut name) = (Some(filter), Some(name));
    loop {
        match (filter, name) {
            (None, None) => return true,
            (Some(left), right) => {
                let (level, filter_rest) = split(left);
                if level == b"#" {
                    // "sport/#" matches "sport" too: it includes the parent level (4.7.1.2).
                    return true;
                }
                let Some(right) = right else { return false };
                let (found, name_rest) = split(right);
                if level != b"+" && level != found {
                    return false;
                }
                (filter, name) = (filter_rest, name_rest);
            }
            (None, Some(_)) => return false,
        }
    }
}

/// The first level, and what follows its slash.
fn split(levels: &[u8]) -> (&[u8], Option<&[u8]>) {
    match levels.iter().position(|&byte| byte == b'/') {
        Some(slash) => (&levels[..slash], Some(&levels[slash + 1..])),
        None => (levels, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(filter: &str, name: &str) -> bool {
        matches(filter.as_bytes(), name.as_bytes())
    }

    #[test]
    fn filters_match_as_the_examples_of_section_4_7_say() {
        for name in ["sport/tennis/player1", "sport/tennis/player1/ranking", "sport/tennis/player1/score/wimbledon"] {
            assert!(hit("sport/tennis/player1/#", name));
        }
        assert!(hit("sport/#", "sport"));
        assert!(hit("#", "a/b/c"));
        assert!(hit("sport/tennis/+", "sport/tennis/player1"));
        assert!(!hit("sport/tennis/+", "sport/tennis/player1/ranking"));
        assert!(!hit("sport/+", "sport"));
        assert!(hit("sport/+", "sport/"));
        assert!(hit("+/+", "/finance"));
        assert!(hit("/+", "/finance"));
        assert!(!hit("+", "/finance"));
        assert!(hit("+/tennis/#", "sport/tennis"));
        assert!(hit("a//b", "a//b"));
        assert!(!hit("ACCOUNTS", "Accounts"));
        assert!(!hit("/a", "a"));
        assert!(!hit("a", "a/b"));
        assert!(!hit("a/b", "a"));
    }

    #[test]
    fn a_wildcard_in_front_does_not_match_names_beginning_with_a_dollar() {
        // [MQTT-4.7.2-1]
        assert!(!hit("#", "$SYS/x"));
        assert!(!hit("+/monitor/Clients", "$SYS/monitor/Clients"));
        assert!(hit("$SYS/#", "$SYS/"));
        assert!(hit("$SYS/#", "$SYS"));
        assert!(hit("$SYS/monitor/+", "$SYS/monitor/Clients"));
        assert!(hit("a/+", "a/$b"));
        assert!(!hit("$share/g/#", "$SYS/x"));
    }

    #[test]
    fn a_shared_filter_matches_as_the_filter_within() {
        assert!(hit("$share/consumer//finance", "/finance"));
        assert!(hit("$share/consumer1/sport/tennis/+", "sport/tennis/player1"));
        assert!(!hit("$share/consumer1/a", "consumer1/a"));
        assert_eq!(shared("$share/consumer//finance"), Some(("consumer", "/finance")));
        assert_eq!(shared("$shared/a/b"), None);
    }

    #[test]
    fn filters_with_misplaced_wildcards_are_refused() {
        for good in [
            "#",
            "+",
            "a",
            "/",
            "//",
            "+/+/#",
            "a/+/b",
            "sport/tennis/#",
            "$SYS/#",
            "$share/g/#",
            "$share/g//a",
            "$share",
            " ",
        ] {
            assert_eq!(check_filter(good, Version::V5), Ok(()), "{good}");
        }
        for bad in [
            "",
            "a+",
            "+a",
            "a/b#",
            "#/a",
            "a/#/b",
            "##",
            "++",
            "$share/",
            "$share/g",
            "$share/g/",
            "$share//a",
            "$share/g+/a",
            "$share/#/a",
        ] {
            assert_eq!(check_filter(bad, Version::V5).unwrap_err().code, 0x81, "{bad}");
        }
    }

    #[test]
    fn before_mqtt_5_a_share_is_a_filter_like_any_other() {
        for filter in ["$share/g", "$share//a", "$share/+/a"] {
            assert_eq!(check_filter(filter, Version::V311), Ok(()), "{filter}");
        }
    }

    #[test]
    fn names_without_a_character_or_with_a_wildcard_are_refused() {
        for good in ["a", "/", "$SYS/x", "a b", "ä/ö"] {
            assert_eq!(check_name(good, "topic"), Ok(()));
        }
        for bad in ["", "#", "a/+", "a+b"] {
            assert_eq!(check_name(bad, "topic").unwrap_err().code, 0x81, "{bad}");
        }
    }

    #[test]
    fn a_long_filter_is_cut_in_the_message_and_at_a_character() {
        let fault = check_filter(&format!("{}#", "ä".repeat(1000)), Version::V5).unwrap_err();
        assert!(fault.message.len() < 200, "{fault}");
    }
}
