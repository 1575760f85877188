//! The functions without mlua answer what the whole ones do, to everything.

use moonwire_runtime::{
    Runtime,
    mlua::{Lua, Value},
};

use super::samples::{Random, Shape, all, seed};
use crate::mqtt::{Version, lua};

/// Compares both in every answer: values, errors, and what is left in the buffer.
const COMPARE: &str = r#"
    local both = require "both"
    local buffer = require "cosocket".buffer

    local function show(value)
      if type(value) == "userdata" then return (tostring(value):match("[^\n]*")) end
      if type(value) ~= "table" then return ("%s %q"):format(math.type(value) or type(value), value) end
      local parts = {}
      for name, inner in pairs(value) do parts[#parts + 1] = show(name) .. "=" .. show(inner) end
      table.sort(parts)
      return "{" .. table.concat(parts, ",") .. "}"
    end

    local counts = {}
    local function compare(name, bytes, ...)
      local answers = {}
      for i, side in ipairs { both.hot, both.slow } do
        local arguments = table.pack(...)
        local held = bytes and buffer(bytes)
        if held then table.insert(arguments, 1, held) end
        local result = table.pack(pcall(side[name], table.unpack(arguments, 1, arguments.n + (held and 1 or 0))))
        for j = 1, result.n do result[j] = show(result[j]) end
        answers[i] = table.concat(result, " ", 1, result.n) .. " left " .. (held and held:take() or "")
      end
      assert(answers[1] == answers[2], ("%s\n  hot:  %q\n  slow: %q"):format(name, answers[1], answers[2]))
      counts[name] = (counts[name] or 0) + 1
    end
"#;

/// Runs a script that has `compare`, with some strings.
fn run(script: &'static str, strings: Vec<(Vec<u8>, u8)>) {
    let both = move |lua: &Lua| {
        let table = lua.create_table()?;
        table.set("hot", lua::module(lua)?)?;
        table.set("slow", lua::slow(lua)?)?;
        let list = lua.create_table()?;
        for (wire, version) in &strings {
            let pair = lua.create_table()?;
            pair.push(lua.create_string(wire)?)?;
            pair.push(*version)?;
            list.push(pair)?;
        }
        table.set("strings", list)?;
        Ok(Value::Table(table))
    };
    let runtime = Runtime::builder().module("both", both).build().unwrap();
    assert_eq!(runtime.run_source("=compare", format!("{COMPARE}{script}")).unwrap(), 0);
}

#[test]
fn every_packet_is_decoded_alike_whole_cut_damaged_and_too_large() {
    let mut random = Random::new(seed());
    let mut strings = Vec::new();
    for shape in [(0, 1), (3, 1), (9, 4)] {
        let shape = Shape { properties: shape.0, repeats: shape.1 };
        for (_, version, wire) in all(&mut random, 40, shape) {
            let mut damaged = wire.clone();
            let at = random.below(damaged.len());
            damaged[at] = random.next() as u8;
            strings.push((wire, version as u8));
            strings.push((damaged, version as u8));
        }
    }
    assert_eq!(Version::V5 as u8, 5);
    run(
        r#"
        for _, pair in ipairs(both.strings) do
          local wire, version = pair[1], pair[2]
          compare("decode", wire, version)
          compare("take_ack", wire, version)
          compare("decode", wire .. "more", version, 1000)
          compare("decode", wire:sub(1, -2), version)
          compare("decode", wire, version, #wire - 1)
          compare("decode", wire)
        end
        for _, arguments in ipairs { {}, { 3 }, { "5" }, { 5.0 }, { 5.5 }, { {} }, { 5, "x" }, { 5, -1 }, { 5, 3.0 }, { 300 } } do
          compare("decode", "\x30\x03\0\1t", table.unpack(arguments))
        end
        compare("decode", nil, "no buffer", 5)
        compare("decode", nil)
        "#,
        strings,
    );
}

#[test]
fn every_call_encodes_alike_with_right_and_wrong_arguments() {
    run(
        r##"
        local options = {
          { 5, 4, 3, "5", 5.0 },
          { "t", "a/b", "", "a/#", "\xFF", "a\0", ("x"):rep(65535), ("x"):rep(65536), 12, {}, nil },
          { "payload", "", 7, {}, nil },
          { 0, 1, 2, 3, "1", 1.0, -1, 256, {}, nil },
          { true, false, 1, nil },
          { true, false, nil },
          { 0, 1, 65535, 65536, -1, "9", {}, nil },
          { nil, {}, { topic_alias = 3 }, { content_type = "c", user_property = { { "k", "v" } } }, { nothing = 1 }, 4 },
          { nil, 20, 100000000, -1, "30", {} },
        }
        local seed = 2611221
        local function below(n)
          seed = (seed * 6364136223846793005 + 1442695040888963407)
          return (seed >> 33) % n
        end
        local sizes = { 5, 11, 5, 10, 4, 3, 8, 6, 6 }
        for _ = 1, 20000 do
          local arguments = {}
          for i = 1, 9 do
            -- Mostly what is right, which stands first.
            arguments[i] = options[i][1 + (below(4) == 0 and below(sizes[i]) or below(2))]
          end
          compare("encode_publish", "before", table.unpack(arguments, 1, 9))
        end
        for _, kind in ipairs { "puback", "pubrec", "pubrel", "pubcomp", "publish", "", 7, {} } do
          for _, id in ipairs { 0, 1, 65535, 65536, -1, "9", 9.0, {} } do
            for _, code in ipairs { 0, 0x10, 0x92, 0x80, 300, "16", {}, false } do
              for _, version in ipairs { 4, 5, 6 } do compare("encode_ack", "before", version, kind, id, code or nil) end
            end
          end
        end
        for _, filter in ipairs { "a/+", "#", "$share/g/a/#", "a", "", 12, {}, false } do
          for _, topic in ipairs { "a/b", "a", "$SYS/x", "12", 12, {}, false } do
            compare("matches", nil, filter or nil, topic or nil)
          end
        end
        assert(counts.encode_publish == 20000 and counts.encode_ack > 1000)
        "##,
        Vec::new(),
    );
}
