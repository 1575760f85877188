//! Every example runs by itself, ends, and prints what is written down in `examples/expected/NAME.txt` (or at its own
//! head, in `-- expect:` lines). One that takes a broker from MQTT_URL prints the same through Mosquitto, by TLS; but
//! for those that say with which broker they talk.

use std::time::Duration;

use super::{Context, Setting, Suite};
use crate::server::mosquitto;
use crate::transcript::Transcript;

/// Every example does what it says.
pub const SUITE: Suite = Suite {
    name: "examples",
    about: "every script of examples/ runs by itself and prints what is expected",
    needs: &[],
    servers: &[&mosquitto::KIND],
    time_max: Duration::from_secs(10 * 60),
    cases,
    run,
};

/// An example is something one watches.
const EXAMPLE_TIME_MAX: Duration = Duration::from_secs(60);

fn cases(setting: &Setting) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    for script in scripts(setting)? {
        let through_broker = takes_broker(setting, &script)?;
        names.extend(setting.server.is_none().then(|| script.clone()));
        names.extend(through_broker.then(|| through_mosquitto(&script)));
    }
    Ok(names)
}

fn run(context: &mut Context<'_>) -> Result<(), String> {
    for script in scripts(context.setting)? {
        if context.setting.server.is_none() {
            context.case(&script, |context| run_example(context, &script, &[]).into());
        }
        if takes_broker(context.setting, &script)? {
            context.case(&through_mosquitto(&script), |context| {
                let (port, ca) = match context.server(&mosquitto::KIND) {
                    Ok((server, certificates)) => {
                        (server.port("tls").unwrap_or_default(), certificates.certificate("ca"))
                    }
                    Err(outcome) => return outcome,
                };
                let url = format!("mqtts://localhost:{port}");
                let environment = [("MQTT_URL", url), ("MQTT_CA", ca.display().to_string())];
                run_example(context, &script, &environment).into()
            });
        }
    }
    Ok(())
}

/// The scripts that are run: in a folder with a `main.lua`, that one, whose modules and tests the others are, in folders
/// below it, too.
fn scripts(setting: &Setting) -> Result<Vec<String>, String> {
    let files = setting.files("examples", ".lua")?;
    let is_module = |file: &str| {
        let folders = file.match_indices('/').map(|(end, _)| &file[..end]);
        let mut programs = folders.map(|folder| format!("{folder}/main.lua"));
        programs.any(|program| program != *file && files.contains(&program))
    };
    Ok(files.iter().filter(|file| !is_module(file)).cloned().collect())
}

fn through_mosquitto(script: &str) -> String {
    format!("{script} through Mosquitto")
}

/// Whether a script takes a broker, and prints the same whichever that is.
fn takes_broker(setting: &Setting, script: &str) -> Result<bool, String> {
    let takes = setting.read(script)?.contains("getenv(\"MQTT_URL\")");
    Ok(takes && !transcript_of(setting, script)?.lines.iter().any(|line| line.contains("MQTT_URL")))
}

fn run_example(context: &Context<'_>, script: &str, environment: &[(&str, String)]) -> Result<(), String> {
    let transcript = transcript_of(context.setting, script)?;
    let mut command = context.setting.moonwire();
    command.arg(script).args(&transcript.arguments).envs(environment.iter().cloned());
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

    #[test]
    fn of_a_folder_with_a_main_script_that_one_is_run() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("examples/page")).unwrap();
        fs::create_dir_all(folder.path().join("examples/page/part")).unwrap();
        for name in ["a.lua", "b.lua", "page/main.lua", "page/part.lua", "page/part/one.lua"] {
            fs::write(folder.path().join("examples").join(name), "").unwrap();
        }
        let setting = setting(folder.path(), None);
        assert_eq!(scripts(&setting).unwrap(), ["examples/a.lua", "examples/b.lua", "examples/page/main.lua"]);
    }

    #[test]
    fn a_script_that_takes_a_broker_and_does_not_speak_of_it_is_run_through_mosquitto() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("examples")).unwrap();
        let setting = setting(folder.path(), None);
        let write = |path: &str, text: &str| fs::write(folder.path().join(path), text).unwrap();
        write("examples/a.lua", "-- expect: 1\nlocal url = os.getenv(\"MQTT_URL\")\n");
        write("examples/b.lua", "-- expect: MQTT_URL is not set\nlocal url = os.getenv(\"MQTT_URL\")\n");
        write("examples/c.lua", "-- expect: 1\nprint(1)\n");
        let names = ["examples/a.lua", "examples/a.lua through Mosquitto", "examples/b.lua", "examples/c.lua"];
        assert_eq!(cases(&setting).unwrap(), names);
    }
}
