//! The fenced code blocks of a document.

/// One fenced block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The language: the first word after the fence.
    pub language: String,
    /// The other words after the fence.
    pub marks: Vec<String>,
    /// The line its text begins at, counted from 1.
    pub line: usize,
    /// Its text.
    pub text: String,
}

impl Block {
    /// Whether the fence carries this word.
    pub fn is_marked(&self, mark: &str) -> bool {
        self.marks.iter().any(|word| word == mark)
    }
}

/// All fenced blocks of `document`, in order.
///
/// # Errors
/// In words, when a fence is not closed.
pub fn blocks(document: &str) -> Result<Vec<Block>, String> {
    let mut blocks = Vec::new();
    let mut open: Option<(Block, usize, usize)> = None;
    for (index, line) in document.lines().enumerate() {
        let indent = line.len() - line.trim_start_matches(' ').len();
        let ticks = line[indent..].bytes().take_while(|byte| *byte == b'`').count();
        let info = &line[indent + ticks..];
        match &mut open {
            None if ticks >= 3 => {
                let mut words = info.split_whitespace().map(str::to_owned);
                let language = words.next().unwrap_or_default();
                let block = Block { language, marks: words.collect(), line: index + 2, text: String::new() };
                open = Some((block, ticks, indent));
            }
            None => {}
            Some((_, fence, _)) if ticks >= *fence && info.trim().is_empty() => {
                blocks.extend(open.take().map(|(block, ..)| block));
            }
            Some((block, _, fence_indent)) => {
                // A block in a list is indented with it; its text is not.
                block.text.push_str(&line[indent.min(*fence_indent)..]);
                block.text.push('\n');
            }
        }
    }
    match open {
        Some((block, ..)) => Err(format!("the block at line {} is not closed", block.line)),
        None => Ok(blocks),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_language_marks_line_and_text() {
        let document = "# Title\n\n```lua fragment\nprint(1)\n\nprint(2)\n```\ntext ``code``\n```\nplain\n```\n";
        let blocks = blocks(document).unwrap();
        assert_eq!(blocks.len(), 2);
        assert_eq!((blocks[0].language.as_str(), blocks[0].line), ("lua", 4));
        assert!(blocks[0].is_marked("fragment") && !blocks[0].is_marked("run"));
        assert_eq!(blocks[0].text, "print(1)\n\nprint(2)\n");
        assert_eq!((blocks[1].language.as_str(), blocks[1].text.as_str()), ("", "plain\n"));
    }

    #[test]
    fn a_block_in_a_list_loses_the_lists_indent_only() {
        let blocks = blocks("- item\n\n  ```sh\n  one\n    two\n  ```\n").unwrap();
        assert_eq!(blocks[0].text, "one\n  two\n");
    }

    #[test]
    fn a_longer_fence_may_hold_a_shorter_one() {
        let blocks = blocks("````md\n```lua\n```\n````\n").unwrap();
        assert_eq!(blocks.len(), 1);
        assert_eq!(blocks[0].text, "```lua\n```\n");
    }

    #[test]
    fn an_open_fence_is_an_error() {
        assert_eq!(blocks("```lua\nprint(1)\n").unwrap_err(), "the block at line 2 is not closed");
    }
}
