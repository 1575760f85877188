//! `conformance/compose.yaml`, read as far as the harness needs it: the one place that names images.

use std::collections::BTreeMap;

use yaml_rust2::{Yaml, YamlLoader};

/// One service of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// Its image, with variables filled in.
    pub image: String,
    /// What it is for, and its own name: see the file.
    pub profiles: Vec<String>,
    /// The command, run inside, that ends with status 0 once it serves; empty when the file has none.
    pub health: Vec<String>,
}

/// Reads the services of a compose file; `variable` answers what a variable is set to.
///
/// # Errors
/// In words.
pub fn parse(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<BTreeMap<String, Service>, String> {
    let documents = YamlLoader::load_from_str(text).map_err(|error| error.to_string())?;
    let services =
        documents.first().and_then(|document| document["services"].as_hash()).ok_or("there are no services")?;
    let mut known = BTreeMap::new();
    for (name, service) in services {
        let name = name.as_str().ok_or("a service's name is not text")?;
        let image = service["image"].as_str().ok_or_else(|| format!("{name}: there is no image"))?;
        let image = fill(image, variable).map_err(|error| format!("{name}: {error}"))?;
        let health = health(&service["healthcheck"]["test"], variable).map_err(|error| format!("{name}: {error}"))?;
        let profiles = service["profiles"].as_vec().into_iter().flatten().filter_map(Yaml::as_str);
        let profiles = profiles.map(str::to_owned).collect();
        known.insert(name.to_owned(), Service { image, profiles, health });
    }
    Ok(known)
}

/// `["CMD", "program", ...]`, `["CMD-SHELL", "script"]`, or a script.
fn health(test: &Yaml, variable: &dyn Fn(&str) -> Option<String>) -> Result<Vec<String>, String> {
    let words: Vec<&str> = match test {
        Yaml::BadValue => return Ok(Vec::new()),
        Yaml::String(script) => vec!["CMD-SHELL", script],
        Yaml::Array(words) => words.iter().filter_map(Yaml::as_str).collect(),
        _ => Vec::new(),
    };
    let words: Vec<String> = words.into_iter().map(|word| fill(word, variable)).collect::<Result<_, _>>()?;
    match words.split_first() {
        Some((kind, rest)) if kind == "CMD" && !rest.is_empty() => Ok(rest.to_vec()),
        Some((kind, [script])) if kind == "CMD-SHELL" => Ok(vec!["sh".into(), "-c".into(), script.clone()]),
        _ => Err("the test of its health is neither CMD nor CMD-SHELL".to_owned()),
    }
}

/// Replaces `${NAME}` and `${NAME:-default}`; `$$` is a dollar.
fn fill(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        filled.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            filled.push('$');
            rest = after;
            continue;
        }
        let inner = after.strip_prefix('{').and_then(|after| after.split_once('}'));
        let (inner, after) = inner.ok_or_else(|| format!("`{text}`: `$` begins neither `${{NAME}}` nor `$$`"))?;
        let (name, default) = inner.split_once(":-").unwrap_or((inner, ""));
        let value = variable(name).filter(|value| !value.is_empty());
        filled.push_str(value.as_deref().unwrap_or(default));
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
services:
  broker:
    image: ${MOONWIRE_IMAGE_BROKER:-example/broker:1.2}
    profiles: [broker, mqtt]
    healthcheck:
      test: ["CMD-SHELL", "ask -p $${PORT:-1883} '$$SYS'"]
  web:
    image: example/web:3
    healthcheck: { test: ["CMD", "web", "-t"] }
  mute:
    image: example/mute:4
"#;

    fn read(file: &str, set: Option<&str>) -> Result<BTreeMap<String, Service>, String> {
        parse(file, &|name| set.filter(|_| name == "MOONWIRE_IMAGE_BROKER").map(str::to_owned))
    }

    #[test]
    fn an_image_is_the_variables_or_the_default() {
        for (set, image) in [(None, "example/broker:1.2"), (Some(""), "example/broker:1.2"), (Some("mine"), "mine")] {
            assert_eq!(read(FILE, set).unwrap()["broker"].image, image);
        }
    }

    #[test]
    fn a_service_says_what_it_is_for() {
        let services = read(FILE, None).unwrap();
        assert_eq!(services["broker"].profiles, ["broker", "mqtt"]);
        assert!(services["mute"].profiles.is_empty());
    }

    #[test]
    fn the_test_of_health_is_a_command_or_a_script_whose_dollars_are_its_own() {
        let services = read(FILE, None).unwrap();
        assert_eq!(services["broker"].health, ["sh", "-c", "ask -p ${PORT:-1883} '$SYS'"]);
        assert_eq!(services["web"].health, ["web", "-t"]);
        assert!(services["mute"].health.is_empty());
    }

    #[test]
    fn what_cannot_be_understood_is_said() {
        for (file, error) in [
            ("a: 1", "there are no services"),
            ("services: { x: { build: . } }", "x: there is no image"),
            ("services: { x: { image: $A } }", "x: `$A`: `$` begins neither `${NAME}` nor `$$`"),
            (
                "services: { x: { image: a, healthcheck: { test: [NONE] } } }",
                "x: the test of its health is neither CMD nor CMD-SHELL",
            ),
        ] {
            assert_eq!(read(file, None).unwrap_err(), error);
        }
    }

    #[test]
    fn the_projects_own_file_names_an_exact_version_of_each_image_and_lets_it_be_replaced() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("compose.yaml");
        let text = std::fs::read_to_string(path).unwrap();
        for (name, service) in parse(&text, &|_| None).unwrap() {
            let tag = service.image.rsplit_once(':').unwrap_or_else(|| panic!("{name}: no tag")).1;
            assert!(tag.contains('.') && tag.contains(|c: char| c.is_ascii_digit()), "{name}: {tag} is not exact");
        }
        for (name, service) in parse(&text, &|name| name.starts_with("MOONWIRE_IMAGE_").then(|| name.into())).unwrap() {
            assert_eq!(service.image, crate::container::variable_of(&name));
        }
    }
}
