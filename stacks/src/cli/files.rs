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
