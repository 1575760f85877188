//! `moonwire check PATHS...`: mistakes that can be seen without running anything.

mod chunk;

use std::{
    collections::{BTreeSet, HashSet},
    env, fs,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    process::ExitCode,
};

use chunk::Use;
use moonwire_runtime::{
    RunError,
    mlua::{self, Lua, LuaString, Table, Value, chunk::ChunkMode},
};

use super::{
    FAILED, USAGE,
    files::{lua_files, module_roots},
    output::{complain, say},
    run::describe,
};

/// Look for mistakes in Lua files without running them
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Found are: what is no Lua at all; modules that `require \"name\"` would not find beside the file (beside foo.lua
for what is in its folder foo), in the folders named here, in those of MOONWIRE_PATH, or among the built-in
modules; and globals that nothing defines. A `require` inside `pcall` and a global that is only asked for
(`if jit then`) may be missing.

Exit status: 0 when nothing is wrong, 1 when something is, 2 when a file cannot be read.")]
pub struct Options {
    /// Lua files, and folders of them
    #[arg(required = true)]
    paths: Vec<PathBuf>,
}

/// Checks the files.
pub fn check(options: &Options) -> ExitCode {
    match mistakes(&options.paths) {
        Ok((files, mistakes)) => {
            for mistake in &mistakes {
                say(format_args!("{mistake}"));
            }
            if io::stdout().is_terminal() {
                let plural = |count| if count == 1 { "" } else { "s" };
                let wrong = mistakes.len();
                say(format_args!("{files} file{}, {wrong} mistake{}", plural(files), plural(wrong)));
            }
            ExitCode::from(if mistakes.is_empty() { 0 } else { FAILED })
        }
        Err(message) => {
            complain(format_args!("moonwire check: {message}"));
            ExitCode::from(USAGE)
        }
    }
}

/// How many files there are, and what is wrong in them, each mistake as `file:line: message`.
fn mistakes(paths: &[PathBuf]) -> Result<(usize, Vec<String>), String> {
    let cannot_read = |path: &Path, error: &io::Error| format!("cannot read {}: {}", path.display(), describe(error));
    let lua = Lua::new();
    let mut checked = Vec::new();
    for path in paths {
        let files = lua_files(path, |_| true).map_err(|error| cannot_read(path, &error))?;
        if files.is_empty() {
            return Err(format!("no Lua file in {}", path.display()));
        }
        for file in files {
            let source = fs::read(&file).map_err(|error| cannot_read(&file, &error))?;
            checked.push((file, compile(&lua, &source)));
        }
    }
    let known = Known::of_runtime().map_err(|error| error.to_string())?;
    let definitions: HashSet<&str> =
        checked.iter().flat_map(|(_, uses)| uses.iter().flatten()).filter_map(definition).collect();
    let folders = env::var_os("MOONWIRE_PATH").unwrap_or_default();
    let named: Vec<PathBuf> =
        paths.iter().cloned().chain(env::split_paths(&folders).filter(|folder| folder.is_dir())).collect();
    let mut mistakes = Vec::new();
    for (file, uses) in &checked {
        match uses {
            Ok(uses) => mistakes.extend(
                wrong_uses(uses, &known, &definitions, &module_roots(file, &named))
                    .into_iter()
                    .map(|(line, message)| format!("{}:{line}: {message}", file.display())),
            ),
            Err(message) => mistakes.push(format!("{}:{message}", file.display())),
        }
    }
    Ok((checked.len(), mistakes))
}

/// What is wrong in one file, in order of its lines, each thing once a line.
fn wrong_uses(
    uses: &[(u32, Use)],
    known: &Known,
    definitions: &HashSet<&str>,
    roots: &[PathBuf],
) -> BTreeSet<(u32, String)> {
    let wrong = |(line, used): &(u32, Use)| {
        let message = match used {
            Use::Require(name) => known.lack_of_module(name, roots),
            Use::Global(name) if !definitions.contains(name.as_str()) => known.lack_of_global(name),
            _ => None,
        };
        message.map(|message| (*line, message))
    };
    uses.iter().filter_map(wrong).collect()
}

fn definition((_, found): &(u32, Use)) -> Option<&str> {
    match found {
        Use::Definition(name) => Some(name),
        _ => None,
    }
}

/// What the source uses, or `line: message` when it is not Lua.
fn compile(lua: &Lua, source: &[u8]) -> Result<Vec<(u32, Use)>, String> {
    // Lua shortens long names in messages; the file's is put in front afterwards.
    let chunk = lua.load(without_shebang(source)).set_name("=source").set_mode(ChunkMode::Text).into_function();
    match chunk {
        Ok(function) => Ok(chunk::uses(&function.dump(false)).unwrap_or_default()),
        Err(mlua::Error::SyntaxError { message, .. }) => {
            Err(message.strip_prefix("source:").unwrap_or(&message).to_owned())
        }
        Err(error) => Err(format!("1: {error}")),
    }
}

/// A script's text without a byte order mark and a first line for the shell; line numbers stay.
fn without_shebang(source: &[u8]) -> &[u8] {
    let source = source.strip_prefix(b"\xef\xbb\xbf").unwrap_or(source);
    match source {
        [b'#', ..] => &source[source.iter().position(|byte| *byte == b'\n').unwrap_or(source.len())..],
        _ => source,
    }
}

/// The names that a script finds in a new runtime.
struct Known {
    globals: HashSet<String>,
    modules: HashSet<String>,
}

impl Known {
    fn of_runtime() -> Result<Self, RunError> {
        let runtime = moonwire::builder().build()?;
        let names = |table: &Table| {
            table
                .pairs::<LuaString, Value>()
                .map(|pair| Ok(pair?.0.to_string_lossy()))
                .collect::<mlua::Result<Vec<_>>>()
        };
        let globals = runtime.lua().globals();
        let package: Table = globals.get("package")?;
        let mut modules: HashSet<String> = moonwire::SOURCES.iter().map(|(name, _)| (*name).to_owned()).collect();
        modules.extend(names(&package.get("loaded")?)?);
        modules.extend(names(&package.get("preload")?)?);
        Ok(Self { globals: names(&globals)?.into_iter().chain([String::from("arg")]).collect(), modules })
    }

    fn lack_of_module(&self, name: &str, roots: &[PathBuf]) -> Option<String> {
        if self.modules.contains(name) {
            return None;
        }
        let path = name.replace('.', "/");
        let is_there =
            |root: &PathBuf| root.join(format!("{path}.lua")).is_file() || root.join(&path).join("init.lua").is_file();
        if roots.iter().any(is_there) {
            return None;
        }
        Some(format!("there is no module {name:?}{}", nearest(name, &self.modules)))
    }

    fn lack_of_global(&self, name: &str) -> Option<String> {
        if self.globals.contains(name) {
            return None;
        }
        Some(format!("nothing defines the global {name:?}{}", nearest(name, &self.globals)))
    }
}

/// A hint at the known name that was probably meant.
fn nearest(name: &str, known: &HashSet<String>) -> String {
    const ALIKE: f64 = 0.75;
    let likeness = |candidate: &str| strsim::normalized_damerau_levenshtein(name, candidate);
    // Of two names equally near the first in the alphabet: the hint must not change from run to run.
    let best = known.iter().max_by(|one, other| likeness(one).total_cmp(&likeness(other)).then(other.cmp(one)));
    match best.filter(|best| likeness(best) >= ALIKE) {
        Some(best) => format!(" (did you mean {best:?}?)"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_known_name_is_offered_if_it_is_near() {
        let known = ["print", "pairs", "ipairs"].map(str::to_owned).into();
        assert_eq!(nearest("pritn", &known), " (did you mean \"print\"?)");
        assert_eq!(nearest("something", &known), "");
    }
}
