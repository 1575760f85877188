//! The report for programs: JUnit XML, one test suite a suite, the server as a part of the class name.

use std::fmt::Write as _;

use super::{Report, SuiteRun};
use crate::outcome::{CaseResult, Outcome};

/// The text of `junit.xml`.
pub fn text(report: &Report) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for SuiteRun { name, counts, time } in &report.suites {
        let _ = writeln!(
            text,
            "  <testsuite name=\"{name}\" tests=\"{}\" failures=\"{}\" errors=\"0\" skipped=\"{}\" time=\"{:.3}\">",
            counts.total(),
            counts.failed,
            counts.skipped,
            time.as_secs_f64()
        );
        for result in report.results.iter().filter(|result| result.suite == *name) {
            case(&mut text, result);
        }
        text.push_str("  </testsuite>\n");
    }
    text.push_str("</testsuites>\n");
    text
}

fn case(text: &mut String, result: &CaseResult) {
    let class = match &result.server {
        Some(server) => format!("{}.{server}", result.suite),
        None => result.suite.to_owned(),
    };
    let seconds = result.time.unwrap_or_default().as_secs_f64();
    let (class, name) = (escaped(&class), escaped(&result.name));
    let _ = write!(text, "    <testcase classname=\"{class}\" name=\"{name}\" time=\"{seconds:.3}\"");
    let _ = match &result.outcome {
        Outcome::Passed => writeln!(text, "/>"),
        Outcome::Skipped(why) => writeln!(text, "><skipped message=\"{}\"/></testcase>", escaped(why)),
        Outcome::Failed(why) => {
            let first = why.lines().next().unwrap_or_default();
            let _ = write!(text, "><failure message=\"{}\">{}</failure>", escaped(first), escaped(why));
            if !result.trace.is_empty() {
                let _ = write!(text, "<system-out>{}</system-out>", escaped(&result.trace));
            }
            writeln!(text, "</testcase>")
        }
    };
}

/// Text as it may stand in an XML attribute or element. XML 1.0 has no way to write most control characters.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c if c.is_control() && c != '\t' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;

    #[test]
    fn it_is_well_formed_and_names_the_server_in_the_class() {
        let junit = super::text(&report());
        let suite = "<testsuite name=\"mqtt\" tests=\"3\" failures=\"1\" errors=\"0\" skipped=\"1\"";
        assert!(junit.contains(suite), "{junit}");
        assert!(junit.contains("classname=\"mqtt.nats\" name=\"a &lt; b\" time=\"0.000\">"), "{junit}");
        let failure = "<failure message=\"1 &amp; 2\">1 &amp; 2&#10;\u{fffd}[0m</failure>";
        let trace = "<system-out>0.1 &gt; CONNECT&#10;0.2 &lt; CONNACK</system-out></testcase>";
        assert!(junit.contains(&format!("{failure}{trace}")), "{junit}");
        assert!(junit.contains("classname=\"mqtt\" name=\"holds\" time=\"1.500\"/>"), "{junit}");
        assert!(junit.contains("<skipped message=\"no broker\"/></testcase>"), "{junit}");
    }
}
