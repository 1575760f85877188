//! What a worker tells its parent. It goes the way of everything else the tests print, so that the order is right.

use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The tests of the file, in the order in which they run.
    Plan {
        names: Vec<String>,
    },
    /// A test begins; the first has number 1.
    Begin {
        number: usize,
    },
    Passed {
        seconds: f64,
    },
    Skipped {
        reason: String,
        seconds: f64,
    },
    Failed {
        message: String,
        trace: String,
        /// The last lines of what was traced.
        #[serde(default)]
        wire: Vec<String>,
        seconds: f64,
    },
    /// Every test has run that is to run.
    Done,
    /// The last test took this process along; the rest needs another.
    Lost,
}

/// Stands before an event; nobody prints this by chance.
const MARK: &[u8] = b"\x1emoonwire test\x1f";

impl Event {
    /// The event as a line among other output.
    pub fn to_line(&self) -> serde_json::Result<Vec<u8>> {
        let mut line = MARK.to_vec();
        serde_json::to_writer(&mut line, self)?;
        line.push(b'\n');
        Ok(line)
    }

    /// Splits a line into what a test printed and the event at its end, if there is one.
    pub fn split(line: &[u8]) -> (&[u8], Option<Event>) {
        let at = line.windows(MARK.len()).position(|window| window == MARK);
        match at.and_then(|at| Some((at, serde_json::from_slice(&line[at + MARK.len()..]).ok()?))) {
            Some((at, event)) => (&line[..at], Some(event)),
            None => (line, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_found_behind_what_a_test_printed_without_a_line_end() {
        let event = Event::Failed { message: "a\nb \x1e".into(), trace: String::new(), wire: Vec::new(), seconds: 0.5 };
        let line = [b"no line end".to_vec(), event.to_line().unwrap()].concat();
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(Event::split(&line), (&b"no line end"[..], Some(event)));
        assert_eq!(Event::split(b"only text\n"), (&b"only text\n"[..], None));
        assert_eq!(Event::split(b"\x1emoonwire test\x1fnonsense\n").1, None);
    }
}
