//! Bugs to plant: a diff against `lua/`, below a head that says what is wrong with it and which case has to notice.
//!
//! ```text
//! A QoS 2 message that comes again is handed on again.
//! suite: mqtt
//! server: mosquitto
//! case: 5         session: [MQTT-4.3.3-10] a QoS 2 message that the broker sends again is handed on once
//!
//! --- a/lua/mqtt/incoming.lua
//! +++ b/lua/mqtt/incoming.lua
//! @@
//! -  if packet.qos == 2 and self.owned[id] ~= nil then
//! +  if false then
//! ```
//!
//! `git diff` makes the second half. The numbers of lines mean nothing: what is taken away, with the lines around it, has
//! to be in the file exactly once. If it is not, the mutation has rotted, and that is a failure.

use std::fs;
use std::path::Path;

/// The only folder that a mutation may change.
const FOLDER: &str = "lua/";

/// A bug to plant.
#[derive(Debug, PartialEq, Eq)]
pub struct Mutation {
    /// What is wrong with it, in words.
    pub title: String,
    /// The suite that has to notice.
    pub suite: String,
    /// The server that it runs against, if it needs one.
    pub server: Option<String>,
    /// The case that has to fail.
    pub case: String,
    changes: Vec<Change>,
}

/// Lines of a file that become others.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    file: String,
    old: Vec<String>,
    new: Vec<String>,
}

impl Mutation {
    /// Reads a head and a diff.
    ///
    /// # Errors
    /// In words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let begins = |line: &&str| !line.starts_with("--- ") && !line.starts_with("diff ");
        let head: Vec<&str> = text.lines().take_while(begins).map(str::trim).filter(|line| !line.is_empty()).collect();
        let field = |name: &str| {
            let mut lines = head.iter().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            lines.next().map(|value| value.trim().to_owned())
        };
        let wanted = |name: &str| field(name).ok_or_else(|| format!("its head has no line `{name}: ...`"));
        let mutation = Self {
            title: head.first().map(|line| line.trim_end_matches('.').to_owned()).unwrap_or_default(),
            suite: wanted("suite")?,
            server: field("server"),
            case: wanted("case")?,
            changes: changes(text.lines().skip_while(begins))?,
        };
        if mutation.changes.is_empty() {
            return Err("it changes nothing".to_owned());
        }
        Ok(mutation)
    }

    /// The files that it changes.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.changes.iter().map(|change| change.file.as_str())
    }

    /// Plants it into the project's copy in `root`.
    ///
    /// # Errors
    /// In words, when a text that it changes is not there, or more than once.
    pub fn plant(&self, root: &Path) -> Result<(), String> {
        for change in &self.changes {
            let path = root.join(&change.file);
            let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", change.file))?;
            let text = change.apply(&text).map_err(|error| format!("{}: {error}", change.file))?;
            fs::write(&path, text).map_err(|error| format!("{}: {error}", change.file))?;
        }
        Ok(())
    }
}

impl Change {
    fn apply(&self, text: &str) -> Result<String, String> {
        let lines: Vec<&str> = text.lines().collect();
        let places: Vec<usize> = lines
            .windows(self.old.len())
            .enumerate()
            .filter_map(|(at, window)| window.iter().eq(&self.old).then_some(at))
            .collect();
        let &[at] = places.as_slice() else {
            let old = self.old.join("\n");
            return Err(match places.len() {
                0 => format!("the code has changed, and this is no longer in it:\n{old}"),
                count => format!("this is in it {count} times; more of the lines around it make it one:\n{old}"),
            });
        };
        let new = self.new.iter().map(String::as_str);
        let mutated = lines[..at].iter().copied().chain(new).chain(lines[at + self.old.len()..].iter().copied());
        Ok(mutated.map(|line| format!("{line}\n")).collect())
    }
}

/// Reads a unified diff.
fn changes<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Vec<Change>, String> {
    let (mut changes, mut file) = (Vec::<Change>::new(), String::new());
    let mut lines = lines.peekable();
    let mut in_hunk = false;
    while let Some(line) = lines.next() {
        // A comment of Lua that is taken away looks like the first of these lines, but nothing like the second follows.
        if line.starts_with("--- ") && lines.peek().is_some_and(|next| next.starts_with("+++ ")) {
            let path = lines.next().unwrap_or_default().trim_start_matches("+++ ").trim_end();
            path.strip_prefix("b/").unwrap_or(path).clone_into(&mut file);
            if !file.starts_with(FOLDER) || file.split('/').any(|part| part == "..") {
                return Err(format!("it changes {file}, which is not in {FOLDER}"));
            }
            in_hunk = false;
        } else if line.starts_with("diff ") {
            in_hunk = false;
        } else if line.starts_with("@@") {
            if file.is_empty() {
                return Err("no line `+++ b/FILE` before the first `@@`".to_owned());
            }
            in_hunk = true;
            changes.push(Change { file: file.clone(), old: Vec::new(), new: Vec::new() });
        } else if let Some(change) = changes.last_mut().filter(|_| in_hunk) {
            let (sign, rest) = line.split_at_checked(1).unwrap_or((" ", ""));
            match sign {
                "-" => change.old.push(rest.to_owned()),
                "+" => change.new.push(rest.to_owned()),
                " " => {
                    change.old.push(rest.to_owned());
                    change.new.push(rest.to_owned());
                }
                "\\" => {}
                _ => return Err(format!("`{line}` is no line of a diff")),
            }
        }
    }
    match changes.iter().find(|change| change.old.is_empty() || change.old == change.new) {
        Some(change) => {
            Err(format!("a change of {} says nothing of where it is, or nothing of what it is", change.file))
        }
        None => Ok(changes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
It forgets.
suite: mqtt
server: mosquitto
case: 5 tcp     session: [MQTT-4.3.3-10] once

diff --git a/lua/x.lua b/lua/x.lua
--- a/lua/x.lua
+++ b/lua/x.lua
@@ -1,3 +1,2 @@ function
 one
-two
---- a comment goes

@@ -9 +8 @@
-nine
+ten
--- a/lua/y.lua
+++ b/lua/y.lua
@@
-y
+z
";

    #[test]
    fn a_mutation_is_a_head_and_a_diff() {
        let mutation = Mutation::parse(TEXT).unwrap();
        assert_eq!(mutation.title, "It forgets");
        assert_eq!((mutation.suite.as_str(), mutation.server.as_deref()), ("mqtt", Some("mosquitto")));
        assert_eq!(mutation.case, "5 tcp     session: [MQTT-4.3.3-10] once");
        let [first, second, third] = mutation.changes.as_slice() else { panic!("{mutation:?}") };
        assert_eq!(
            (first.old.join("|").as_str(), first.new.join("|").as_str()),
            ("one|two|--- a comment goes|", "one|")
        );
        assert_eq!((second.old.join("|").as_str(), second.new.join("|").as_str()), ("nine", "ten"));
        assert_eq!((third.old.join("|").as_str(), third.new.join("|").as_str()), ("y", "z"));
        assert_eq!(mutation.files().collect::<Vec<_>>(), ["lua/x.lua", "lua/x.lua", "lua/y.lua"]);
    }

    #[test]
    fn what_is_there_once_is_changed_and_nothing_else() {
        let mutation = Mutation::parse(TEXT).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("lua")).unwrap();
        let path = folder.path().join("lua/x.lua");
        fs::write(&path, "zero\none\ntwo\n--- a comment goes\n\nnine\nnineteen\n").unwrap();
        fs::write(folder.path().join("lua/y.lua"), "y\n").unwrap();
        mutation.plant(folder.path()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "zero\none\n\nten\nnineteen\n");
        let error = mutation.plant(folder.path()).unwrap_err();
        assert!(error.starts_with("lua/x.lua: the code has changed"), "{error}");
    }

    #[test]
    fn what_is_there_twice_is_not_changed() {
        let change = Change { file: "lua/x.lua".into(), old: vec!["a".into()], new: vec![] };
        assert!(change.apply("a\nb\na\n").unwrap_err().starts_with("this is in it 2 times"));
        assert_eq!(change.apply("a\nab\n").unwrap(), "ab\n");
    }

    #[test]
    fn a_mutation_that_is_none_is_refused() {
        for (from, to, error) in [
            ("suite: mqtt\n", "", "its head has no line `suite: ...`"),
            ("case: 5", "cases: 5", "its head has no line `case: ...`"),
            ("+++ b/lua/x", "+++ b/stacks/x", "it changes stacks/x.lua, which is not in lua/"),
            ("+++ b/lua/x", "+++ b/lua/../x", "it changes lua/../x.lua, which is not in lua/"),
            ("-nine\n", "", "a change of lua/x.lua says nothing of where it is, or nothing of what it is"),
            ("+ten\n", "?ten\n", "`?ten` is no line of a diff"),
        ] {
            assert_eq!(Mutation::parse(&TEXT.replace(from, to)).unwrap_err(), error);
        }
        assert_eq!(Mutation::parse("x\nsuite: a\ncase: b\n").unwrap_err(), "it changes nothing");
    }
}
