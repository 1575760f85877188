//! Every example runs by itself, ends, and prints what is written down in `examples/expected/NAME.txt` (or at its own
//! head, in `-- expect:` lines).

use std::time::Duration;

use super::{Context, Setting, Suite};
use crate::transcript::Transcript;

/// Every example does what it says.
pub const SUITE: Suite = Suite {
    name: "examples",
    about: "every script of examples/ runs by itself and prints what is expected",
    needs: &[],
    time_max: Duration::from_secs(10 * 60),
    cases: |setting| setting.files("examples", ".lua"),
    run,
};

/// An example is something one watches.
const EXAMPLE_TIME_MAX: Duration = Duration::from_secs(60);

fn run(context: &mut Context<'_>) -> Result<(), String> {
    for script in context.setting.files("examples", ".lua")? {
        context.case(&script, |context| run_example(context, &script).into());
    }
    Ok(())
}

fn run_example(context: &Context<'_>, script: &str) -> Result<(), String> {
    let transcript = transcript_of(context.setting, script)?;
    let mut command = context.setting.moonwire();
    command.arg(script).args(&transcript.arguments);
    let finished = context.succeed(command, EXAMPLE_TIME_MAX)?;
    transcript.compare(&finished.stdout).map_err(|difference| format!("{difference}\n{}", finished.summary()))
}

/// What is written down about an example.
pub fn transcript_of(setting: &Setting, script: &str) -> Result<Transcript, String> {
    let expected = script.replace("examples/", "examples/expected/").replace(".lua", ".txt");
    if setting.root.join(&expected).is_file() {
        return Transcript::parse(&setting.read(&expected)?, script).map_err(|error| format!("{expected}: {error}"));
    }
    Transcript::of_header(&setting.read(script)?)
        .ok_or_else(|| format!("nobody wrote down what it prints: neither {expected} nor `-- expect:` lines in it"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::setting;
    use super::*;
    use std::fs;

    #[test]
    fn the_file_beside_comes_first_then_the_head_then_a_complaint() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("examples/expected")).unwrap();
        let setting = setting(folder.path(), None);
        let write = |path: &str, text: &str| fs::write(folder.path().join(path), text).unwrap();
        write("examples/a.lua", "print(1)\n");
        assert!(transcript_of(&setting, "examples/a.lua").unwrap_err().contains("examples/expected/a.txt"));
        write("examples/a.lua", "-- expect: 1\nprint(1)\n");
        assert_eq!(transcript_of(&setting, "examples/a.lua").unwrap().lines, ["1"]);
        write("examples/expected/a.txt", "$ moonwire examples/a.lua --loud\none\n");
        let transcript = transcript_of(&setting, "examples/a.lua").unwrap();
        assert_eq!((transcript.arguments, transcript.lines), (vec!["--loud".to_owned()], vec!["one".to_owned()]));
    }
}
