//! Header fields: folded, and ASCII unless UTF-8 is allowed (RFC 5322, 2047, 2231, 6532).

use mail_builder::headers::{Header, address::Address, content_type::ContentType, text::Text};

/// Columns a line of ours has at most where there is a place to fold.
const COLUMNS: usize = 76;

/// Whether a value can stand in a header field: CR, LF and NUL would end or break it.
pub fn is_safe(value: &str) -> bool {
    !value.bytes().any(|byte| matches!(byte, b'\r' | b'\n' | 0))
}

/// Whether this is the name of a header field (RFC 5322, 2.2).
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= COLUMNS && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':')
}

/// An unstructured field, such as Subject.
pub fn text(name: &str, value: &str, utf8: bool) -> Vec<u8> {
    if is_ambiguous(value) {
        return folded(name, encoded_words(name, value).iter().map(String::as_str));
    }
    if utf8 {
        return folded(name, value.split_inclusive(' '));
    }
    write(name, &Text::new(value))
}

/// A field of mailboxes, such as To: names and addresses.
pub fn addresses(name: &str, mailboxes: &[(Option<String>, String)], utf8: bool) -> Vec<u8> {
    let ambiguous = mailboxes.iter().any(|(display, _)| display.as_deref().is_some_and(is_ambiguous));
    if utf8 || ambiguous {
        let last = mailboxes.len().saturating_sub(1);
        let words = mailboxes.iter().enumerate().flat_map(|(at, (display, address))| {
            let comma = if at == last { "" } else { ", " };
            let display = display.as_deref().filter(|display| !display.is_empty());
            let display = match display {
                None => Vec::new(),
                Some(display) if utf8 || display.is_ascii() => vec![format!("{} ", quoted(display))],
                Some(display) => encoded_words(name, display).into_iter().map(|word| word + " ").collect(),
            };
            display.into_iter().chain([format!("<{address}>{comma}")])
        });
        return folded(name, words.collect::<Vec<_>>().iter().map(String::as_str));
    }
    let list = mailboxes
        .iter()
        .map(|(display, address)| {
            let display = display.as_deref().filter(|display| !display.is_empty());
            Address::new_address(display, address.as_str())
        })
        .collect();
    write(name, &Address::new_list(list))
}

/// A field with parameters, such as Content-Type.
pub fn parameters(name: &str, value: &str, parameters: &[(String, String)], utf8: bool) -> Vec<u8> {
    if utf8 && parameters.iter().any(|(_, value)| !value.is_ascii()) {
        let mut words = vec![value.to_owned()];
        for (key, value) in parameters {
            if let Some(last) = words.last_mut() {
                last.push_str("; ");
            }
            words.push(format!("{key}={}", quoted(value)));
        }
        return folded(name, words.iter().map(String::as_str));
    }
    let start = ContentType::new(value);
    let field = parameters.iter().fold(start, |field, (key, value)| field.attribute(key.as_str(), value.as_str()));
    write(name, &field)
}

/// Whether a text that is not encoded would be read as one that is (RFC 2047, 7); mail-builder passes it through.
fn is_ambiguous(text: &str) -> bool {
    text.contains("=?")
}

/// A text as encoded words (RFC 2047, 4.1), cut between letters; all but the last end in the space between them.
fn encoded_words(name: &str, text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        // A line with encoded words has 76 columns at most (section 2); the first one begins with the field's name.
        let before = if words.is_empty() { name.len() + 2 } else { 1 };
        let digits = COLUMNS.saturating_sub(before + "=?utf-8?B??=".len());
        let mut end = rest.len().min((digits / 4 * 3).max(6));
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        if let Some(last) = words.last_mut() {
            last.push(' ');
        }
        words.push(format!("=?utf-8?B?{}?=", encodify::base64::STANDARD.encode(&rest[..end])));
        rest = &rest[end..];
    }
    words
}

fn write(name: &str, value: &impl Header) -> Vec<u8> {
    let mut line = format!("{name}: ").into_bytes();
    let column = line.len();
    value.write_header(&mut line, column);
    line
}

/// A quoted string (RFC 5322, 3.2.4).
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for letter in text.chars() {
        if matches!(letter, '"' | '\\') {
            out.push('\\');
        }
        out.push(letter);
    }
    out.push('"');
    out
}

/// Words that end in the space at which a line may be folded. A fold is never the only thing on its line.
fn folded<'w>(name: &str, words: impl Iterator<Item = &'w str>) -> Vec<u8> {
    let mut out = format!("{name}:").into_bytes();
    let mut column = out.len();
    // The space before the next word: it ends this line's word, or begins the next line.
    let mut space = true;
    for word in words {
        let bare = word.strip_suffix(' ').unwrap_or(word);
        if space {
            let is_first = out.len() == name.len() + 1;
            if column + 1 + bare.len() > COLUMNS && !is_first && !bare.trim().is_empty() {
                out.extend_from_slice(b"\r\n");
                column = 0;
            }
            out.push(b' ');
            column += 1;
        }
        out.extend_from_slice(bare.as_bytes());
        column += bare.len();
        space = bare.len() != word.len();
    }
    if space && out.len() > name.len() + 1 {
        out.push(b' ');
    }
    out.extend_from_slice(b"\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(field: Vec<u8>) -> String {
        String::from_utf8(field).unwrap()
    }

    /// The field as a receiver unfolds it.
    fn unfolded(field: &[u8]) -> String {
        let text = str::from_utf8(field).unwrap();
        text.strip_suffix("\r\n").unwrap().replace("\r\n", "")
    }

    #[test]
    fn plain_text_stays_as_it_is() {
        assert_eq!(shown(text("Subject", "Alarm in hall 3", false)), "Subject: Alarm in hall 3\r\n");
        assert_eq!(shown(text("Subject", "Alarm in hall 3", true)), "Subject: Alarm in hall 3\r\n");
    }

    #[test]
    fn other_text_is_encoded_words_without_smtputf8_and_itself_with_it() {
        let field = shown(text("Subject", "Störung", false));
        assert!(field.starts_with("Subject: =?utf-8?") && field.is_ascii(), "{field}");
        assert_eq!(shown(text("Subject", "Störung", true)), "Subject: Störung\r\n");
    }

    #[test]
    fn long_fields_are_folded_and_lose_nothing() {
        let long = "ein recht langer Betreff ".repeat(20);
        let field = text("Subject", long.trim_end(), true);
        assert!(shown(field.clone()).lines().all(|line| line.len() <= COLUMNS));
        assert_eq!(unfolded(&field), format!("Subject: {}", long.trim_end()));
        let one = "x".repeat(200);
        assert_eq!(unfolded(&text("Subject", &one, true)), format!("Subject: {one}"));
    }

    #[test]
    fn spaces_in_a_row_survive_folding_and_no_line_is_blank() {
        let spaced = format!("{} {}", "a  b   ".repeat(30), " ".repeat(90));
        let field = text("Subject", &format!("{spaced}end"), true);
        assert_eq!(unfolded(&field), format!("Subject: {spaced}end"));
        assert!(shown(field).lines().all(|line| !line.trim().is_empty()));
    }

    #[test]
    fn names_with_commas_and_quotes_are_quoted() {
        let list = [(Some("Doe, \"Jo\"".to_owned()), "jo@example.org".to_owned()), (None, "a@example.org".to_owned())];
        let wanted = "To: \"Doe, \\\"Jo\\\"\" <jo@example.org>, <a@example.org>\r\n";
        assert_eq!(shown(addresses("To", &list, false)), wanted);
        assert_eq!(shown(addresses("To", &list, true)), wanted);
    }

    #[test]
    fn what_looks_encoded_is_encoded_so_that_it_is_read_as_it_was_meant() {
        for utf8 in [false, true] {
            let field = shown(text("Subject", "=?utf-8?Q?no?=", utf8));
            assert_eq!(field, "Subject: =?utf-8?B?PT91dGYtOD9RP25vPz0=?=\r\n");
            let list = [(Some("=?x".to_owned()), "a@example.org".to_owned())];
            assert_eq!(shown(addresses("To", &list, utf8)), "To: \"=?x\" <a@example.org>\r\n");
        }
        let list = [(Some("ü =?x".to_owned()), "a@example.org".to_owned())];
        assert_eq!(shown(addresses("To", &list, false)), "To: =?utf-8?B?w7wgPT94?= <a@example.org>\r\n");
        let long = shown(text("Subject", &format!("=?{}", "ß".repeat(100)), false));
        assert!(long.is_ascii() && long.lines().all(|line| line.len() <= 76 && line.contains("=?utf-8?B?")), "{long}");
    }

    #[test]
    fn file_names_that_are_not_ascii_are_rfc_2231() {
        let name = [("filename".to_owned(), "Übersicht.pdf".to_owned())];
        let field = shown(parameters("Content-Disposition", "attachment", &name, false));
        assert_eq!(unfolded(field.as_bytes()), "Content-Disposition: attachment; filename*=UTF-8''%C3%9Cbersicht.pdf");
        let field = shown(parameters("Content-Disposition", "attachment", &name, true));
        assert_eq!(field, "Content-Disposition: attachment; filename=\"Übersicht.pdf\"\r\n");
    }

    #[test]
    fn what_would_end_a_field_is_not_safe() {
        for text in ["a\rb", "a\nb", "a\0b", "a\r\nBcc: x"] {
            assert!(!is_safe(text));
        }
        assert!(is_safe("Grüße\t!"));
        assert!(is_name("X-Device") && !is_name("X Device") && !is_name("X:") && !is_name("") && !is_name("Ü"));
    }
}
