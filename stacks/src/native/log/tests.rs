//! What scripts say, and the bytes that come out.

use std::{cell::RefCell, rc::Rc};

use mlua::Lua;
use moonwire_runtime::mlua;
use time::{Date, Month, OffsetDateTime, Time};

use super::{Level, Log, Look, Setup, logger};

/// What `script` logs, where `log` is the module.
fn logged(level: Level, settings: &str, colour: bool, script: &str) -> String {
    looking(level, settings, Look { colour, lines: false }, script)
}

/// The same, as it looks there.
fn looking(level: Level, settings: &str, look: Look, script: &str) -> String {
    let lines = Rc::new(RefCell::new(Vec::new()));
    let taken = Rc::clone(&lines);
    let sink = Box::new(move |line: &[u8]| taken.borrow_mut().extend(line));
    let log = Log::new(Setup { level, settings, look, now, sink });
    let lua = Lua::new();
    let module = logger(&lua, Rc::new(log), None).expect("a logger");
    lua.globals().set("log", module).expect("a global");
    lua.globals().set("null", mlua::Value::NULL).expect("a global");
    lua.load(script).exec().expect(script);
    String::from_utf8(lines.take()).expect("UTF-8")
}

/// The text and fields of one record, as they are written.
fn shown(call: &str) -> String {
    let line = logged(Level::Info, "", false, &format!("log.info({call})"));
    let line = line.strip_prefix("2026-11-22T19:51:03.007Z INFO  ").expect("the time and level");
    let line = line.strip_suffix('\n').expect("the end of a line");
    assert!(!line.contains('\n'));
    line.to_owned()
}

fn now() -> OffsetDateTime {
    let date = Date::from_calendar_date(2026, Month::November, 22).expect("a date");
    OffsetDateTime::new_utc(date, Time::from_hms_milli(19, 51, 3, 7).expect("a time"))
}

#[test]
fn a_record_says_when_how_grave_who_what_and_with_which_values() {
    let line = logged(Level::Info, "", false, "log.new('mqtt').warn('lost', { tries = 3, after = 1.5, host = 'a b' })");
    assert_eq!(line, "2026-11-22T19:51:03.007Z WARN  mqtt: lost after=1.5 host=\"a b\" tries=3\n");
}

#[test]
fn only_what_is_as_grave_as_the_level_is_written() {
    let all = "for _, level in ipairs { 'error', 'warn', 'info', 'debug', 'trace' } do log[level](level) end";
    let levels = [Level::Off, Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];
    for (count, level) in levels.into_iter().enumerate() {
        assert_eq!(logged(level, "", false, all).lines().count(), count, "{level:?}");
    }
}

#[test]
fn the_environment_sets_the_common_level_and_those_of_names() {
    let script = "for _, name in ipairs { 'mqtt', 'mqtt.session', 'mqttx', 'http' } do log.new(name).debug('x') end
        log.debug('no'); log.info('yes')";
    let lines = logged(Level::Warn, "info,mqtt=debug,mqtt.session=off", false, script);
    let said: Vec<_> = lines.lines().map(|line| line.split_once(' ').expect("a time").1).collect();
    assert_eq!(said, ["DEBUG mqtt: x", "INFO  yes"]);
}

#[test]
fn a_name_takes_the_level_of_what_stands_before_its_last_dot() {
    let script = "local parent, child = log.new('a'), log.new('a.b.c')
        child.info('no'); parent.level('info'); child.info('yes'); child.level('error'); child.info('no')
        log.level('trace'); parent.debug('no'); log.new('b').trace('yes')";
    assert_eq!(logged(Level::Warn, "", false, script).matches("yes").count(), 2);
    assert_eq!(logged(Level::Warn, "", false, script).matches("no").count(), 0);
}

#[test]
fn an_unknown_word_in_the_environment_is_named_once_and_ignored() {
    let lines = logged(Level::Warn, "dbug,mqtt=error", false, "log.warn('x')");
    let said: Vec<_> = lines.lines().map(|line| line.split_once(' ').expect("a time").1).collect();
    assert_eq!(said, ["WARN  log: MOONWIRE_LOG: unknown level \"dbug\"; did you mean \"debug\"?", "WARN  x"]);
}

#[test]
fn levels_are_asked_and_set_by_name() {
    let script = "assert(log.level() == 'warn'); assert(log.level('debug') == 'debug'); assert(log.enabled('debug'))
        assert(not log.enabled('trace')); assert(log.new('x').level() == 'debug'); assert(log.level('OFF') == 'off')
        assert(not log.enabled('error'))
        local ok, err = pcall(log.level, 'inof')
        assert(not ok and tostring(err):find('unknown level \"inof\"; did you mean \"info\"?', 1, true), tostring(err))
        assert(not pcall(log.enabled, 'loud') and not pcall(log.level, 5) and not pcall(log.new))";
    assert_eq!(logged(Level::Warn, "", false, script), "");
}

#[test]
fn a_record_stays_one_line_and_does_not_speak_to_the_terminal() {
    assert_eq!(shown(r"'a\nb\r\27[31m\0\127é'"), r"a\nb\r\u{1b}[31m\u{0}\u{7f}é");
    assert_eq!(shown(r"'\u{85}\u{2028}\u{202e}'"), r"\u{85}\u{2028}\u{202e}");
    assert_eq!(shown(r"'x', { v = 'a\nb', w = '\255\254' }"), r#"x v="a\nb" w="\xff\xfe""#);
    assert_eq!(shown(r"'x', { ['a\nb'] = 1, ['c d'] = 2 }"), r#"x "a\nb"=1 "c d"=2"#);
    let named = logged(Level::Info, "", false, "log.new('a\\nb').info('x')");
    assert_eq!(named, "2026-11-22T19:51:03.007Z INFO  a\\nb: x\n");
}

#[test]
fn on_a_terminal_the_lines_of_a_text_are_lines_and_none_looks_like_a_record() {
    let shown = |script| looking(Level::Info, "", Look { colour: false, lines: true }, script);
    assert_eq!(
        shown(r"log.error('broken\nstack traceback:\n\tin a\n2026-11-22 no record\27[31m')"),
        "2026-11-22T19:51:03.007Z ERROR broken\n    stack traceback:\n      in a\n    2026-11-22 no record\\u{1b}[31m\n"
    );
    assert_eq!(
        shown(r"log.info('x', { traceback = 'one\ntwo', word = 1 })"),
        "2026-11-22T19:51:03.007Z INFO  x traceback=one\n    two word=1\n"
    );
    let long = shown(r"log.info(('line\n'):rep(10000))");
    assert!(long.len() < 10_000 && long.ends_with("... (50000 bytes)\n"), "{}", long.len());
}

#[test]
fn values_are_quoted_when_they_are_not_one_word() {
    let call = r#"'x', { a = '', b = 'one', c = 'two words', d = 'say "hi"', e = 'k=v', f = true, g = null, h = -1, i = [[a\b]] }"#;
    assert_eq!(shown(call), r#"x a="" b=one c="two words" d="say \"hi\"" e="k=v" f=true g=null h=-1 i="a\\b""#);
}

#[test]
fn tables_speak_for_themselves_or_are_shown_as_json() {
    let error = "setmetatable({}, { __tostring = function() return 'connect: refused' end })";
    assert_eq!(shown(&format!("{error}, {{ err = {error} }}")), "connect: refused err=\"connect: refused\"");
    assert_eq!(shown("'x', { list = { 1, { a = 2 } } }"), r#"x list="[1,{\"a\":2}]""#);
    let broken = "setmetatable({}, { __tostring = function() error('no') end })";
    assert_eq!(shown(&format!("'x', {{ v = {broken} }}")), "x v=table");
    assert!(shown("'x', { v = { print } }").starts_with("x v=\"table: 0x"));
    assert!(shown("nil").starts_with("nil"));
}

#[test]
fn long_texts_and_many_fields_are_cut() {
    let line = shown("('x'):rep(1000000), { v = ('y'):rep(1000000) }");
    assert!(line.len() < 10_000, "{}", line.len());
    assert!(line.contains("xxx... (1000000 bytes) v=\"yyy"));
    assert!(line.ends_with("yyy... (1000000 bytes)\""));
    let many = "local many = {} for i = 1, 1000 do many['k' .. i] = i end log.info('x', many)";
    assert_eq!(logged(Level::Info, "", false, many).matches('=').count(), 65);
}

#[test]
fn colours_are_codes_around_the_same_words() {
    let script = "log.new('mqtt').error('x', { a = 1 })";
    let (plain, colour) = (logged(Level::Info, "", false, script), logged(Level::Info, "", true, script));
    assert!(colour.contains("\x1b[31mERROR\x1b[0m"), "{colour:?}");
    let mut stripped = String::new();
    for (index, part) in colour.split('\x1b').enumerate() {
        stripped.push_str(if index == 0 { part } else { part.split_once('m').expect("a code").1 });
    }
    assert_eq!(stripped, plain);
}

#[test]
fn what_is_off_is_not_even_looked_at() {
    let script = "local loud = setmetatable({}, { __tostring = function() error('asked') end })
        log.debug(loud, { loud })";
    assert_eq!(logged(Level::Info, "", false, script), "");
}

#[test]
fn wrong_arguments_raise() {
    let script = "assert(not pcall(log.info, 'x', 5)); assert(not pcall(log.info, 'x', 'y'))";
    assert_eq!(logged(Level::Info, "", false, script), "");
}
