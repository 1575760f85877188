//! What a program is expected to print, as one writes it down.
//!
//! ```text
//! $ moonwire examples/telemetry.lua --count 3
//! reading 1: load *
//! ...
//! done
//! ```
//!
//! The first line says how it is run. Every other line is matched whole: `*` stands for anything within the line
//! (`\*` for a star), and a line `...` for any number of lines.

/// How a program is run and what it prints then.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transcript {
    /// The script's arguments.
    pub arguments: Vec<String>,
    /// One pattern a line.
    pub lines: Vec<String>,
}

impl Transcript {
    /// Reads a transcript file of the script that ends in `script`.
    ///
    /// # Errors
    /// In words, when the first line does not run that script.
    pub fn parse(text: &str, script: &str) -> Result<Self, String> {
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        let wanted = format!("the first line must be `$ moonwire {script} ARGUMENTS`");
        let command = first.strip_prefix("$ moonwire ").ok_or(&wanted)?;
        let arguments = command.strip_prefix(script).ok_or(&wanted)?;
        let arguments = arguments.split_whitespace().map(str::to_owned).collect();
        Ok(Self { arguments, lines: lines.map(str::to_owned).collect() })
    }

    /// Reads the `-- arguments:` and `-- expect:` comments at the head of a script; `None` when there are none.
    pub fn of_header(source: &str) -> Option<Self> {
        let mut transcript = Self::default();
        let head = source.lines().take_while(|line| line.starts_with("--") || line.starts_with('#'));
        for line in head {
            if let Some(arguments) = line.strip_prefix("-- arguments:") {
                transcript.arguments = arguments.split_whitespace().map(str::to_owned).collect();
            } else if let Some(pattern) = line.strip_prefix("-- expect:") {
                transcript.lines.push(pattern.trim().to_owned());
            }
        }
        (!transcript.lines.is_empty()).then_some(transcript)
    }

    /// Compares what was printed with what is expected.
    ///
    /// # Errors
    /// The first line that differs, with its number, or what is missing.
    pub fn compare(&self, printed: &str) -> Result<(), String> {
        let printed: Vec<&str> = printed.lines().collect();
        let mut at = 0;
        let mut free = false;
        for pattern in &self.lines {
            if pattern == "..." {
                free = true;
                continue;
            }
            let from = at;
            while free && at < printed.len() && !matches(pattern, printed[at]) {
                at += 1;
            }
            match printed.get(at) {
                Some(line) if matches(pattern, line) => {}
                Some(line) => return Err(format!("line {}:\n  expected {pattern}\n  printed  {line}", at + 1)),
                None => return Err(format!("after line {from}:\n  expected {pattern}\n  printed  nothing like it")),
            }
            at += 1;
            free = false;
        }
        match printed.get(at) {
            Some(line) if !free => Err(format!("line {}:\n  expected the end\n  printed  {line}", at + 1)),
            _ => Ok(()),
        }
    }
}

/// Whether all of `text` is like `pattern`, where `*` is any number of characters and `\*` a star.
pub fn matches(pattern: &str, text: &str) -> bool {
    let pieces = pieces(pattern);
    let [first, rest @ ..] = pieces.as_slice() else { return text.is_empty() };
    let Some(mut left) = text.strip_prefix(first.as_str()) else { return false };
    let Some((last, middle)) = rest.split_last() else { return left.is_empty() };
    for piece in middle {
        match left.find(piece.as_str()) {
            Some(at) => left = &left[at + piece.len()..],
            None => return false,
        }
    }
    left.ends_with(last.as_str())
}

/// What stands between the stars.
fn pieces(pattern: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        let piece = match c {
            '*' => {
                pieces.push(String::new());
                continue;
            }
            '\\' if chars.peek() == Some(&'*') => chars.next().unwrap_or(c),
            c => c,
        };
        if let Some(last) = pieces.last_mut() {
            last.push(piece);
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expecting(lines: &[&str]) -> Transcript {
        Transcript { arguments: Vec::new(), lines: lines.iter().map(|line| (*line).to_owned()).collect() }
    }

    #[test]
    fn a_star_stands_for_anything_within_the_line() {
        for (pattern, text) in [
            ("", ""),
            ("*", ""),
            ("*", "anything"),
            ("load *, memory *", "load 0.5, memory 12 %"),
            ("a*b*c", "a1b2b3c"),
            ("2 \\* 3 = *", "2 * 3 = 6"),
            ("*é", "café"),
        ] {
            assert!(matches(pattern, text), "{pattern} is not like {text}");
        }
        for (pattern, text) in [
            ("", "x"),
            ("load *", "the load 1"),
            ("* done", "done"),
            ("a*a", "a"),
            ("ab*bc", "abc"),
            ("a*b*c", "acb"),
            ("2 \\* 3", "2 x 3"),
        ] {
            assert!(!matches(pattern, text), "{pattern} is like {text}");
        }
    }

    #[test]
    fn every_line_counts() {
        let transcript = expecting(&["one", "two *"]);
        assert_eq!(transcript.compare("one\ntwo 2\n"), Ok(()));
        let error = transcript.compare("one\nthree\n").unwrap_err();
        assert_eq!(error, "line 2:\n  expected two *\n  printed  three");
        assert!(transcript.compare("one\n").unwrap_err().contains("nothing like it"));
        assert!(transcript.compare("one\ntwo 2\nmore\n").unwrap_err().contains("expected the end\n  printed  more"));
    }

    #[test]
    fn three_dots_stand_for_any_number_of_lines() {
        let transcript = expecting(&["...", "middle", "..."]);
        assert_eq!(transcript.compare("middle"), Ok(()));
        assert_eq!(transcript.compare("a\nb\nmiddle\nc\n"), Ok(()));
        assert!(transcript.compare("a\nb\n").is_err());
        let transcript = expecting(&["first", "...", "last"]);
        assert_eq!(transcript.compare("first\nlast"), Ok(()));
        assert!(transcript.compare("first\nlast\nagain").is_err());
    }

    #[test]
    fn nothing_expected_means_nothing_printed() {
        assert_eq!(expecting(&[]).compare(""), Ok(()));
        assert!(expecting(&[]).compare("x").is_err());
    }

    #[test]
    fn a_transcript_says_how_it_is_run() {
        let transcript = Transcript::parse("$ moonwire examples/a.lua --count 3\none\n", "examples/a.lua").unwrap();
        assert_eq!(transcript.arguments, ["--count", "3"]);
        assert_eq!(transcript.lines, ["one"]);
        let error = Transcript::parse("one\n", "examples/a.lua").unwrap_err();
        assert_eq!(error, "the first line must be `$ moonwire examples/a.lua ARGUMENTS`");
        assert!(Transcript::parse("$ moonwire examples/b.lua\n", "examples/a.lua").is_err());
    }

    #[test]
    fn a_header_ends_with_the_first_line_of_code() {
        let source =
            "#!/usr/bin/env moonwire\n-- Says hello.\n-- arguments: a b\n-- expect: hello *\nprint(1)\n-- expect: no\n";
        let transcript = Transcript::of_header(source).unwrap();
        assert_eq!(transcript.arguments, ["a", "b"]);
        assert_eq!(transcript.lines, ["hello *"]);
        assert_eq!(Transcript::of_header("-- Says hello.\nprint(1)\n"), None);
    }
}
