//! What is on the disk stays there: processes killed at any instant, full disks, files that may not be written.
//!
//! Random tests print their seed; `MOONWIRE_SEED` sets it.

mod sqlite;
mod store;

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::SystemTime,
};

/// An empty folder; `name` must be that of the test.
fn folder(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

fn seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock after 1970");
    let seed = match env::var("MOONWIRE_SEED") {
        Ok(text) => text.parse().expect("MOONWIRE_SEED is a number"),
        Err(_) => u64::from(now.subsec_nanos()) | 1,
    };
    println!("MOONWIRE_SEED={seed}");
    seed
}

/// The next of a seed's numbers (xorshift64*), below `limit`.
fn draw(state: &mut u64, limit: u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
}

/// The command, for a script in `folder`.
fn moonwire(folder: &Path, script: &str, arguments: &[&str]) -> Command {
    let path = folder.join("script.lua");
    fs::write(&path, script).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_moonwire"));
    command.arg(path).args(arguments).current_dir(folder).stdin(Stdio::null());
    command
}

/// A process with its output, line by line; killed at the latest when dropped.
struct Running {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The next line; `None` at the end.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let size = self.lines.read_line(&mut line).unwrap();
        // What a killed process had not written whole was not said.
        (size > 0 && line.ends_with('\n')).then(|| line.trim_end().to_owned())
    }

    /// Ends it as a crash does (SIGKILL), and gives what it had still said.
    fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::iter::from_fn(|| self.line()).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a script that must end well; gives what it printed.
#[track_caller]
fn checked(mut command: Command) -> String {
    let output: Output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}{err}", output.status);
    out.into_owned()
}
