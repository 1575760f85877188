//! `conformance/BROKERS.md`: what each broker does not offer, and which cases it fails, from the tables that the suite is
//! judged by. `--accept` writes it anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::broker::BROKERS;
use crate::expected::Expected;
use crate::lacks::Lacks;

/// Where it is, from the top folder on.
pub const PATH: &str = "conformance/BROKERS.md";

const HEAD: &str = "\
# What each broker does not do

The suite `mqtt` runs against each of these brokers. What one of them does not offer, and the cases that it fails, are
known and have their reasons; a change fails the suite. This page is made of the tables that the suite reads,
`servers/NAME/lacks.txt` and `expected/NAME.txt`, by `conformance/run mqtt --accept`. Versions are those of the
distribution; what is said of one was seen with it unless a source is named.
";

/// The page, from the tables of the project in `root`.
///
/// # Errors
/// In words, when a table cannot be read or understood.
pub fn text(root: &Path) -> Result<String, String> {
    let mut text = HEAD.to_owned();
    for broker in BROKERS {
        let name = broker.kind.name;
        let path = root.join(format!("conformance/expected/{name}.txt"));
        let wrong = |error: String| format!("{}: {error}", path.display());
        let expected = std::fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
        let expected = Expected::parse(&expected, false).map_err(wrong)?;
        let lacks = Lacks::read(&root.join("conformance/servers").join(name))?;
        section(&mut text, &expected, &lacks);
    }
    Ok(text)
}

fn section(text: &mut String, expected: &Expected, lacks: &Lacks) {
    let mut head = expected.head().map(|line| line.trim_start_matches(['#', ' ']));
    let _ = writeln!(text, "\n## {}", head.next().unwrap_or_default().trim_end_matches('.'));
    for line in head {
        let _ = writeln!(text, "\n{line}");
    }
    if lacks.iter().next().is_some() {
        text.push_str("\n| lacks | because | known from | looked at |\n|---|---|---|---|\n");
    }
    for lack in lacks.iter() {
        let before = lack.before.as_ref().map(|version| format!(" (before {version})"));
        let from = lack.from.as_ref().map(|version| format!(" (from {version})"));
        let versions = before.or(from).unwrap_or_default();
        let _ = writeln!(text, "| {}{versions} | {} | {} | {} |", lack.feature, lack.reason, lack.source, lack.date);
    }
    // The same case, over several transports, is one shortcoming.
    let mut cases: BTreeMap<(&str, &str, &str), Vec<&str>> = BTreeMap::new();
    for (name, word, reason) in expected.shortcomings() {
        let (flavour, statement) = name.split_at(name.find(": ").map_or(0, |end| name[..end].rfind(' ').unwrap_or(0)));
        cases.entry((statement.trim(), word, reason)).or_default().push(flavour.trim());
    }
    if !cases.is_empty() {
        text.push_str("\n| case | versions | came to | because |\n|---|---|---|---|\n");
    }
    for ((statement, word, reason), flavours) in cases {
        let _ = writeln!(text, "| {statement} | {} | {word} | {reason} |", flavours.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
    }

    #[test]
    fn the_page_says_what_the_tables_say() {
        let written = std::fs::read_to_string(root().join(PATH)).unwrap();
        assert!(
            written == text(root()).unwrap(),
            "{PATH} is out of date: conformance/run mqtt --accept writes it anew"
        );
    }

    #[test]
    fn each_shortcoming_is_on_the_page_once_with_its_reason() {
        let table = "feature: QoS 2\nbefore: 2.10\nreason: it hangs up\nsource: seen\ndate: 2026-11-23\n";
        let expected = "# NATS 2.9.\nfailed  5 tcp     publish: [A-1] dots: and spaces  # it turns them\n\
            failed  5 tls     publish: [A-1] dots: and spaces  # it turns them\npassed  5 tls  other: case\n";
        let mut text = String::new();
        section(&mut text, &Expected::parse(expected, true).unwrap(), &Lacks::parse(table).unwrap());
        assert_eq!(
            text,
            "\n## NATS 2.9\n\n| lacks | because | known from | looked at |\n|---|---|---|---|\n\
             | QoS 2 (before 2.10) | it hangs up | seen | 2026-11-23 |\n\n\
             | case | versions | came to | because |\n|---|---|---|---|\n\
             | publish: [A-1] dots: and spaces | 5 tcp, 5 tls | failed | it turns them |\n"
        );
    }

    #[test]
    fn every_feature_of_a_table_is_asked_for_by_a_case() {
        let mut cases = String::new();
        for entry in root().join("conformance/mqtt").read_dir().unwrap() {
            cases.push_str(&std::fs::read_to_string(entry.unwrap().path()).unwrap());
        }
        for broker in BROKERS {
            let lacks = Lacks::read(&root().join("conformance/servers").join(broker.kind.name)).unwrap();
            for lack in lacks.iter() {
                let asked = ["requires", "lacks"].map(|word| format!("{word}(\"{}\")", lack.feature));
                assert!(asked.iter().any(|asked| cases.contains(asked)), "nobody asks for {}", lack.feature);
            }
        }
    }
}
