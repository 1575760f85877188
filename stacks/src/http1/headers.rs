//! Field lines, in their order and with their case.

use super::{Fault, is_field_text, is_token, shown, trim};

/// Field lines of a head, of trailers, or to be sent.
///
/// Names and values lie in one piece of memory; what is made of them is made when somebody asks.
#[derive(Debug, Default, Clone)]
pub struct Headers {
    text: Vec<u8>,
    fields: Vec<Field>,
}

#[derive(Debug, Clone, Copy)]
struct Field {
    name: Span,
    value: Span,
}

/// A part of the text. Heads are at most 16 MiB.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    start: u32,
    len: u32,
}

impl Span {
    /// Where `part`, a slice of `whole`, lies in it.
    pub(super) fn of(part: &[u8], whole: &[u8]) -> Self {
        let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
        debug_assert!(start <= whole.len() && part.len() <= whole.len() - start);
        Self { start: start as u32, len: part.len() as u32 }
    }

    pub(super) fn get(self, text: &[u8]) -> &[u8] {
        text.get(self.start as usize..self.start as usize + self.len as usize).unwrap_or_default()
    }
}

impl Headers {
    /// Bytes all names and values may take together.
    pub const TEXT_MAX: usize = 16 * 1024 * 1024;

    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// The lines httparse found in `text`.
    pub(super) fn parsed(text: &[u8], lines: &[httparse::Header<'_>]) -> Self {
        let fields = lines
            .iter()
            .map(|line| Field { name: Span::of(line.name.as_bytes(), text), value: Span::of(line.value, text) })
            .collect();
        Self { text: text.to_vec(), fields }
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The text that [`Self::parsed`] was given: the whole head.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Name and value of each line, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|field| (field.name.get(&self.text), field.value.get(&self.text)))
    }

    /// Name and value of the line at `index`.
    pub fn at(&self, index: usize) -> Option<(&[u8], &[u8])> {
        self.fields.get(index).map(|field| (field.name.get(&self.text), field.value.get(&self.text)))
    }

    /// The values of all lines of this name, whatever its case.
    pub fn all<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Adds a line at the end. The value loses the spaces around it.
    pub fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), Fault> {
        if !is_token(name) {
            return Err(Fault::protocol(format!("{} is not the name of a header field", shown(name))));
        }
        let value = trim(value);
        if !is_field_text(value) {
            // The value itself may be a secret.
            let name = shown(name);
            return Err(Fault::protocol(format!("the value of {name} has a line break or another control character")));
        }
        if self.text.len() + name.len() + value.len() > Self::TEXT_MAX {
            return Err(Fault::limit(431, format!("header fields are more than {} bytes", Self::TEXT_MAX)));
        }
        let (name, value) = (self.push(name), self.push(value));
        self.fields.push(Field { name, value });
        Ok(())
    }

    fn push(&mut self, bytes: &[u8]) -> Span {
        let start = self.text.len() as u32;
        self.text.extend_from_slice(bytes);
        Span { start, len: bytes.len() as u32 }
    }

    /// Makes this the only line of its name, where the first of them stood.
    pub fn set(&mut self, name: &[u8], value: &[u8]) -> Result<(), Fault> {
        self.add(name, value)?;
        let text = &self.text;
        let is_named = |field: &Field| field.name.get(text).eq_ignore_ascii_case(name);
        let Some(first) = self.fields.iter().position(is_named) else { return Ok(()) };
        let Some(new) = self.fields.pop() else { return Ok(()) };
        let mut index = 0;
        self.fields.retain(|field| {
            index += 1;
            index <= first || !is_named(field)
        });
        self.fields.insert(first, new);
        self.compact();
        Ok(())
    }

    /// Takes all lines of this name away; answers how many there were.
    pub fn del(&mut self, name: &[u8]) -> usize {
        let before = self.fields.len();
        let text = &self.text;
        self.fields.retain(|field| !field.name.get(text).eq_ignore_ascii_case(name));
        let gone = before - self.fields.len();
        self.compact();
        gone
    }

    /// Throws away text that no line uses any more, when it is most of it: a field that is set again and again
    /// must not grow the text.
    fn compact(&mut self) {
        let used: usize = self.fields.iter().map(|field| (field.name.len + field.value.len) as usize).sum();
        if self.text.len() < 1024 || used > self.text.len() / 2 {
            return;
        }
        let old = std::mem::take(&mut self.text);
        for index in 0..self.fields.len() {
            let field = self.fields[index];
            let (name, value) = (self.push(field.name.get(&old)), self.push(field.value.get(&old)));
            self.fields[index] = Field { name, value };
        }
    }
}
