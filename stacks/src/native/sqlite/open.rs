//! Opening a file: what is refused is left byte for byte as it is.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use moonwire_runtime::{Code, Error, Kind};
use rusqlite::{
    Connection, MAIN_DB, OpenFlags,
    config::DbConfig,
    hooks::{AuthAction, AuthContext, Authorization},
};

use super::{
    error::{coded, explain},
    options::Config,
};

const OP: &str = "sqlite.open";
/// Bytes that the write-ahead log keeps after a burst.
const WAL_KEPT: i64 = 4 * 1024 * 1024;
/// KiB of pages kept in memory.
const CACHE_KIB: i64 = 1024;
/// Prepared statements kept.
const STATEMENTS_KEPT: usize = 64;

/// A connection, and the switch that lets its own transactions through.
pub(super) struct Opened {
    pub(super) connection: Connection,
    /// Whether transactions may be begun and ended: those of scripts may not.
    pub(super) ours: Arc<AtomicBool>,
}

/// Opens the database, and brings it to the version of the schema.
pub(super) fn open(config: &Config) -> Result<Opened, Error> {
    if !config.is_in_memory() {
        look(config)?;
    }
    let access = if config.read_only { OpenFlags::SQLITE_OPEN_READ_ONLY } else { OpenFlags::SQLITE_OPEN_READ_WRITE };
    let failed = |error: rusqlite::Error| explain(OP, &config.shown, &error);
    let mut connection =
        Connection::open_with_flags(&config.path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(failed)?;
    examine(&connection, config)?;
    prepare(&connection, config).map_err(failed)?;
    upgrade(&connection, config)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, config.read_only).map_err(failed)?;
    let ours = Arc::new(AtomicBool::new(false));
    let switch = ours.clone();
    connection
        .authorizer(Some(move |context: AuthContext<'_>| match context.action {
            AuthAction::Transaction { .. } | AuthAction::Savepoint { .. } if !switch.load(Ordering::Relaxed) => {
                Authorization::Deny
            }
            _ => Authorization::Allow,
        }))
        .map_err(failed)?;
    Ok(Opened { connection, ours })
}

/// Looks at the files before SQLite does, and makes a new one with the right permissions.
fn look(config: &Config) -> Result<(), Error> {
    let failed = |error: &io::Error| {
        let found = Error::from_io(OP, error);
        // `from_io` takes some for the end of a connection.
        let message = format!("cannot open {}: {}", config.shown, found.message);
        Error { kind: Kind::Io, message: message.into(), ..found }
    };
    let log = beside(&config.path, "-wal");
    let has_log = fs::metadata(&log).is_ok_and(|found| found.len() > 0);
    let size = match fs::metadata(&config.path) {
        Ok(found) if found.is_dir() => return Err(failed(&io::ErrorKind::IsADirectory.into())),
        Ok(found) => Some(found.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !config.read_only => None,
        Err(error) => return Err(failed(&error)),
    };
    if has_log && size.unwrap_or(0) == 0 {
        // SQLite would take the log for a leftover and delete it; it may hold all there is.
        let message = format!(
            "{} is {}, but its log {} is not: put the database back, or move the log away to begin a new one",
            config.shown,
            if size.is_some() { "empty" } else { "gone" },
            log.display()
        );
        return Err(coded(OP, "SQLITE_CORRUPT", message));
    }
    if let Some(size) = size
        && !has_log
        && !fs::exists(beside(&config.path, "-journal")).unwrap_or(false)
        && page_size(&config.path).is_some_and(|page| size % page != 0)
    {
        // SQLite would read zeros for what is missing of the last page.
        let message = format!(
            "{} is damaged: its end is missing; restore it from a copy, or move it away to begin a new one",
            config.shown
        );
        return Err(coded(OP, "SQLITE_CORRUPT", message));
    }
    if size.is_none() {
        let mut options = OpenOptions::new();
        match options.write(true).create_new(true).mode(config.mode).open(&config.path) {
            // Somebody else was quicker.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(&error)),
            Ok(_) => {}
        }
    }
    Ok(())
}

/// What the head of a database says about its pages (<https://www.sqlite.org/fileformat.html>, 1.3).
fn page_size(path: &Path) -> Option<u64> {
    let mut head = [0; 18];
    File::open(path).and_then(|mut file| file.read_exact(&mut head)).ok()?;
    let size = u64::from(u16::from_be_bytes([head[16], head[17]]));
    // A size that does not fit its field is written as 1.
    let size = if size == 1 { 65_536 } else { size };
    (head.starts_with(b"SQLite format 3\0") && size > 0).then_some(size)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Reads whose database it is; refuses it if it is not ours, writing nothing.
fn examine(connection: &Connection, config: &Config) -> Result<(), Error> {
    let failed = |error: rusqlite::Error| explain(OP, &config.shown, &error);
    // Without this, closing a refused database would move its log into it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(failed)?;
    connection.busy_timeout(config.busy_timeout).map_err(failed)?;
    if config.exclusive {
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(failed)?;
    }
    connection.pragma_update(None, "cell_size_check", true).map_err(failed)?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
    if !config.read_only && connection.is_readonly(MAIN_DB).map_err(failed)? {
        let message = format!("{} may not be written: allow that, or open it with read_only = true", config.shown);
        return Err(coded(OP, "SQLITE_READONLY", message));
    }
    let version = pragma(connection, "user_version").map_err(failed)?;
    let owner = pragma(connection, "application_id").map_err(failed)?;
    let is_fresh = tables == 0 && version == 0 && owner == 0;
    if let Some(wanted) = config.application_id
        && owner != i64::from(wanted)
        && !is_fresh
    {
        let message = format!(
            "{} is the database of another application (its id is {owner:#x}, not {wanted:#x}); choose another path",
            config.shown
        );
        return Err(refused("other_application", message));
    }
    if let Some(known) = config.version() {
        if version > known {
            let message = format!(
                "{} was made by a newer program (version {version}, this one knows {known}); \
                 use that program, or choose another path",
                config.shown
            );
            return Err(refused("newer_version", message));
        }
        if version < known && config.read_only {
            let message = format!(
                "{} has version {version}, and {known} is wanted; open it once without read_only to upgrade it",
                config.shown
            );
            return Err(refused("older_version", message));
        }
    }
    if config.check {
        let said: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
        if said != "ok" {
            let message = format!(
                "{} is damaged: {}; restore it from a copy, or move it away to begin a new one",
                config.shown,
                said.replace('\n', " ")
            );
            return Err(coded(OP, "SQLITE_CORRUPT", message));
        }
    }
    Ok(())
}

fn refused(code: &'static str, message: String) -> Error {
    Error::new(Kind::Io, OP, message).with_code(Code::Name(code.into()))
}

/// Sets how the connection writes.
fn prepare(connection: &Connection, config: &Config) -> rusqlite::Result<()> {
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    if config.read_only {
        return Ok(());
    }
    // Answers the mode it is in; a database in memory has no log.
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", config.synchronous)?;
    connection.query_row(&format!("PRAGMA journal_size_limit = {WAL_KEPT}"), [], |_| Ok(()))?;
    Ok(())
}

/// Runs the steps of the schema that are missing, all of them or none.
fn upgrade(connection: &Connection, config: &Config) -> Result<(), Error> {
    let failed = |error: rusqlite::Error| explain(OP, &config.shown, &error);
    if config.read_only {
        return Ok(());
    }
    let wanted = config.application_id.map_or(0, i64::from);
    let is_current = |connection: &Connection| -> rusqlite::Result<bool> {
        let version = pragma(connection, "user_version")?;
        let owner = pragma(connection, "application_id")?;
        Ok(config.version().is_none_or(|known| version >= known) && (wanted == 0 || owner == wanted))
    };
    if is_current(connection).map_err(failed)? && !config.exclusive {
        return Ok(());
    }
    // For an exclusive one also to take the lock now, and to keep it.
    connection.execute_batch("BEGIN IMMEDIATE").map_err(failed)?;
    let done = (|| {
        // Another process may have done it meanwhile.
        if is_current(connection).map_err(failed)? {
            return Ok(());
        }
        let version = pragma(connection, "user_version").map_err(failed)?;
        for (place, step) in config.schema.iter().flatten().enumerate().skip(version.max(0) as usize) {
            connection.execute_batch(step).map_err(|error| {
                let error = failed(error);
                let message = format!("step {} of the schema failed: {}", place + 1, error.message);
                Error { message: message.into(), ..error }
            })?;
        }
        if let Some(known) = config.version() {
            connection.pragma_update(None, "user_version", known).map_err(failed)?;
        }
        if let Some(id) = config.application_id {
            connection.pragma_update(None, "application_id", id).map_err(failed)?;
        }
        Ok(())
    })();
    let done = done.and_then(|()| connection.execute_batch("COMMIT").map_err(failed));
    if done.is_err() && !connection.is_autocommit() {
        // What made it fail is what is told.
        let _ = connection.execute_batch("ROLLBACK");
    }
    done
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
}
