//! The `moonwire` command as its users see it: what goes in, what comes out, and the exit status.

mod check;
mod run;
mod test;
mod trace;

use std::{
    fs,
    io::Write,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

/// A folder with files, in which the command is run.
struct Folder(PathBuf);

impl Folder {
    /// An empty folder; `name` must be that of the test.
    fn new(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn with(self, file: &str, text: impl AsRef<[u8]>) -> Self {
        let path = self.0.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moonwire"));
        command
            .args(arguments)
            .current_dir(&self.0)
            .env_remove("MOONWIRE_LOG")
            .env_remove("MOONWIRE_PATH")
            .env_remove("MOONWIRE_TRACE")
            .env_remove("MOONWIRE_TRACE_FILE")
            .env_remove("MOONWIRE_TRACE_BYTES")
            .env_remove("MOONWIRE_TRACE_TIME")
            .stdin(Stdio::null());
        command
    }

    fn moonwire(&self, arguments: &[&str]) -> Answer {
        self.command(arguments).output().unwrap().into()
    }

    fn moonwire_reading(&self, input: &str, arguments: &[&str]) -> Answer {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap().into()
    }
}

/// What the command answered.
#[derive(Debug)]
struct Answer {
    status: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        Self {
            status: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Answer {
    #[track_caller]
    fn is(&self, status: i32, out: &str, err: &str) {
        assert_eq!((self.status, &*self.out, &*self.err), (Some(status), out, err));
    }

    #[track_caller]
    fn says(&self, status: i32, text: &str) {
        assert_eq!(self.status, Some(status), "{self:?}");
        assert!(self.out.contains(text), "{text:?} is not in:\n{}\nstderr:\n{}", self.out, self.err);
    }

    #[track_caller]
    fn complains(&self, status: i32, text: &str) {
        assert_eq!(self.status, Some(status), "{self:?}");
        assert!(self.err.contains(text), "{text:?} is not in:\n{}\nstdout:\n{}", self.err, self.out);
    }

    fn last_line(&self) -> &str {
        self.out.lines().last().unwrap_or_default()
    }
}
