//! The thread of a database: one job after the other, and one commit for all that wait.
//!
//! Jobs that were queued while a commit was under way are put into one transaction, each in a savepoint of its
//! own, so that one that fails does not undo the others; they are answered when it is on the disk. A transaction that
//! SQLite itself rolls back (a full disk) is done again, job by job, so that each hears of its own fate.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
    mpsc::Receiver,
};

use mlua::{Integer, Lua, Value};
use moonwire_runtime::{
    Error, Kind,
    blocking::Promise,
    mlua::{self, IntoLua},
};
use rusqlite::{Batch, Connection, Statement as Prepared, fallible_iterator::FallibleIterator};

use super::{
    error::explain,
    open::Opened,
    options::Config,
    value::{Datum, Rows},
};

/// Jobs that share one commit.
const BATCH_MAX: usize = 1024;

/// What a script asks for.
pub(super) enum Job {
    Run { statements: Vec<Statement>, shape: Shape, promise: Promise },
    Close(Promise),
}

/// SQL and its values.
pub(super) struct Statement {
    pub(super) sql: Arc<str>,
    pub(super) values: Vec<Datum>,
    /// Whether there must be as many values as the SQL wants; else the missing ones are NULL.
    pub(super) exact: bool,
}

/// How an answer looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// The number of changed rows.
    Exec,
    /// A list of rows.
    Query,
    /// A list with either for each statement.
    Transaction,
}

/// What a statement came to.
enum Outcome {
    Changed(u64),
    Rows(Rows),
}

/// A job that waits for its answer.
struct Pending {
    statements: Vec<Statement>,
    shape: Shape,
    promise: Promise,
    /// What it came to, as soon as it has been run.
    result: Option<Result<Vec<Outcome>, Error>>,
}

/// A thread's life: until the script closes the database, or has let go of it.
pub(super) fn run(opened: Opened, config: &Config, jobs: &Receiver<Job>, waiting: &AtomicUsize) {
    let mut worker = Worker { opened, config };
    while let Ok(first) = jobs.recv() {
        let mut batch = Vec::new();
        let mut closing = None;
        for job in std::iter::once(first).chain(jobs.try_iter()) {
            match job {
                Job::Run { statements, shape, promise } => {
                    waiting.fetch_sub(1, Ordering::Relaxed);
                    batch.push(Pending { statements, shape, promise, result: None });
                }
                Job::Close(promise) => closing = Some(promise),
            }
            if batch.len() == BATCH_MAX || closing.is_some() {
                break;
            }
        }
        worker.work_off(batch);
        if let Some(promise) = closing {
            let path = config.shown.clone();
            let closed = worker.opened.connection.close();
            let closed = closed.map_err(|(_, error)| explain(promise.op(), &path, &error));
            promise.keep(move |_| Ok(closed.map(|()| true)));
            return;
        }
    }
}

struct Worker<'a> {
    opened: Opened,
    config: &'a Config,
}

impl Worker<'_> {
    /// Does all jobs of a batch, in order, and answers them.
    fn work_off(&mut self, batch: Vec<Pending>) {
        let mut group: Vec<Pending> = Vec::new();
        for job in batch {
            if is_alone(&job) {
                self.run_group(std::mem::take(&mut group));
                self.run_plain(job);
            } else {
                group.push(job);
            }
        }
        self.run_group(group);
    }

    /// Runs jobs that may share a transaction.
    fn run_group(&mut self, mut group: Vec<Pending>) {
        let writes = !self.config.read_only && group.iter().any(|job| self.may_write(job));
        if !writes {
            group.into_iter().for_each(|job| self.run_plain(job));
            return;
        }
        if let Err(again) = self.try_group(&mut group) {
            // The transaction is gone: what was not the cause is done by itself.
            for mut job in group {
                if again || job.result.is_none() {
                    job.result = None;
                    let mut alone = vec![job];
                    let _ = self.try_group(&mut alone);
                    alone.into_iter().for_each(|job| self.answer(job));
                } else {
                    self.answer(job);
                }
            }
            return;
        }
        group.into_iter().for_each(|job| self.answer(job));
    }

    /// Runs jobs in one transaction. When it comes to nothing, those jobs without a result are to be done again,
    /// or all of them (`Err(true)`).
    fn try_group(&mut self, group: &mut [Pending]) -> Result<(), bool> {
        let is_alone = group.len() == 1;
        if let Err(error) = self.control("BEGIN IMMEDIATE") {
            for job in group {
                job.result = Some(Err(explain(job.promise.op(), &self.config.shown, &error)));
            }
            return Ok(());
        }
        for place in 0..group.len() {
            let result = self.run_job(&group[place], is_alone);
            let failed = result.is_err();
            group[place].result = Some(result);
            if failed && (is_alone || self.opened.connection.is_autocommit()) {
                self.roll_back();
                for other in group.iter_mut().take(place) {
                    // It was well, and was undone with the transaction.
                    if matches!(other.result, Some(Ok(_))) {
                        other.result = None;
                    }
                }
                return if is_alone { Ok(()) } else { Err(false) };
            }
        }
        match self.control("COMMIT") {
            Ok(()) => Ok(()),
            Err(error) => {
                self.roll_back();
                if !is_alone {
                    return Err(true);
                }
                for job in group {
                    job.result = Some(Err(explain(job.promise.op(), &self.config.shown, &error)));
                }
                Ok(())
            }
        }
    }

    /// Runs one job of a transaction; when it fails, what it did is undone.
    fn run_job(&self, job: &Pending, is_alone: bool) -> Result<Vec<Outcome>, Error> {
        let failed = |error: rusqlite::Error| explain(job.promise.op(), &self.config.shown, &error);
        if is_alone {
            return self.run_statements(job);
        }
        self.control("SAVEPOINT job").map_err(failed)?;
        let result = self.run_statements(job);
        if self.opened.connection.is_autocommit() {
            return result;
        }
        if result.is_err() {
            self.control("ROLLBACK TO job").map_err(failed)?;
        }
        self.control("RELEASE job").map_err(failed)?;
        result
    }

    /// Runs a job outside of a transaction, and answers it.
    fn run_plain(&self, mut job: Pending) {
        let vacuums = job.statements.iter().any(|one| first_word(&one.sql).eq_ignore_ascii_case(VACUUM));
        self.opened.ours.store(vacuums, Ordering::Relaxed);
        job.result = Some(self.run_statements(&job));
        self.opened.ours.store(false, Ordering::Relaxed);
        // What followed a VACUUM may have begun one.
        self.roll_back();
        self.answer(job);
    }

    fn run_statements(&self, job: &Pending) -> Result<Vec<Outcome>, Error> {
        let op = job.promise.op();
        let mut outcomes = Vec::with_capacity(job.statements.len());
        let mut room = self.config.result_max;
        for (place, statement) in job.statements.iter().enumerate() {
            match self.run_statement(op, statement, job.shape, &mut room) {
                Ok(outcome) => outcomes.push(outcome),
                Err(error) if job.shape == Shape::Transaction => {
                    let message = format!("statement {}: {}", place + 1, error.message);
                    return Err(Error { message: message.into(), ..error });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(outcomes)
    }

    fn run_statement(
        &self,
        op: &'static str,
        statement: &Statement,
        shape: Shape,
        room: &mut usize,
    ) -> Result<Outcome, Error> {
        let failed = |error: rusqlite::Error| explain(op, &self.config.shown, &error);
        let connection = &self.opened.connection;
        let before = connection.total_changes();
        if code(&statement.sql).is_empty() && statement.values.is_empty() {
            return Ok(if shape == Shape::Query { Outcome::Rows(Rows::default()) } else { Outcome::Changed(0) });
        }
        let mut prepared = match connection.prepare_cached(&statement.sql) {
            Ok(prepared) => prepared,
            Err(_) if statement.values.is_empty() && shape == Shape::Exec => {
                return self.run_several(op, &statement.sql).map(Outcome::Changed);
            }
            Err(error) => return Err(failed(error)),
        };
        let wanted = prepared.parameter_count();
        let given = statement.values.len();
        if given > wanted || (statement.exact && given < wanted) {
            return Err(failed(rusqlite::Error::InvalidParameterCount(given, wanted)));
        }
        for (place, value) in statement.values.iter().enumerate() {
            prepared.raw_bind_parameter(place + 1, value).map_err(failed)?;
        }
        if shape == Shape::Exec || prepared.column_count() == 0 {
            step_through(&mut prepared).map_err(failed)?;
            drop(prepared);
            return Ok(match shape {
                Shape::Query => Outcome::Rows(Rows::default()),
                _ => Outcome::Changed(changes_since(connection, before)),
            });
        }
        self.collect(op, &mut prepared, room).map(Outcome::Rows)
    }

    /// Runs SQL of several statements without values, such as a schema; answers how many rows they changed.
    fn run_several(&self, op: &'static str, sql: &str) -> Result<u64, Error> {
        let failed = |error: rusqlite::Error| explain(op, &self.config.shown, &error);
        let connection = &self.opened.connection;
        let mut sum = 0;
        let mut batch = Batch::new(connection, sql);
        while let Some(mut prepared) = batch.next().map_err(failed)? {
            let before = connection.total_changes();
            step_through(&mut prepared).map_err(failed)?;
            drop(prepared);
            sum += changes_since(connection, before);
        }
        Ok(sum)
    }

    fn collect(&self, op: &'static str, prepared: &mut Prepared<'_>, room: &mut usize) -> Result<Rows, Error> {
        let failed = |error: rusqlite::Error| explain(op, &self.config.shown, &error);
        let columns: Vec<Box<str>> = prepared.column_names().map(Into::into).collect();
        let mut cells = Vec::new();
        let mut rows = prepared.raw_query();
        while let Some(row) = rows.next().map_err(failed)? {
            for place in 0..columns.len() {
                let cell = Datum::copy(row.get_ref(place).map_err(failed)?);
                *room = room.checked_sub(cell.size()).ok_or_else(|| {
                    let message = format!(
                        "the result is larger than {} bytes: ask for less with LIMIT, or raise result_max",
                        self.config.result_max
                    );
                    Error::new(Kind::Limit, op, message)
                })?;
                cells.push(cell);
            }
        }
        Ok(Rows { columns, cells })
    }

    /// Whether a job changes anything. What cannot be prepared yet, because an earlier job makes its table, may.
    fn may_write(&self, job: &Pending) -> bool {
        job.statements.len() != 1
            || job.statements.iter().any(|statement| {
                !self.opened.connection.prepare_cached(&statement.sql).is_ok_and(|prepared| prepared.readonly())
            })
    }

    /// Runs one of our own statements about transactions.
    fn control(&self, sql: &str) -> rusqlite::Result<()> {
        self.opened.ours.store(true, Ordering::Relaxed);
        let done = self.opened.connection.prepare_cached(sql).and_then(|mut prepared| step_through(&mut prepared));
        self.opened.ours.store(false, Ordering::Relaxed);
        done
    }

    fn roll_back(&self) {
        if !self.opened.connection.is_autocommit() {
            // What made it necessary is what is told.
            let _ = self.control("ROLLBACK");
        }
    }

    fn answer(&self, job: Pending) {
        let shape = job.shape;
        let op = job.promise.op();
        let result = job.result.unwrap_or_else(|| Err(Error::new(Kind::Io, op, "the job was not done")));
        job.promise.keep(move |lua| match result {
            Ok(outcomes) => shaped(lua, shape, outcomes).map(Ok),
            Err(error) => Ok(Err(error)),
        });
    }
}

/// Whether a job is one that SQLite refuses in a transaction, or that would have no effect there.
fn is_alone(job: &Pending) -> bool {
    let [statement] = &job.statements[..] else { return false };
    let word = first_word(&statement.sql);
    ["PRAGMA", VACUUM, "ATTACH", "DETACH"].iter().any(|alone| word.eq_ignore_ascii_case(alone))
}

/// What begins and ends transactions of its own.
const VACUUM: &str = "VACUUM";

/// SQL behind white space, comments and empty statements.
fn code(sql: &str) -> &str {
    let blank = |letter: char| letter.is_whitespace() || letter == ';';
    let mut rest = sql.trim_start_matches(blank);
    loop {
        let after = if rest.starts_with("--") {
            rest.split_once('\n').map(|(_, after)| after)
        } else if rest.starts_with("/*") {
            rest.split_once("*/").map(|(_, after)| after)
        } else {
            return rest;
        };
        rest = after.unwrap_or_default().trim_start_matches(blank);
    }
}

fn first_word(sql: &str) -> &str {
    let code = code(sql);
    let end = code.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(code.len());
    &code[..end]
}

/// Runs a statement to its end; rows that it answers are passed over.
fn step_through(prepared: &mut Prepared<'_>) -> rusqlite::Result<()> {
    let mut rows = prepared.raw_query();
    while rows.next()?.is_some() {}
    Ok(())
}

/// Rows that the last statement changed; statements that change none leave the count of an earlier one.
fn changes_since(connection: &Connection, before: u64) -> u64 {
    if connection.total_changes() == before { 0 } else { connection.changes() }
}

fn shaped(lua: &Lua, shape: Shape, mut outcomes: Vec<Outcome>) -> mlua::Result<Value> {
    if shape != Shape::Transaction {
        return outcomes.pop().map_or(Ok(Value::Nil), |outcome| outcome.into_lua(lua));
    }
    let list = lua.create_table_with_capacity(outcomes.len(), 0)?;
    for outcome in outcomes {
        list.raw_push(outcome)?;
    }
    Ok(Value::Table(list))
}

impl IntoLua for Outcome {
    fn into_lua(self, lua: &Lua) -> mlua::Result<Value> {
        match self {
            Outcome::Changed(count) => Ok(Value::Integer(count as Integer)),
            Outcome::Rows(rows) => rows.into_table(lua).map(Value::Table),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_stands_behind_comments() {
        assert_eq!(first_word("  vacuum;"), "vacuum");
        assert_eq!(first_word("-- a\n /* b */ PRAGMA x = 1"), "PRAGMA");
        assert_eq!(first_word(";; -- a\n; select(1)"), "select");
        assert_eq!(code("1 + 1"), "1 + 1");
        assert_eq!(first_word("--"), "");
        assert_eq!(first_word("/* not ended"), "");
        assert_eq!(first_word(""), "");
    }
}
