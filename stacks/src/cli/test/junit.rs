//! Results as JUnit XML, as CI systems read it.

use std::fmt::Write;

use super::report::{Case, Outcome, WIRE};

/// The document; each file is a suite.
pub fn document(cases: &[Case]) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    element(&mut xml, 0, "testsuites", &totals("moonwire test", cases), |xml| {
        for suite in cases.chunk_by(|one, other| one.file == other.file) {
            element(xml, 1, "testsuite", &totals(&suite[0].file.to_string_lossy(), suite), |xml| {
                for case in suite {
                    write_case(xml, case);
                }
            });
        }
    });
    xml
}

fn totals(name: &str, cases: &[Case]) -> [(&'static str, String); 5] {
    let count = |which: fn(&Outcome) -> bool| cases.iter().filter(|case| which(&case.outcome)).count().to_string();
    [
        ("name", name.to_owned()),
        ("tests", cases.len().to_string()),
        ("failures", count(|outcome| matches!(outcome, Outcome::Failed { .. }))),
        ("skipped", count(|outcome| matches!(outcome, Outcome::Skipped { .. }))),
        ("time", format!("{:.3}", cases.iter().map(|case| case.seconds).sum::<f64>())),
    ]
}

fn write_case(xml: &mut String, case: &Case) {
    let attributes = [
        ("name", case.name.clone()),
        ("classname", case.file.to_string_lossy().into_owned()),
        ("time", format!("{:.3}", case.seconds)),
    ];
    element(xml, 2, "testcase", &attributes, |xml| match &case.outcome {
        Outcome::Passed => {}
        Outcome::Skipped { reason } => element(xml, 3, "skipped", &[("message", reason.clone())], |_| {}),
        Outcome::Failed { message, trace, wire } => {
            let first = message.lines().next().unwrap_or_default().to_owned();
            element(xml, 3, "failure", &[("message", first)], |xml| {
                xml.push_str(&escaped(&format!("{message}\n{trace}")));
                xml.push('\n');
                for line in wire {
                    xml.push_str(&escaped(&format!("{WIRE}{line}\n")));
                }
            });
        }
    });
}

fn element<S: AsRef<str>>(
    xml: &mut String,
    depth: usize,
    name: &str,
    attributes: &[(&str, S)],
    content: impl FnOnce(&mut String),
) {
    let indent = "  ".repeat(depth);
    xml.push_str(&indent);
    write!(xml, "<{name}").expect("a String takes everything");
    for (key, value) in attributes {
        write!(xml, " {key}=\"{}\"", escaped(value.as_ref())).expect("a String takes everything");
    }
    let start = xml.len();
    xml.push_str(">\n");
    let inner = xml.len();
    content(xml);
    if xml.len() == inner {
        xml.truncate(start);
        xml.push_str("/>\n");
    } else {
        writeln!(xml, "{indent}</{name}>").expect("a String takes everything");
    }
}

/// Text as it may stand in an attribute or between tags. XML 1.0 has no way to write most control characters.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\n' | '\t' => safe.push(char),
            '\0'..='\x1f' | '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' => safe.extend(char.escape_unicode()),
            _ => safe.push(char),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str, outcome: Outcome) -> Case {
        Case { file: "lua/test/a_test.lua".into(), name: name.into(), outcome, seconds: 0.25 }
    }

    #[test]
    fn markup_and_control_characters_in_names_and_messages_do_not_break_the_document() {
        let outcome = Outcome::Failed {
            message: "1 < 2 & \"x\"\n\x1b[0m]]>".into(),
            trace: "in <f>".into(),
            wire: vec!["#1 <".into()],
        };
        let xml = document(&[case("a \"b\" <c>", outcome)]);
        assert!(xml.contains(r#"<testcase name="a &quot;b&quot; &lt;c&gt;" classname="lua/test/a_test.lua""#), "{xml}");
        assert!(xml.contains(r#"<failure message="1 &lt; 2 &amp; &quot;x&quot;">"#), "{xml}");
        assert!(xml.contains("\\u{1b}[0m]]&gt;\nin &lt;f&gt;\ntrace&gt; #1 &lt;\n"), "{xml}");
    }

    #[test]
    fn totals_count_each_outcome() {
        let failed = Outcome::Failed { message: "m".into(), trace: String::new(), wire: Vec::new() };
        let skipped = Outcome::Skipped { reason: "no server".into() };
        let xml = document(&[case("one", Outcome::Passed), case("two", failed), case("three", skipped)]);
        assert!(xml.contains(r#"tests="3" failures="1" skipped="1" time="0.750""#), "{xml}");
        assert!(xml.contains(r#"<skipped message="no server"/>"#), "{xml}");
        assert!(xml.contains(r#"<testcase name="one" classname="lua/test/a_test.lua" time="0.250"/>"#), "{xml}");
    }
}
