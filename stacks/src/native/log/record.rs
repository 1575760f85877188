//! One record, one line: whatever it is about, nobody can break the line or speak to the terminal. Where somebody sits
//! at the terminal, the lines of a text are lines, but none of them looks like a record's beginning.

use std::io::Write;

use mlua::{Lua, Table, Value};
use moonwire_runtime::mlua;
use time::OffsetDateTime;

use super::level::Level;
use crate::native::json;

/// How many bytes of the text, and of each value, are shown.
const SHOWN_MAX: usize = 4096;
/// How many fields are shown.
const FIELDS_MAX: usize = 64;

/// What further lines of a text begin with.
const INDENT: &[u8] = b"\n    ";

const DIM: &str = "2";
const BOLD: &str = "1";

/// A line in the making.
pub(super) struct Record {
    line: Vec<u8>,
    look: Look,
}

/// What records look like.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Look {
    pub(super) colour: bool,
    /// Lines of texts are shown as lines.
    pub(super) lines: bool,
}

impl Record {
    /// A line that says when, how grave, and who.
    pub(super) fn new(now: OffsetDateTime, level: Level, name: Option<&str>, look: Look) -> Self {
        let mut record = Self { line: Vec::with_capacity(128), look };
        let (date, (hour, minute, second, milli)) = (now.date(), now.time().as_hms_milli());
        let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
        record.painted(
            DIM,
            format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z").as_bytes(),
        );
        record.line.push(b' ');
        record.painted(paint(level), format!("{:5}", level.name().to_uppercase()).as_bytes());
        if let Some(name) = name {
            record.line.push(b' ');
            let mut shown = Vec::new();
            escape(&mut shown, name.as_bytes(), false);
            shown.push(b':');
            record.painted(BOLD, &shown);
        }
        record
    }

    /// What happened.
    pub(super) fn text(&mut self, text: &[u8]) {
        self.line.push(b' ');
        if self.look.lines {
            return self.lines(text);
        }
        escape(&mut self.line, text, false);
    }

    /// A text line by line.
    fn lines(&mut self, text: &[u8]) {
        for (index, line) in cut(text).split(|byte| *byte == b'\n').enumerate() {
            if index > 0 {
                self.line.extend(INDENT);
            }
            let depth = line.iter().take_while(|byte| **byte == b'\t').count();
            self.line.extend(b"  ".repeat(depth));
            escape(&mut self.line, &line[depth..], false);
        }
        tell_cut(&mut self.line, text);
    }

    /// What is known about it, sorted by name.
    pub(super) fn fields(&mut self, lua: &Lua, fields: &Table) -> mlua::Result<()> {
        let mut known = Vec::new();
        for field in fields.pairs::<Value, Value>() {
            let (name, value) = field?;
            if known.len() == FIELDS_MAX {
                known.push((b"...".to_vec(), b"more".to_vec()));
                break;
            }
            known.push((words(lua, &name)?, words(lua, &value)?));
        }
        known.sort();
        for (name, value) in known {
            let mut shown = Vec::new();
            quote(&mut shown, &name);
            shown.push(b'=');
            self.line.push(b' ');
            self.painted(DIM, &shown);
            if self.look.lines && value.contains(&b'\n') {
                self.lines(&value);
            } else {
                quote(&mut self.line, &value);
            }
        }
        Ok(())
    }

    /// The whole line.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.line.push(b'\n');
        self.line
    }

    fn painted(&mut self, code: &str, bytes: &[u8]) {
        if self.look.colour {
            self.line.extend([b"\x1b[", code.as_bytes(), b"m", bytes, b"\x1b[0m"].concat());
        } else {
            self.line.extend(bytes);
        }
    }
}

/// The terminal's code for the colour of a level.
fn paint(level: Level) -> &'static str {
    match level {
        Level::Off | Level::Error => "31",
        Level::Warn => "33",
        Level::Info => "32",
        Level::Debug => "36",
        Level::Trace => "90",
    }
}

/// A value in words: tables that say nothing themselves are shown as JSON.
pub(super) fn words(lua: &Lua, value: &Value) -> mlua::Result<Vec<u8>> {
    if let Value::String(text) = value {
        return Ok(text.as_bytes().to_vec());
    }
    if *value == Value::NULL {
        return Ok(b"null".to_vec());
    }
    if let Value::Table(table) = value {
        let speaks = table.metatable().is_some_and(|own| own.contains_key("__tostring").unwrap_or(false));
        let text = if speaks { None } else { json::one_line(lua, value, SHOWN_MAX)? };
        if let Some(text) = text {
            return Ok(text.as_bytes().to_vec());
        }
    }
    // A record is not worth an error: a value that fails to say what it is shows its type.
    Ok(value.to_string().unwrap_or_else(|_| value.type_name().to_owned()).into_bytes())
}

/// `text` as one word, or in quotes.
fn quote(line: &mut Vec<u8>, text: &[u8]) {
    let word = |byte: &u8| byte.is_ascii_graphic() && !b"\"=\\".contains(byte);
    if !text.is_empty() && text.len() <= SHOWN_MAX && text.iter().all(word) {
        return line.extend(text);
    }
    line.push(b'"');
    escape(line, text, true);
    line.push(b'"');
}

/// `text` with everything escaped that is not to be seen: control characters, separators of lines,
/// bytes that are not UTF-8; between quotes, those and the backslash too.
fn escape(line: &mut Vec<u8>, text: &[u8], quoted: bool) {
    for chunk in cut(text).utf8_chunks() {
        for letter in chunk.valid().chars() {
            if unseen(letter) || (quoted && matches!(letter, '"' | '\\')) {
                line.extend(letter.escape_default().to_string().bytes());
            } else {
                line.extend(letter.encode_utf8(&mut [0; 4]).bytes());
            }
        }
        for byte in chunk.invalid() {
            // A Vec takes everything.
            let _ = write!(line, "\\x{byte:02x}");
        }
    }
    tell_cut(line, text);
}

/// As much of a text as is shown.
fn cut(text: &[u8]) -> &[u8] {
    &text[..text.len().min(SHOWN_MAX)]
}

/// Says that a text goes on, if not all of it was shown.
fn tell_cut(line: &mut Vec<u8>, text: &[u8]) {
    if text.len() > SHOWN_MAX {
        // A Vec takes everything.
        let _ = write!(line, "... ({} bytes)", text.len());
    }
}

/// Characters that break a line, move the cursor, or turn the direction of what follows.
fn unseen(letter: char) -> bool {
    letter.is_control() || matches!(letter, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}
