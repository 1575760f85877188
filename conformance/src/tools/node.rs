//! Packages of Node: one environment of our own for all of them, in exactly the versions of a lock file.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::{cache_folder, succeed};

/// What is installed, and in which versions.
const PACKAGES: &str = include_str!("../../servers/tus/package.json");
const LOCK: &str = include_str!("../../servers/tus/package-lock.json");
/// Scripts of packages are not run, and what only other stores need is left out.
const ARGUMENTS: [&str; 5] = ["ci", "--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund"];

/// Where the packages are installed.
fn folder() -> PathBuf {
    cache_folder().join("node")
}

/// Where programs find the packages: for `NODE_PATH`.
pub fn modules() -> PathBuf {
    folder().join("node_modules")
}

/// Whether a package is installed, in the version of the lock file.
pub fn is_here(package: &str) -> bool {
    modules().join(package).is_dir() && fs::read_to_string(folder().join("installed")).is_ok_and(|lock| lock == LOCK)
}

/// The command that installs all packages, as one types it at the top of the project.
pub fn install_command() -> String {
    let folder = folder();
    let folder = folder.display();
    let arguments = ARGUMENTS.join(" ");
    format!(
        "mkdir -p {folder} && cp conformance/servers/tus/package*.json {folder} && (cd {folder} && npm {arguments} && cp package-lock.json installed)"
    )
}

/// Installs all packages, and notes which.
pub fn install(say: &mut impl FnMut(&str)) -> Result<(), String> {
    let folder = folder();
    let wrong = |error: std::io::Error| format!("{}: {error}", folder.display());
    fs::create_dir_all(&folder).map_err(wrong)?;
    fs::write(folder.join("package.json"), PACKAGES).map_err(wrong)?;
    fs::write(folder.join("package-lock.json"), LOCK).map_err(wrong)?;
    say(&format!("npm {}", ARGUMENTS.join(" ")));
    let mut command = Command::new("npm");
    command.args(ARGUMENTS).current_dir(&folder);
    succeed(command)?;
    fs::write(folder.join("installed"), LOCK).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_file_has_every_package_with_its_digest_and_names_no_registry() {
        let lock: serde_json::Value = serde_json::from_str(LOCK).unwrap();
        let packages: serde_json::Value = serde_json::from_str(PACKAGES).unwrap();
        let locked = lock["packages"].as_object().unwrap();
        for (name, version) in packages["dependencies"].as_object().unwrap() {
            assert_eq!(&locked[&format!("node_modules/{name}")]["version"], version);
        }
        for (name, package) in locked.iter().filter(|(name, _)| !name.is_empty()) {
            assert!(package["integrity"].is_string(), "{name}");
            assert!(package.get("resolved").is_none(), "{name}");
        }
    }
}
