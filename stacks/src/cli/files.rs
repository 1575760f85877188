//! Which files a path on the command line means.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The file itself, or every `.lua` file below a folder whose name `wanted` accepts, in order of their names.
///
/// Hidden folders are left out, links to folders too, and folders that say they are a cache
/// (`CACHEDIR.TAG`, as Cargo's `target` does).
pub fn lua_files(path: &Path, wanted: fn(&str) -> bool) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if fs::metadata(path)?.is_dir() {
        walk(path, wanted, &mut found)?;
    } else {
        found.push(path.to_owned());
    }
    Ok(found)
}

fn walk(folder: &Path, wanted: fn(&str) -> bool, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            if !name.starts_with('.') && !path.join("CACHEDIR.TAG").exists() {
                walk(&path, wanted, found)?;
            }
        } else if name.ends_with(".lua") && wanted(&name) && path.is_file() {
            // `./` in front of every name says nothing.
            found.push(path.strip_prefix(".").map(Path::to_owned).unwrap_or(path));
        }
    }
    Ok(())
}

/// The folders in which the modules that `file` requires may be: its own, for a test also the one of what it tests, for a
/// decoder the one of its protocol, for what is in the folder of a module (`foo/part.lua` beside `foo.lua`) that module's,
/// and those named on the command line.
pub fn module_roots(file: &Path, named: &[PathBuf]) -> Vec<PathBuf> {
    let mut roots = vec![folder_of(file)];
    for ancestor in file.ancestors().skip(1) {
        let is_room = ancestor.file_name().is_some_and(|name| name == "test" || name == "tests" || name == "trace");
        if is_room || ancestor.with_extension("lua").is_file() {
            roots.push(folder_of(ancestor));
        }
    }
    roots.extend(named.iter().map(|path| if path.is_dir() { path.clone() } else { folder_of(path) }));
    roots
}

/// The folder a file is in.
pub fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => file.to_owned(),
    }
}
