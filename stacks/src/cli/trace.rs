//! `--trace` and what goes with it: what is shown of the traffic of a script.

use std::{
    env,
    ffi::{OsStr, OsString},
    io::{self, IsTerminal},
    process::Command,
};

use moonwire_runtime::mlua::{self, Function, Lua, Table};

/// What the command line or the environment wants to be traced.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Settings {
    protocols: Option<OsString>,
    file: Option<OsString>,
    bytes: Option<OsString>,
    time: Option<OsString>,
}

/// The options, and the variables that stand for them.
const OPTIONS: [(&str, &str); 4] = [
    ("--trace", "MOONWIRE_TRACE"),
    ("--trace-file", "MOONWIRE_TRACE_FILE"),
    ("--trace-bytes", "MOONWIRE_TRACE_BYTES"),
    ("--trace-time", "MOONWIRE_TRACE_TIME"),
];

impl Settings {
    /// Takes the options off the front of a command line. What it does not name, the environment may.
    pub fn take(mut arguments: &[OsString]) -> Result<(Self, &[OsString]), String> {
        let mut settings = Self::default();
        while let [first, rest @ ..] = arguments {
            let text = first.to_string_lossy();
            let (name, joined) = match text.split_once('=') {
                Some((name, value)) => (name, Some(OsString::from(value))),
                None => (&*text, None),
            };
            let Some(field) = settings.field(name) else { break };
            let wanting = || format!("{name} wants a value, as in `moonwire {name} {} SCRIPT`", example(name));
            let (value, left) = match (joined, rest) {
                (Some(value), rest) => (value, rest),
                (None, [value, rest @ ..]) => (value.clone(), rest),
                (None, []) => return Err(wanting()),
            };
            if value.is_empty() {
                return Err(wanting());
            }
            // Whoever forgets the value has given the script as one.
            if left.is_empty() {
                return Err(format!("after {name} {} there is no script to run", value.to_string_lossy()));
            }
            *field = Some(value);
            arguments = left;
        }
        let given = settings.clone();
        for (name, variable) in OPTIONS {
            let value = env::var_os(variable).filter(|value| !value.is_empty());
            if let Some(field) = settings.field(name) {
                *field = field.take().or(value);
            }
        }
        if !settings.is_on() && given != Self::default() {
            return Err("--trace-bytes and --trace-time go with --trace or --trace-file".to_owned());
        }
        Ok((settings, arguments))
    }

    fn field(&mut self, name: &str) -> Option<&mut Option<OsString>> {
        match name {
            "--trace" => Some(&mut self.protocols),
            "--trace-file" => Some(&mut self.file),
            "--trace-bytes" => Some(&mut self.bytes),
            "--trace-time" => Some(&mut self.time),
            _ => None,
        }
    }

    /// Whether anything is traced.
    pub fn is_on(&self) -> bool {
        self.protocols.is_some() || self.file.is_some()
    }

    /// Hands the settings to another `moonwire`.
    pub fn pass_on(&self, to: &mut Command) {
        let values = [&self.protocols, &self.file, &self.bytes, &self.time];
        for ((_, variable), value) in OPTIONS.iter().zip(values) {
            if let Some(value) = value {
                to.env(variable, value);
            }
        }
    }

    /// Starts to trace what scripts of this state say to others, when that is wanted.
    pub fn start(&self, lua: &Lua) -> Result<(), String> {
        if !self.is_on() {
            return Ok(());
        }
        let colour = io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none();
        let options = self.options(lua).and_then(|options| {
            options.set("file", self.file.as_deref().map(text_of))?;
            options.set("colour", colour)?;
            Ok(options)
        });
        options.and_then(|options| start(lua, options)).map(|_| ()).map_err(|error| describe(&error))
    }

    /// Starts to trace, and hands each line to `write`. Answers the tracer.
    pub fn start_into(&self, lua: &Lua, write: Function) -> Result<Table, String> {
        let options = self.options(lua).and_then(|options| {
            if self.time.is_none() {
                options.set("time", "elapsed")?;
            }
            options.set("write", write)?;
            Ok(options)
        });
        options.and_then(|options| start(lua, options)).map_err(|error| describe(&error))
    }

    fn options(&self, lua: &Lua) -> mlua::Result<Table> {
        let options = lua.create_table()?;
        options.set("protocols", self.protocols.as_deref().map(text_of))?;
        options.set("time", self.time.as_deref().map(text_of))?;
        if let Some(bytes) = &self.bytes {
            let number = text_of(bytes).parse::<i64>();
            let wrong = |_| mlua::Error::runtime("--trace-bytes wants a number of bytes");
            options.set("bytes", number.map_err(wrong)?)?;
        }
        Ok(options)
    }
}

/// A value that an option may have.
fn example(option: &str) -> &'static str {
    match option {
        "--trace-file" => "talk.pcapng",
        "--trace-bytes" => "1000",
        "--trace-time" => "none",
        _ => "all",
    }
}

fn text_of(value: &OsStr) -> String {
    value.to_string_lossy().into_owned()
}

fn start(lua: &Lua, options: Table) -> mlua::Result<Table> {
    let module: Table = lua.load("return require('net.trace')").set_name("=[trace]").call(())?;
    let start: Function = module.get("start")?;
    let (tracer, error): (Option<Table>, Option<mlua::Value>) = start.call(options)?;
    match (tracer, error) {
        (Some(tracer), _) => Ok(tracer),
        (None, Some(error)) => Err(mlua::Error::runtime(error.to_string()?)),
        (None, None) => Err(mlua::Error::runtime("nothing was started")),
    }
}

/// The message without its traceback, and with what there is to choose from.
fn describe(error: &mlua::Error) -> String {
    let mut deepest = error;
    while let mlua::Error::CallbackError { cause, .. } = deepest {
        deepest = cause;
    }
    let text = deepest.to_string();
    let line = text.lines().next().unwrap_or_default();
    let line = line.strip_prefix("runtime error: ").unwrap_or(line);
    let message = line.find("trace.start: ").map_or(line, |at| &line[at + "trace.start: ".len()..]);
    if !message.contains("is no protocol") {
        // The options of the module are called like those of the command line.
        let name = message.strip_prefix("option ").unwrap_or(message).trim_start_matches('"');
        let named = [("protocols", "--trace"), ("bytes", "--trace-bytes"), ("time", "--trace-time")].iter().find_map(
            |(option, ours)| name.strip_prefix(option).map(|rest| format!("{ours}{}", rest.trim_start_matches('"'))),
        );
        return named.unwrap_or_else(|| message.to_owned());
    }
    let mut names: Vec<&str> = moonwire::SOURCES.iter().filter_map(|(name, _)| name.strip_prefix("trace.")).collect();
    names.sort_unstable();
    format!("{message}; there are: all, {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(line: &str) -> Result<(Settings, String), String> {
        let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let (settings, rest) = Settings::take(&arguments)?;
        let rest: Vec<_> = rest.iter().map(|argument| argument.to_string_lossy()).collect();
        Ok((settings, rest.join(" ")))
    }

    #[test]
    fn options_stand_before_the_script_and_what_follows_is_left_alone() {
        let (settings, rest) = take("--trace mqtt,http --trace-bytes=10 a.lua --trace tcp").unwrap();
        assert_eq!(rest, "a.lua --trace tcp");
        assert_eq!(settings.protocols.as_deref(), Some(OsStr::new("mqtt,http")));
        assert_eq!(settings.bytes.as_deref(), Some(OsStr::new("10")));
        assert!(settings.is_on());
        let (settings, rest) = take("a.lua --trace tcp").unwrap();
        assert_eq!(rest, "a.lua --trace tcp");
        assert!(!settings.is_on());
    }

    #[test]
    fn an_option_without_its_value_or_without_anything_to_trace_is_refused() {
        assert!(take("--trace").unwrap_err().contains("--trace wants a value"));
        assert!(take("--trace= a.lua").unwrap_err().contains("--trace wants a value"));
        assert!(take("--trace-time none a.lua").unwrap_err().contains("go with --trace"));
        assert_eq!(take("--trace a.lua").unwrap_err(), "after --trace a.lua there is no script to run");
        assert!(take("--trace all --help").is_ok());
    }
}
