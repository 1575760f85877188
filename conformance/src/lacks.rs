//! What a server does not offer: `servers/NAME/lacks.txt`, each feature with its reason, where that is known from, and
//! when it was looked at.
//!
//! ```text
//! feature: MQTT 5
//! before:  4.0
//! reason:  it closes the connection instead of answering CONNECT
//! source:  its release notes of 3.13 and 4.0; seen with 3.10.8
//! date:    2026-11-23
//! ```
//!
//! Features are parted by empty lines. A case asks for what it needs by the feature's name, and is skipped where the
//! server lacks it. `before` and `from` are versions between which the server lacks it; without them every version does.

use std::fs;
use std::path::Path;

use crate::expected::numbers;

/// What a case says with the feature's name when it is skipped.
pub const WORD: &str = "lacks ";

/// A feature that a server does not offer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lack {
    /// Its name, as cases ask for it.
    pub feature: String,
    /// The version that has it at last.
    pub before: Option<String>,
    /// The version that has it no longer.
    pub from: Option<String>,
    /// What the server does instead, or why not.
    pub reason: String,
    /// Where that is known from.
    pub source: String,
    /// When that was looked at: year, month, day.
    pub date: String,
}

impl Lack {
    /// Whether a server of this version lacks it.
    pub fn is_of(&self, version: &str) -> bool {
        let version = numbers(version);
        self.before.as_deref().is_none_or(|before| version < numbers(before))
            && self.from.as_deref().is_none_or(|from| version >= numbers(from))
    }

    /// Whether every version lacks it.
    pub fn is_of_all(&self) -> bool {
        self.before.is_none() && self.from.is_none()
    }

    fn field(&mut self, name: &str) -> Option<&mut String> {
        match name {
            "feature" => Some(&mut self.feature),
            "before" => Some(self.before.get_or_insert_default()),
            "from" => Some(self.from.get_or_insert_default()),
            "reason" => Some(&mut self.reason),
            "source" => Some(&mut self.source),
            "date" => Some(&mut self.date),
            _ => None,
        }
    }
}

/// All that a server does not offer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lacks {
    lacks: Vec<Lack>,
}

impl Lacks {
    /// Reads the table in a server's folder; a server without one lacks nothing.
    ///
    /// # Errors
    /// In words, when it cannot be read or understood.
    pub fn read(folder: &Path) -> Result<Self, String> {
        let path = folder.join("lacks.txt");
        if !path.is_file() {
            return Ok(Self::default());
        }
        let wrong = |error: String| format!("{}: {error}", path.display());
        let text = fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
        Self::parse(&text).map_err(wrong)
    }

    /// Reads a table.
    ///
    /// # Errors
    /// In words, with the line's number; each feature has its name, reason, source and date.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut lacks: Vec<Lack> = Vec::new();
        let mut between = true;
        for (index, line) in text.lines().enumerate() {
            let wrong = |what: &str| format!("line {}: {what}", index + 1);
            if line.starts_with('#') {
                continue;
            }
            if line.trim().is_empty() {
                between = true;
                continue;
            }
            if between {
                lacks.push(Lack::default());
                between = false;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| wrong("`NAME: VALUE` wanted"))?;
            let field = lacks.last_mut().and_then(|lack| lack.field(name));
            let field = field.ok_or_else(|| wrong(&format!("`{name}` is not a word of this table")))?;
            if !field.is_empty() {
                return Err(wrong(&format!("`{name}` is there twice")));
            }
            value.trim().clone_into(field);
        }
        for (index, lack) in lacks.iter().enumerate() {
            for (name, value) in [("reason", &lack.reason), ("source", &lack.source), ("date", &lack.date)] {
                if lack.feature.is_empty() || value.is_empty() {
                    return Err(format!("feature `{}` has no {name}", lack.feature));
                }
            }
            let date: Vec<&str> = lack.date.split('-').collect();
            if date.iter().map(|part| part.len()).ne([4, 2, 2]) || date.iter().any(|part| part.parse::<u16>().is_err())
            {
                return Err(format!("feature `{}`: `{}` is not YEAR-MONTH-DAY", lack.feature, lack.date));
            }
            if lacks[..index].iter().any(|other| other.feature == lack.feature) {
                return Err(format!("feature `{}` is there twice", lack.feature));
            }
        }
        Ok(Self { lacks })
    }

    /// All of them, in the table's order.
    pub fn iter(&self) -> impl Iterator<Item = &Lack> {
        self.lacks.iter()
    }

    /// What is known of a feature.
    pub fn get(&self, feature: &str) -> Option<&Lack> {
        self.lacks.iter().find(|lack| lack.feature == feature)
    }

    /// The names of what a server of this version lacks, parted by commas: for cases.
    pub fn names(&self, version: &str) -> String {
        let names = self.lacks.iter().filter(|lack| lack.is_of(version)).map(|lack| lack.feature.as_str());
        names.collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "# NATS\n\nfeature: MQTT 5\nreason:  it refuses it\nsource:  its manual\ndate:    2026-11-23\n\n\
        feature: QoS 2\nbefore:  2.10\nreason:  it drops the connection\nsource:  seen\ndate:    2026-11-23\n";

    #[test]
    fn a_feature_is_lacked_by_the_versions_that_are_named_or_by_all() {
        let lacks = Lacks::parse(TABLE).unwrap();
        assert_eq!(lacks.names("2.9.10"), "MQTT 5,QoS 2");
        assert_eq!(lacks.names("2.10.0"), "MQTT 5");
        let qos2 = lacks.get("QoS 2").unwrap();
        assert_eq!((qos2.reason.as_str(), qos2.is_of_all()), ("it drops the connection", false));
        assert!(lacks.get("MQTT 5").unwrap().is_of_all() && lacks.get("wills").is_none());
        let from = Lacks::parse(&TABLE.replace("before:  2.10", "from: 3.0")).unwrap();
        assert_eq!((from.names("2.10").as_str(), from.names("3.0.1").as_str()), ("MQTT 5", "MQTT 5,QoS 2"));
    }

    #[test]
    fn a_table_that_hides_where_it_is_known_from_is_refused() {
        for (old, new, error) in [
            ("source:  its manual\n", "", "feature `MQTT 5` has no source"),
            ("reason:  it refuses it\n", "", "feature `MQTT 5` has no reason"),
            ("date:    2026-11-23\n\n", "\n", "feature `MQTT 5` has no date"),
            ("2026-11-23\n\n", "last week\n\n", "feature `MQTT 5`: `last week` is not YEAR-MONTH-DAY"),
            ("feature: QoS 2", "feature: MQTT 5", "feature `MQTT 5` is there twice"),
            ("before:", "until:", "line 9: `until` is not a word of this table"),
            ("before:  2.10", "2.10", "line 9: `NAME: VALUE` wanted"),
            ("before:  2.10", "reason: x", "line 10: `reason` is there twice"),
        ] {
            assert_eq!(Lacks::parse(&TABLE.replacen(old, new, 1)).unwrap_err(), error);
        }
    }
}
