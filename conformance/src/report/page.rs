//! The report for people who were not there: one HTML page that needs nothing else, with the results as JSON in it.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Report;
use crate::outcome::{CaseResult, Outcome};

/// The page, but for the results.
const TEMPLATE: &str = include_str!("page.html");
/// Where they go.
const DATA: &str = "{{data}}";

/// The text of `index.html`.
pub fn text(report: &Report) -> String {
    TEMPLATE.replacen(DATA, &inside_script(&data(report)), 1)
}

fn data(report: &Report) -> Value {
    let suites = report.suites.iter().map(|run| json!({ "name": run.name, "seconds": rounded(run.time) }));
    let servers = report.servers.iter();
    let servers = servers.map(|run| json!({ "name": run.name, "version": run.version, "way": run.way }));
    json!({
        "started": report.started_at(),
        "seconds": rounded(report.started.elapsed()),
        "version": report.version,
        "suites": suites.collect::<Value>(),
        "servers": servers.collect::<Value>(),
        "cases": report.results.iter().map(case).collect::<Value>(),
    })
}

/// A case without what it has not: a report of thousands is read over slow lines, too.
fn case(result: &CaseResult) -> Value {
    let mut fields = Map::new();
    fields.insert("suite".to_owned(), result.suite.into());
    fields.insert("name".to_owned(), result.name.as_str().into());
    fields.insert("outcome".to_owned(), result.outcome.word().into());
    if let Some(server) = &result.server {
        fields.insert("server".to_owned(), server.as_str().into());
    }
    if let Some(time) = result.time {
        fields.insert("seconds".to_owned(), rounded(time));
    }
    if let Outcome::Failed(text) | Outcome::Skipped(text) = &result.outcome {
        fields.insert("text".to_owned(), text.as_str().into());
    }
    if !result.trace.is_empty() {
        fields.insert("trace".to_owned(), result.trace.as_str().into());
    }
    Value::Object(fields)
}

/// Seconds with three decimals.
fn rounded(time: Duration) -> Value {
    json!((time.as_secs_f64() * 1000.0).round() / 1000.0)
}

/// JSON as it may stand in a `<script>`: nothing in it can end the element or begin a comment, whatever a server or a
/// test has said (HTML, 13.1.2.4 and 13.2.5.4). Outside of strings JSON has none of these characters.
fn inside_script(value: &Value) -> String {
    let text = value.to_string();
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;
    use super::*;

    /// The results that a page holds.
    fn read(page: &str) -> Value {
        let (_, rest) = page.split_once("<script type=\"application/json\" id=\"data\">").unwrap();
        let (data, _) = rest.split_once("</script>").unwrap();
        serde_json::from_str(data).unwrap()
    }

    #[test]
    fn the_page_holds_every_result() {
        let data = read(&text(&report()));
        assert_eq!(data["servers"], json!([{ "name": "nats", "version": "2.9", "way": "native" }]));
        assert_eq!(data["suites"][0]["name"], "mqtt");
        assert_eq!(
            data["cases"],
            json!([
                { "suite": "mqtt", "name": "holds", "outcome": "passed", "seconds": 1.5 },
                { "suite": "mqtt", "server": "nats", "name": "a < b", "outcome": "failed", "text": "1 & 2\n\u{1b}[0m",
                  "trace": "0.1 > CONNECT\n0.2 < CONNACK" },
                { "suite": "mqtt", "server": "nats", "name": "later", "outcome": "skipped", "text": "no broker" },
            ])
        );
    }

    #[test]
    fn a_hostile_case_cannot_break_out_of_its_script() {
        let hostile = "</script><script>alert(1)</script><!-- <SCRIPT \\u003c/script> \"}]}' ]]> {{data}} \u{2028}\0";
        let mut report = Report::new();
        report.begin("mqtt");
        report.against(Some(hostile));
        report.case(hostile, Outcome::Failed(format!("{hostile}\ntrace> {hostile}")), None);
        report.end();
        let page = text(&report);
        for tag in ["<script", "</script", "<!--"] {
            let of = |text: &str| text.to_lowercase().matches(tag).count();
            assert_eq!(of(&page), of(TEMPLATE), "{tag}");
        }
        let case = &read(&page)["cases"][0];
        for field in ["name", "server", "text", "trace"] {
            assert_eq!(case[field], hostile, "{field}");
        }
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        assert_eq!(TEMPLATE.matches(DATA).count(), 1);
        for address in ["http:", "https:", "//cdn", "@import", "url("] {
            assert!(!TEMPLATE.contains(address), "{address}");
        }
        assert!(TEMPLATE.contains("default-src 'none'"), "the browser holds it to that");
        assert!(!TEMPLATE.contains("innerHTML"), "text enters as text");
    }
}
