//! The module `sqlite` under crashes and bad disks.

use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt, os::unix::fs::PermissionsExt, process::Command};

use super::{Running, checked, draw, folder, moonwire, seed};

/// Processes killed one after the other, on the same file.
const KILLS: usize = 25;

/// Eight tasks insert pairs of rows, and print a number when its pair has been answered.
const WRITER: &str = r#"
local cosocket, sqlite = require("cosocket"), require("sqlite")
local db = assert(sqlite.open("pairs.db", {
  exclusive = true, check = true, application_id = 4711,
  schema = { "CREATE TABLE one(n INTEGER PRIMARY KEY, data); CREATE TABLE two(n INTEGER PRIMARY KEY, data)" },
}))
io.stdout:setvbuf("no")
local n = assert(db:query("SELECT coalesce(max(n), 0) AS n FROM one"))[1].n
for task = 1, 8 do
  cosocket.spawn(function()
    while true do
      n = n + 1
      local mine, data = n, ("\0\xff"):rep(task * 300)
      assert(db:transaction({
        { "INSERT INTO one VALUES (?, ?)", mine, data },
        { "INSERT INTO two VALUES (?, ?)", mine, data },
      }))
      print(mine)
    end
  end)
end
"#;

/// Prints the numbers of whole pairs; anything else is an error.
const READER: &str = r#"
local sqlite = require("sqlite")
local db <close> = assert(sqlite.open("pairs.db", { exclusive = true, check = true, application_id = 4711 }))
local halves = assert(db:query([[
  SELECT n FROM one WHERE n NOT IN (SELECT n FROM two) UNION ALL SELECT n FROM two WHERE n NOT IN (SELECT n FROM one)
]]))
assert(#halves == 0, "half a transaction is there")
for _, row in ipairs(assert(db:query("SELECT one.n, one.data = two.data AS same FROM one JOIN two USING (n)"))) do
  assert(row.same == 1)
  print(row.n)
end
"#;

#[test]
fn what_was_answered_survives_a_kill_at_any_instant_and_nothing_half_does() {
    let folder = folder("sqlite_kill");
    let mut state = seed();
    let mut answered = BTreeSet::new();
    let number = |line: &String| line.parse::<u64>().unwrap();
    for _ in 0..KILLS {
        let mut writer = Running::start(moonwire(&folder, WRITER, &[]));
        for _ in 0..draw(&mut state, 60) {
            answered.insert(number(&writer.line().unwrap()));
        }
        // Somewhere between two answers.
        for _ in 0..draw(&mut state, 20_000) {
            std::hint::spin_loop();
        }
        answered.extend(writer.kill().iter().map(number));
        let found: BTreeSet<u64> =
            checked(moonwire(&folder, READER, &[])).lines().map(|line| line.parse().unwrap()).collect();
        let lost: Vec<_> = answered.difference(&found).collect();
        assert!(lost.is_empty(), "answered, and not there: {lost:?}");
    }
    assert!(!answered.is_empty());
}

#[test]
fn a_second_process_is_refused_until_the_first_has_died() {
    let folder = folder("sqlite_two");
    let mut first = Running::start(moonwire(&folder, WRITER, &[]));
    first.line().unwrap();
    let script = r#"
        local db, err = require("sqlite").open("pairs.db", { busy_timeout = 0, exclusive = arg[1] == "exclusive" })
        print(db and "open" or err.kind .. " " .. err.code .. " " .. err.message)
    "#;
    for mode in ["exclusive", "shared"] {
        let said = checked(moonwire(&folder, script, &[mode]));
        assert!(said.starts_with("io SQLITE_BUSY pairs.db is in use: "), "{said}");
        assert!(said.contains("another process"), "{said}");
    }
    first.kill();
    assert_eq!(checked(moonwire(&folder, script, &["exclusive"])), "open\n");
}

/// A command that permissions hold back even as root. (Another user might not come at a folder of root's at all.)
fn held_by_permissions(command: &Command) -> Command {
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let without: &[&str] =
        if is_root { &["setpriv", "--bounding-set=-dac_override,-dac_read_search"] } else { &["env"] };
    let mut held = Command::new(without[0]);
    held.args(&without[1..]).arg(command.get_program()).args(command.get_args());
    held.current_dir(command.get_current_dir().expect("it runs in a folder"));
    held
}

#[test]
fn a_file_or_folder_that_may_not_be_written_is_refused() {
    let folder = folder("sqlite_readonly");
    let mut writer = Running::start(moonwire(&folder, WRITER, &[]));
    writer.line().unwrap();
    writer.kill();
    checked(moonwire(&folder, READER, &[]));
    let before = fs::read(folder.join("pairs.db")).unwrap();
    let script = r#"
        local db, err = require("sqlite").open(arg[1], { application_id = 4711 })
        print(db and "open" or err.kind .. " " .. err.code .. " " .. err.message)
    "#;
    let attempt = |path: &str| {
        let command = held_by_permissions(&moonwire(&folder, script, &[path]));
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).unwrap();
        let said = checked(command);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        said
    };
    fs::set_permissions(folder.join("pairs.db"), fs::Permissions::from_mode(0o444)).unwrap();
    let said = attempt("pairs.db");
    assert!(said.starts_with("io SQLITE_") && said.contains("pairs.db"), "{said}");
    assert!(said.contains("may"), "{said}");
    let said = attempt("new.db");
    assert_eq!(said, "io EACCES cannot open new.db: permission denied\n");
    assert_eq!(fs::read(folder.join("pairs.db")).unwrap(), before);
    fs::set_permissions(folder.join("pairs.db"), fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_full_disk_is_an_error_and_what_was_there_stays() {
    let folder = folder("sqlite_full");
    fs::create_dir(folder.join("disk")).unwrap();
    let script = r#"
        local sqlite = require("sqlite")
        local function open()
          return assert(sqlite.open("disk/full.db", { schema = { "CREATE TABLE t(n INTEGER PRIMARY KEY, data)" } }))
        end
        local db = open()
        local stored, err = 0, nil
        for n = 1, 1000 do
          local ok
          ok, err = db:exec("INSERT INTO t VALUES (?, ?)", n, ("x"):rep(5000))
          if not ok then break end
          stored = n
        end
        assert(stored > 10 and stored < 1000, stored)
        print(err.kind, err.code)
        assert(err.message:find("free some space"))
        -- It can be read, and opened again although there is no room.
        for _ = 1, 2 do
          assert(assert(db:query("SELECT count(*) AS n FROM t"))[1].n == stored)
          db:close()
          db = open()
        end
        -- With room it goes on.
        assert(os.remove("disk/ballast"))
        assert(db:exec("INSERT INTO t VALUES (2000, 'more')") == 1)
        db:close()
    "#;
    moonwire(&folder, script, &[]);
    let shell =
        "mount -t tmpfs -o size=600k tmpfs disk && head -c 150k /dev/zero > disk/ballast && exec \"$0\" script.lua";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--map-root-user", "sh", "-c", shell, env!("CARGO_BIN_EXE_moonwire")]);
    let mut probe = Command::new("unshare");
    probe.args(["--mount", "--map-root-user", "mount", "-t", "tmpfs", "x", "disk"]).current_dir(&folder);
    if !probe.output().is_ok_and(|output| output.status.success()) {
        println!("skipped: a disk of one's own cannot be mounted here");
        return;
    }
    command.current_dir(&folder);
    assert_eq!(checked(command), "io\tSQLITE_FULL\n");
}
