//! The module `http.file`: regular files below a folder, read from any place. What leads out of the folder is not
//! there, be it by `..` or by a symbolic link.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::{Component, Path},
    time::UNIX_EPOCH,
};

use moonwire_runtime::{
    Error,
    mlua::{self, Lua, LuaString, MultiValue, UserData, UserDataMethods, Value},
};

/// Bytes one read answers at most: reading blocks everybody for so long.
const READ_MAX: usize = 1024 * 1024;

/// A file that is open for reading.
#[derive(Debug)]
struct Open {
    file: Option<File>,
    size: u64,
    /// Nanoseconds since 1970.
    modified: i64,
}

/// Makes the module.
pub fn module(lua: &Lua) -> mlua::Result<Value> {
    let exports = lua.create_table()?;
    exports.raw_set(
        "open",
        lua.create_function(|_, (folder, path): (LuaString, LuaString)| {
            let (folder, path) = (folder.to_string_lossy(), path.as_bytes());
            let Ok(path) = str::from_utf8(&path) else { return Ok(Err(failure(&io::ErrorKind::NotFound.into()))) };
            Ok(open(Path::new(&folder), Path::new(path)).map_err(|error| failure(&error)))
        })?,
    )?;
    Ok(Value::Table(exports))
}

fn failure(error: &io::Error) -> Error {
    Error::from_io("http.file", error)
}

/// The file `path` below `folder`.
fn open(folder: &Path, path: &Path) -> io::Result<Open> {
    if path.components().any(|part| !matches!(part, Component::Normal(_))) {
        return Err(no_such_file());
    }
    let root = folder.canonicalize()?;
    let whole = root.join(path).canonicalize()?;
    if !whole.starts_with(&root) {
        return Err(no_such_file());
    }
    // A pipe must not hold us up, nor a link that has just been put there.
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(&whole)?;
    // A folder on the way may have become a link meanwhile: what was opened tells where it lies.
    if let Ok(place) = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
        && !place.starts_with(&root)
    {
        return Err(no_such_file());
    }
    let about = file.metadata()?;
    if about.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    if !about.is_file() {
        return Err(no_such_file());
    }
    let modified = about.modified()?.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    Ok(Open { file: Some(file), size: about.len(), modified: i64::try_from(modified).unwrap_or(i64::MAX) })
}

fn no_such_file() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOENT)
}

impl Open {
    /// Up to `count` bytes from `offset`; none at the end.
    fn read(&self, offset: u64, count: usize) -> io::Result<Vec<u8>> {
        let Some(file) = &self.file else { return Err(io::Error::from_raw_os_error(libc::EBADF)) };
        let mut bytes = vec![0; count.min(READ_MAX)];
        let got = file.read_at(&mut bytes, offset)?;
        bytes.truncate(got);
        Ok(bytes)
    }
}

impl UserData for Open {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("size", |_, this, ()| Ok(this.size));
        methods.add_method("modified", |_, this, ()| Ok(this.modified));
        methods.add_method("read", |lua, this, (offset, count): (u64, usize)| match this.read(offset, count) {
            Ok(bytes) => lua.create_string(bytes).map(Ok),
            Err(error) => Ok(Err(failure(&error))),
        });
        methods.add_method_mut("close", |_, this, ()| {
            this.file = None;
            Ok(true)
        });
        methods.add_meta_method_mut("__close", |_, this, _: MultiValue| {
            this.file = None;
            Ok(())
        });
    }
}
