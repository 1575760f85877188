//! The `moonwire` command: runs scripts, checks them, tests them.

mod cli;

use std::{
    env,
    ffi::{OsStr, OsString},
    process::ExitCode,
};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let (trace, arguments) = match cli::trace::Settings::take(&arguments) {
        Ok(taken) => taken,
        Err(message) => return cli::refuse(&message),
    };
    // A device starts scripts all day long: that road passes by the option parser.
    match script_and_arguments(arguments) {
        Some((script, rest)) => cli::run::run(script, rest, &trace),
        None => cli::main(arguments, &trace),
    }
}

/// The script to run and its own arguments, or `None` when the command line is for clap.
fn script_and_arguments(arguments: &[OsString]) -> Option<(&OsStr, &[OsString])> {
    let (first, rest) = arguments.split_first()?;
    if first == "--" {
        let (script, rest) = rest.split_first()?;
        return Some((script, rest));
    }
    let is_option = first != "-" && first.as_encoded_bytes().starts_with(b"-");
    let is_ours = is_option || first.is_empty() || cli::is_sub_command(first);
    (!is_ours).then_some((first.as_os_str(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(line: &str) -> Option<(String, usize)> {
        let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        script_and_arguments(&arguments).map(|(script, rest)| (script.to_str().unwrap().to_owned(), rest.len()))
    }

    #[test]
    fn whatever_follows_the_script_is_the_scripts_own() {
        assert_eq!(script("a.lua --help check"), Some(("a.lua".into(), 2)));
        assert_eq!(script("- --help"), Some(("-".into(), 1)));
        assert_eq!(script("-- --odd.lua -x"), Some(("--odd.lua".into(), 1)));
        assert_eq!(script("./check --help"), Some(("./check".into(), 1)));
    }

    #[test]
    fn options_and_sub_commands_are_for_the_parser() {
        for line in ["--help", "-V", "check a.lua", "test", "help test", "", "--"] {
            assert_eq!(script(line), None, "{line}");
        }
    }
}
