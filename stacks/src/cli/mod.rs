//! The command line; each sub-command has its file.

pub mod check;
mod files;
mod output;
pub mod run;
pub mod test;
pub mod trace;

use std::{
    ffi::{OsStr, OsString},
    iter,
    process::ExitCode,
};

use clap::{Parser, Subcommand};

/// Exit status of a run that found something wrong, or of a script that failed.
pub const FAILED: u8 = 1;
/// Exit status of a command line that asks for something that cannot be done.
pub const USAGE: u8 = 2;

const USAGE_LINES: &str = "moonwire SCRIPT [ARGUMENTS]...   run a Lua script (`-` reads it from standard input)
       moonwire check PATHS...          look for mistakes without running anything
       moonwire test [PATHS]...         run Lua tests";

const AFTER_HELP: &str = "\
Everything after SCRIPT belongs to the script: its arguments are in `arg` and in `...`.
A script called like a sub-command is run as `./check`.

Trace options, before SCRIPT or `test`:
  --trace LIST       print on standard error what is sent and received, decoded, as it was before TLS: `all`, or
                     names between commas: mqtt, http, websocket, wsrpc, smtp, socks5, udp for datagrams, tcp for
                     the bytes of every stream. What looks like a password, a token or a cookie is masked; the
                     rest of what is said, mails for example, is there to be read
  --trace-file FILE  write it to FILE instead: a capture for Wireshark and tshark when the name ends in .pcapng or
                     .pcap, else the text. Without --trace it has all. Not for `test`
  --trace-bytes N    how many bytes of a payload, a body or a dump are printed [default: 256]
  --trace-time KIND  what lines begin with: clock (UTC), elapsed (seconds), or none, so that two runs can be
                     compared [default: clock]
  `moonwire test` keeps the last 200 lines of each test, and prints them when it fails.

Examples:
  moonwire examples/telemetry.lua --count 3
  echo 'print(require(\"cosocket\").now())' | moonwire -
  moonwire --trace mqtt examples/telemetry.lua --count 3
  moonwire check lua examples
  moonwire test lua/test --filter \"split at any byte\"

Environment:
  MOONWIRE_LOG  what the module `log` lets through: error, warn, info, debug or trace;
                `warn,mqtt=debug` for one name apart; warn if unset
  MOONWIRE_PATH folders, separated by colons, in which `require` looks for modules after the script's own
                folder and before the stacks that are built in
  MOONWIRE_HOG  seconds of processor time after which a task that does not wait is reported with its
                line; 0 for never; 1 if unset
  MOONWIRE_TRACE, MOONWIRE_TRACE_FILE, MOONWIRE_TRACE_BYTES, MOONWIRE_TRACE_TIME
                the trace options, where the command line does not have them
  NO_COLOR      when set, nothing is coloured

Exit status:
  0    the script ended well, or SIGTERM stopped it; nothing wrong was found; every test passed
  1    the script raised an error; something wrong was found; a test failed
  2    the command line cannot be followed, a file cannot be read, or there was no test
  130  SIGINT (Ctrl-C) stopped the script
  A script that calls os.exit(N) ends with N.

A running script stops on SIGTERM and SIGINT once it has said goodbye, at once on a second one, and lists
its tasks on standard error on SIGUSR1.";

/// Runs Lua scripts that talk to the network in plain sequential code.
#[derive(Parser)]
#[command(name = "moonwire", version, override_usage = USAGE_LINES, after_help = AFTER_HELP)]
#[command(arg_required_else_help = true)]
struct Command {
    #[command(subcommand)]
    command: SubCommand,
}

#[derive(Subcommand)]
enum SubCommand {
    Check(check::Options),
    Test(test::Options),
}

/// Whether the first argument is one of ours rather than a script.
pub fn is_sub_command(first: &OsStr) -> bool {
    ["check", "test", "help"].iter().any(|name| first == *name)
}

/// Runs what the command line asks for, when it is not just a script.
pub fn main(arguments: &[OsString], trace: &trace::Settings) -> ExitCode {
    let line = iter::once(OsStr::new("moonwire")).chain(arguments.iter().map(OsString::as_os_str));
    match Command::parse_from(line).command {
        SubCommand::Check(options) => check::check(&options),
        SubCommand::Test(options) => test::test(&options, trace),
    }
}

/// Says what is wrong with the command line.
pub fn refuse(message: &str) -> ExitCode {
    output::complain(format_args!("moonwire: {message}"));
    ExitCode::from(USAGE)
}
