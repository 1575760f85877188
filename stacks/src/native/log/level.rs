//! Levels, and the text of `MOONWIRE_LOG` that sets them.

/// How much is said: each level includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Level {
    /// Those that a record can have.
    pub(super) const SPOKEN: [Level; 5] = [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];
    pub(super) const NAMES: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

    pub(super) fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// The level of that name, in letters of either case.
    pub(super) fn named(name: &str) -> Option<Self> {
        let is_it = |level: &Level| level.name().eq_ignore_ascii_case(name);
        [Level::Off].into_iter().chain(Self::SPOKEN).find(is_it)
    }
}

/// One part of `MOONWIRE_LOG`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Setting<'a> {
    /// The level of whoever has none of their own.
    Common(Level),
    /// The level of one name.
    Named(&'a str, Level),
    /// Not a level.
    Unknown(&'a str),
}

/// The parts of a text such as `warn,mqtt=debug`.
pub(super) fn parse_settings(text: &str) -> impl Iterator<Item = Setting<'_>> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(|part| {
        let (name, word) = match part.split_once('=') {
            Some((name, word)) => (Some(name.trim()), word.trim()),
            None => (None, part),
        };
        match (name, Level::named(word)) {
            (None, Some(level)) => Setting::Common(level),
            (Some(name), Some(level)) => Setting::Named(name, level),
            (_, None) => Setting::Unknown(word),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_sets_the_common_level_and_those_of_names() {
        let parts: Vec<_> = parse_settings(" warn, mqtt = DEBUG ,,http=off").collect();
        assert_eq!(
            parts,
            [Setting::Common(Level::Warn), Setting::Named("mqtt", Level::Debug), Setting::Named("http", Level::Off)]
        );
    }

    #[test]
    fn what_is_no_level_is_kept_to_be_named() {
        let parts: Vec<_> = parse_settings("dbug,mqtt=,=x").collect();
        assert_eq!(parts, [Setting::Unknown("dbug"), Setting::Unknown(""), Setting::Unknown("x")]);
    }

    #[test]
    fn every_name_names_its_level() {
        for name in Level::NAMES {
            assert_eq!(Level::named(name).map(Level::name), Some(name));
        }
    }
}
