//! What a suite is known to give against one server, and what changed since.
//!
//! ```text
//! # Mosquitto 2.0.11, Debian 12
//! passed   5 tcp  publish: [MQTT-3.3.4-1] a QoS 1 message is acknowledged
//! failed   5 tcp  publish: [MQTT-4.3.3-1] ...  # the server downgrades QoS 2
//! ```
//!
//! Any difference fails, better results included: whoever betters something writes it down. A result other than
//! `passed` must give its reason, and counts as skipped. A reason that begins with `before VERSION:` holds for older
//! servers only; from that version on the case has to pass. One that begins with `from VERSION:` holds for newer ones.
//! The reason of a case that `lacks` something is the name of a feature that the server does not offer ([`Lacks`]).
//! What hangs on the machine and not on the server says so behind `passed`: with a reason that begins with `or skipped:` it
//! may be skipped.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::lacks::{self, Lacks};
use crate::outcome::Outcome;

/// Two spaces before it, so that a case's own name may hold a number sign.
const REASON: &str = "  # ";
/// What stands for a case that needs a feature which the server lacks.
const LACKS: &str = "lacks";

/// The known results of one suite against one server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// Comment lines at the head of the file, kept when it is written anew.
    head: Vec<String>,
    cases: BTreeMap<String, Known>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    word: String,
    reason: Option<String>,
}

impl Known {
    /// The version that the reason begins with, after this word.
    fn version_after(&self, word: &str) -> Option<&str> {
        self.reason.as_deref()?.strip_prefix(word)?.split_once(": ").map(|(version, _)| version)
    }

    /// Whether this holds for some versions only, and the others pass.
    fn is_of_some_versions(&self) -> bool {
        self.version_after("before ").is_some() || self.version_after("from ").is_some()
    }

    /// Whether it hangs on the machine whether the case can run.
    fn may_be_skipped(&self) -> bool {
        self.reason.as_deref().is_some_and(|reason| reason.starts_with("or skipped:"))
    }

    /// What a server of `version` is to give.
    fn word_for(&self, version: &str, lacks: &Lacks) -> &str {
        let version_is_before = |other| numbers(version) < numbers(other);
        let offered =
            || !self.reason.as_deref().and_then(|name| lacks.get(name)).is_some_and(|lack| lack.is_of(version));
        let passes = self.version_after("before ").is_some_and(|before| !version_is_before(before))
            || self.version_after("from ").is_some_and(version_is_before)
            || self.word == LACKS && offered();
        if passes { "passed" } else { &self.word }
    }
}

impl Expected {
    /// Reads a file of known results. `strict` asks for a reason where there must be one; a file that is about to be
    /// written anew may lack some.
    ///
    /// # Errors
    /// In words, with the line's number.
    pub fn parse(text: &str, strict: bool) -> Result<Self, String> {
        let mut expected = Self::default();
        for (index, line) in text.lines().enumerate() {
            let wrong = |what: &str| format!("line {}: {what}", index + 1);
            if line.starts_with('#') && expected.cases.is_empty() {
                expected.head.push(line.to_owned());
            }
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let (case, reason) = match line.split_once(REASON) {
                Some((case, reason)) => (case, Some(reason.trim().to_owned())),
                None => (line, None),
            };
            let (word, name) = case.split_once(' ').ok_or_else(|| wrong("`passed NAME` wanted"))?;
            if !["passed", "failed", "skipped", LACKS].contains(&word) {
                return Err(wrong(&format!("`{word}` is not passed, failed, skipped or lacks")));
            }
            if strict && word != "passed" && reason.as_deref().unwrap_or_default().is_empty() {
                return Err(wrong(&format!("a case that is not passed needs its reason, after `{}`", REASON.trim())));
            }
            let known = Known { word: word.to_owned(), reason };
            if expected.cases.insert(name.trim().to_owned(), known).is_some() {
                return Err(wrong(&format!("`{}` stands here twice", name.trim())));
            }
        }
        Ok(expected)
    }

    /// The comment lines at the head of the file.
    pub fn head(&self) -> impl Iterator<Item = &str> {
        self.head.iter().map(String::as_str)
    }

    /// The names of all known cases.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.cases.keys().map(String::as_str)
    }

    /// What is not passed: name, word and reason.
    pub fn shortcomings(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        let not_passed = self.cases.iter().filter(|(_, known)| known.word != "passed" && known.word != LACKS);
        not_passed
            .map(|(name, known)| (name.as_str(), known.word.as_str(), known.reason.as_deref().unwrap_or_default()))
    }

    /// What to count for a case that came out as `actual` against a server of `version`, which `lacks` some features.
    pub fn judge(&self, version: &str, lacks: &Lacks, name: &str, actual: Outcome) -> Outcome {
        if let Some(feature) = lacked(&actual) {
            return self.judge_lack(version, lacks, name, feature);
        }
        let Some(known) = self.cases.get(name) else {
            return Outcome::Failed(match actual {
                Outcome::Failed(why) => format!("(a new case)\n{why}"),
                other => format!("a new case, which {}: write it down with --accept", other.word()),
            });
        };
        match (known.word_for(version, lacks), actual) {
            ("passed", actual @ (Outcome::Passed | Outcome::Failed(_))) => actual,
            ("passed", actual @ Outcome::Skipped(_)) if known.may_be_skipped() => actual,
            (word, actual) if word == actual.word() => {
                Outcome::Skipped(format!("known to be {word}: {}", known.reason.as_deref().unwrap_or_default()))
            }
            (word, Outcome::Failed(why)) => Outcome::Failed(format!("expected {word}\n{why}")),
            (word, Outcome::Skipped(why)) => Outcome::Failed(format!("expected {word}, skipped: {why}")),
            (word, Outcome::Passed) => {
                Outcome::Failed(format!("expected {word}, and it passed: write that down with --accept"))
            }
        }
    }

    /// What to count for a case that was skipped because it needs `feature`.
    fn judge_lack(&self, version: &str, lacks: &Lacks, name: &str, feature: &str) -> Outcome {
        let known = self.cases.get(name);
        let Some(lack) = lacks.get(feature).filter(|lack| lack.is_of(version)) else {
            return Outcome::Failed(format!("skipped for {feature}, of which the server's lacks.txt says nothing"));
        };
        let written = known.is_some_and(|known| known.word == LACKS && known.reason.as_deref() == Some(feature));
        // What other versions give may stand there.
        if written || known.is_some() && !lack.is_of_all() {
            return Outcome::Skipped(format!("it lacks {feature}: {}", lack.reason));
        }
        Outcome::Failed(format!("it lacks {feature}: write that down with --accept"))
    }

    /// The file's new text when `results` are accepted. Reasons are kept; missing ones are left to be written.
    pub fn accept<'a>(&self, lacks: &Lacks, results: impl IntoIterator<Item = (&'a str, &'a Outcome)>) -> String {
        let mut text = String::new();
        for line in &self.head {
            let _ = writeln!(text, "{line}");
        }
        let results: BTreeMap<&str, &Outcome> = results.into_iter().collect();
        for (name, outcome) in results {
            let known = self.cases.get(name);
            let of_some_versions = |feature: &str| lacks.get(feature).is_some_and(|lack| !lack.is_of_all());
            let (word, reason) = match (lacked(outcome), known) {
                // What this version gives is no reason to forget what others do.
                (None, Some(known)) if *outcome == Outcome::Passed && known.is_of_some_versions() => {
                    (known.word.as_str(), known.reason.as_deref())
                }
                (None, Some(known)) if matches!(outcome, Outcome::Skipped(_)) && known.may_be_skipped() => {
                    (known.word.as_str(), known.reason.as_deref())
                }
                (Some(feature), Some(known)) if of_some_versions(feature) => {
                    (known.word.as_str(), known.reason.as_deref())
                }
                (Some(feature), _) => (LACKS, Some(feature)),
                (None, known) => {
                    let reason = known.filter(|known| known.word != LACKS).and_then(|known| known.reason.as_deref());
                    (outcome.word(), reason)
                }
            };
            let _ = write!(text, "{word:<8} {name}");
            if word != "passed" || known.is_some_and(Known::may_be_skipped) {
                let _ = write!(text, "{REASON}{}", reason.unwrap_or_default());
            }
            text.push('\n');
        }
        text
    }
}

/// The feature for want of which a case was skipped.
fn lacked(outcome: &Outcome) -> Option<&str> {
    if let Outcome::Skipped(why) = outcome { why.strip_prefix(lacks::WORD) } else { None }
}

/// The numbers of a version, for comparing: 2.0.9 is before 2.0.11.
pub fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# Mosquitto\n\npassed   5 tcp  connect: [MQTT-3.1.0-1] first\n\
        failed   5 tcp  publish: third  # the server forgets\nskipped  5 tcp  auth: fourth  # no such method\n";

    fn expected() -> Expected {
        Expected::parse(FILE, true).unwrap()
    }

    #[test]
    fn what_is_as_known_is_passed_or_skipped_with_its_reason() {
        let first = "5 tcp  connect: [MQTT-3.1.0-1] first";
        assert_eq!(expected().judge("2.0.11", &Lacks::default(), first, Outcome::Passed), Outcome::Passed);
        assert_eq!(
            expected().judge("2.0.11", &Lacks::default(), "5 tcp  publish: third", Outcome::Failed("again".into())),
            Outcome::Skipped("known to be failed: the server forgets".into())
        );
        assert_eq!(
            expected().judge("2.0.11", &Lacks::default(), "5 tcp  auth: fourth", Outcome::Skipped("no method".into())),
            Outcome::Skipped("known to be skipped: no such method".into())
        );
    }

    #[test]
    fn any_change_fails() {
        let first = "5 tcp  connect: [MQTT-3.1.0-1] first";
        let failed = |name: &str, actual: Outcome| {
            matches!(expected().judge("2.0.11", &Lacks::default(), name, actual), Outcome::Failed(_))
        };
        assert_eq!(
            expected().judge("2.0.11", &Lacks::default(), first, Outcome::Failed("why".into())),
            Outcome::Failed("why".into())
        );
        assert!(failed(first, Outcome::Skipped("why".into())));
        assert!(failed("5 tcp  publish: third", Outcome::Passed));
        assert!(failed("5 tcp  publish: third", Outcome::Skipped("why".into())));
        assert!(failed("a case nobody knows", Outcome::Passed));
        assert!(failed("a case nobody knows", Outcome::Failed("why".into())));
        assert!(failed("a case nobody knows", Outcome::Skipped("why".into())));
    }

    #[test]
    fn what_a_newer_server_does_better_has_to_pass_there() {
        let text = "failed  5 tcp  takeover: heard  # before 2.0.15: it closes without a word\n";
        let expected = Expected::parse(text, true).unwrap();
        let judged = |version, actual| expected.judge(version, &Lacks::default(), "5 tcp  takeover: heard", actual);
        let failed = Outcome::Failed("why".into());
        assert!(matches!(judged("2.0.9", failed.clone()), Outcome::Skipped(_)));
        assert!(matches!(judged("2.0.9", Outcome::Passed), Outcome::Failed(_)));
        for version in ["2.0.15", "2.0.20", "2.1", "3"] {
            assert_eq!(judged(version, Outcome::Passed), Outcome::Passed);
            assert_eq!(judged(version, failed.clone()), failed);
        }
        let accepted = expected.accept(&Lacks::default(), [("5 tcp  takeover: heard", &Outcome::Passed)]);
        assert_eq!(Expected::parse(&accepted, true).unwrap(), expected);
    }

    #[test]
    fn what_a_newer_server_does_worse_has_to_pass_before() {
        let text = "failed  3.1.1 tcp  wills: retained  # from 4.0: it forgets them\n";
        let expected = Expected::parse(text, true).unwrap();
        let judged = |version, actual| expected.judge(version, &Lacks::default(), "3.1.1 tcp  wills: retained", actual);
        assert_eq!(judged("3.10.8", Outcome::Passed), Outcome::Passed);
        assert!(matches!(judged("4.0.5", Outcome::Failed("why".into())), Outcome::Skipped(_)));
        assert!(matches!(judged("4.0.5", Outcome::Passed), Outcome::Failed(_)));
        let accepted = expected.accept(&Lacks::default(), [("3.1.1 tcp  wills: retained", &Outcome::Passed)]);
        assert_eq!(Expected::parse(&accepted, true).unwrap(), expected);
    }

    #[test]
    fn a_case_that_needs_what_the_server_lacks_is_skipped_with_the_tables_reason() {
        let table = "feature: QoS 2\nreason: it delivers QoS 1\nsource: its manual\ndate: 2026-11-23\n\n\
            feature: MQTT 5\nbefore: 4.0\nreason: it hangs up\nsource: seen\ndate: 2026-11-23\n";
        let lacks = Lacks::parse(table).unwrap();
        let text = "lacks   a: twice  # QoS 2\npassed  a: five\nlacks  a: old  # MQTT 5\npassed a: plain\n";
        let expected = Expected::parse(text, true).unwrap();
        let skipped = |feature: &str| Outcome::Skipped(format!("{}{feature}", lacks::WORD));
        let judged = |version, name, actual| expected.judge(version, &lacks, name, actual);
        let known = Outcome::Skipped("it lacks QoS 2: it delivers QoS 1".into());
        assert_eq!(judged("4.0.5", "a: twice", skipped("QoS 2")), known);
        assert!(matches!(judged("4.0.5", "a: twice", Outcome::Passed), Outcome::Failed(_)));
        // The line may say what the version gives that has it, or that another lacks it.
        for name in ["a: five", "a: old"] {
            assert_eq!(
                judged("3.10.8", name, skipped("MQTT 5")),
                Outcome::Skipped("it lacks MQTT 5: it hangs up".into())
            );
            assert_eq!(judged("4.0.5", name, Outcome::Passed), Outcome::Passed);
            assert!(matches!(judged("4.0.5", name, skipped("MQTT 5")), Outcome::Failed(_)), "{name}: it has that");
        }
        for feature in ["QoS 2", "wills"] {
            assert!(
                matches!(judged("4.0.5", "a: plain", skipped(feature)), Outcome::Failed(_)),
                "nobody wrote it down"
            );
        }
    }

    #[test]
    fn accepting_keeps_what_another_version_gives() {
        let table = "feature: MQTT 5\nbefore: 4.0\nreason: it hangs up\nsource: seen\ndate: 2026-11-23\n\n\
            feature: QoS 2\nreason: it delivers QoS 1\nsource: its manual\ndate: 2026-11-23\n";
        let lacks = Lacks::parse(table).unwrap();
        let before = Expected::parse("failed   a: five  # it forgets\npassed   a: twice\n", true).unwrap();
        let skipped = |feature: &str| Outcome::Skipped(format!("{}{feature}", lacks::WORD));
        let text = before.accept(&lacks, [("a: five", &skipped("MQTT 5")), ("a: twice", &skipped("QoS 2"))]);
        assert_eq!(text, "failed   a: five  # it forgets\nlacks    a: twice  # QoS 2\n");
        let text = Expected::default().accept(&lacks, [("a: five", &skipped("MQTT 5"))]);
        assert_eq!(text, "lacks    a: five  # MQTT 5\n");
        let text = Expected::parse(&text, true).unwrap().accept(&lacks, [("a: five", &Outcome::Passed)]);
        assert_eq!(text, "passed   a: five\n", "the newer version says more");
    }

    #[test]
    fn what_hangs_on_the_machine_may_be_skipped_and_must_not_fail() {
        let text = "passed   network: netem  # or skipped: not every kernel has it\npassed   network: plain\n";
        let (expected, lacks) = (Expected::parse(text, true).unwrap(), Lacks::default());
        let skipped = || Outcome::Skipped("no netem".into());
        let judged = |name, actual| expected.judge("", &lacks, name, actual);
        assert_eq!(judged("network: netem", skipped()), skipped());
        assert_eq!(judged("network: netem", Outcome::Passed), Outcome::Passed);
        assert!(matches!(judged("network: netem", Outcome::Failed("x".into())), Outcome::Failed(_)));
        assert!(matches!(judged("network: plain", skipped()), Outcome::Failed(_)));
        for outcome in [&skipped(), &Outcome::Passed] {
            let results = [("network: netem", outcome), ("network: plain", &Outcome::Passed)];
            assert_eq!(expected.accept(&lacks, results), text);
        }
    }

    #[test]
    fn accepting_what_is_known_changes_nothing() {
        let results = [
            ("5 tcp  connect: [MQTT-3.1.0-1] first", Outcome::Passed),
            ("5 tcp  publish: third", Outcome::Failed("why".into())),
            ("5 tcp  auth: fourth", Outcome::Skipped("why".into())),
        ];
        let text = expected().accept(&Lacks::default(), results.iter().map(|(name, outcome)| (*name, outcome)));
        assert_eq!(Expected::parse(&text, true).unwrap(), expected());
        assert!(text.starts_with("# Mosquitto\n"));
    }

    #[test]
    fn a_file_that_hides_something_is_refused() {
        for (text, error) in [
            ("failed  a: b\n", "line 1: a case that is not passed needs its reason, after `#`"),
            ("# x\nmaybe  a: b\n", "line 2: `maybe` is not passed, failed, skipped or lacks"),
            ("passed\n", "line 1: `passed NAME` wanted"),
            ("passed  a: b\npassed   a: b\n", "line 2: `a: b` stands here twice"),
        ] {
            assert_eq!(Expected::parse(text, true).unwrap_err(), error);
        }
    }

    #[test]
    fn a_file_that_lacks_reasons_can_be_written_anew() {
        let text = expected().accept(&Lacks::default(), [("5 tcp  new: case", &Outcome::Failed("why".into()))]);
        assert!(Expected::parse(&text, true).is_err(), "somebody has to say why");
        assert_eq!(Expected::parse(&text, false).unwrap().names().collect::<Vec<_>>(), ["5 tcp  new: case"]);
    }

    #[test]
    fn a_name_may_hold_a_number_sign() {
        let expected = Expected::parse("passed   wildcards: a/# matches its parent\n", true).unwrap();
        assert_eq!(expected.names().collect::<Vec<_>>(), ["wildcards: a/# matches its parent"]);
    }
}
