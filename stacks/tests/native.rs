//! The native modules under input that nobody chose. Each test prints its seed; `MOONWIRE_SEED` sets it.

use std::{env, time::SystemTime};

/// Runs `script` with a seed and a few helpers for random input.
fn run(script: &str) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock after 1970");
    let seed = match env::var("MOONWIRE_SEED") {
        Ok(text) => text.parse().expect("MOONWIRE_SEED is a number"),
        Err(_) => now.subsec_nanos(),
    };
    println!("MOONWIRE_SEED={seed}");
    let runtime = moonwire::builder().build().expect("a runtime");
    let outcome = runtime.run_source("script", format!("math.randomseed({seed})\n{HELPERS}\n{script}"));
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

const HELPERS: &str = r#"
local function bytes(max)
  local made = {}
  for i = 1, math.random(0, max) do made[i] = string.char(math.random(0, 255)) end
  return table.concat(made)
end

local function pick(list) return list[math.random(#list)] end

-- A value, or nil and an error with its three fields.
local function check(op, value, err)
  if value == nil then
    assert(type(err) == "table" and type(err.kind) == "string", op)
    assert(err.op == op and #err.message > 0, op)
  end
  return value
end
"#;

const VALUES: &str = r#"
local json = require("json")

local function text()
  local made = {}
  for i = 1, math.random(0, 8) do
    made[i] = utf8.char(pick { math.random(0, 0x7f), math.random(0x80, 0xd7ff), math.random(0xe000, 0x10ffff) })
  end
  return table.concat(made)
end

local function float()
  local value
  repeat value = string.unpack("d", string.pack("i8", math.random(0))) until value == value and math.abs(value) ~= 1 / 0
  return value
end

local function value(depth)
  local kind = math.random(depth > 0 and 8 or 6)
  if kind == 1 then return json.null end
  if kind == 2 then return pick { true, false } end
  if kind == 3 then return math.random(0) end
  if kind == 4 then return float() end
  if kind == 5 then return text() end
  if kind == 6 then return math.random(-10, 10) end
  local made = {}
  if kind == 7 then
    for i = 1, math.random(0, 6) do made[i] = value(depth - 1) end
    return json.array(made)
  end
  for _ = 1, math.random(0, 6) do made[text()] = value(depth - 1) end
  return made
end

local function same(one, other)
  if type(one) ~= "table" or type(other) ~= "table" then
    return math.type(one) == math.type(other) and one == other
  end
  if json.is_array(one) ~= json.is_array(other) then return false end
  for key, item in pairs(one) do if not same(item, other[key]) then return false end end
  for key in pairs(other) do if one[key] == nil then return false end end
  return true
end
"#;

#[test]
fn random_values_come_back_from_json_the_same() {
    run(&format!(
        "{VALUES}{}",
        r#"
        for _ = 1, 3000 do
          local one = value(5)
          local indent = math.random(0, 3)
          local text = assert(json.encode(one, { indent = indent }))
          local back = check("json.decode", json.decode(text))
          assert(same(one, back), text)
          assert(json.encode(back, { indent = indent }) == text, text)
        end
        "#
    ));
}

#[test]
fn damaged_json_is_an_error_or_a_value_that_comes_back() {
    run(&format!(
        "{VALUES}{}",
        r#"
        local good, bad = 0, 0
        for _ = 1, 5000 do
          local text = assert(json.encode(value(4)))
          for _ = 1, math.random(3) do
            local at = math.random(0, #text)
            local put = pick { "", bytes(2), '"', "[", "]", "{", "}", ",", ":", "-", "9", "e", "\\", "\\ud800" }
            text = text:sub(1, at) .. put .. text:sub(at + math.random(0, 2))
          end
          local found = check("json.decode", json.decode(text))
          if found == nil then
            bad = bad + 1
          else
            good = good + 1
            assert(same(check("json.decode", json.decode(assert(json.encode(found)))), found), text)
          end
        end
        assert(good > 50 and bad > 50, good)
        "#
    ));
}

#[test]
fn random_bytes_break_no_decoder() {
    run(r#"
        local base64, hex, json, url = require("base64"), require("hex"), require("json"), require("url")
        local cosocket = require("cosocket")
        for _ = 1, 20000 do
          local input = bytes(24)
          local either = pick { input, cosocket.buffer(input) }
          check("json.decode", json.decode(either))
          check("url.parse", url.parse(input))
          check("url.parse", url.parse("http://" .. input))
          check("url.parse", url.parse("mqtt://" .. input))
          check("url.join", url.join("http://a/b?c", input))
          check("url.parse_query", url.parse_query(either))
          check("url.decode", url.decode(either))
          assert(url.decode(url.encode(input)) == input)
          local data = check("hex.decode", hex.decode(either))
          assert(not data or hex.encode(data) == input:lower())
          local options = { url = pick { true, false }, padding = pick { true, false } }
          data = check("base64.decode", base64.decode(either, options))
          assert(not data or base64.encode(data, options) == input)
        end
    "#);
}

#[test]
fn what_looks_like_base64_decodes_only_if_it_is_what_would_be_encoded() {
    run(r#"
        local base64 = require("base64")
        local letters, good = "ABab01+/-_==", 0
        for _ = 1, 20000 do
          local made = {}
          for i = 1, math.random(0, 9) do
            local at = math.random(#letters)
            made[i] = letters:sub(at, at)
          end
          local text = table.concat(made)
          for _, options in ipairs { {}, { url = true }, { padding = false }, { url = true, padding = true } } do
            local data = check("base64.decode", base64.decode(text, options))
            if data then
              good = good + 1
              assert(base64.encode(data, options) == text, text)
            end
          end
        end
        assert(good > 100, good)
    "#);
}

#[test]
fn random_calls_answer_or_raise_and_never_panic() {
    run(r#"
        local cosocket, crypto, json = require("cosocket"), require("crypto"), require("json")
        local functions = {}
        for _, name in ipairs { "json", "base64", "hex", "crypto", "url" } do
          local names = {}
          for member, value in pairs(require(name)) do
            if type(value) == "function" then names[#names + 1] = member end
          end
          table.sort(names)
          for _, member in ipairs(names) do functions[#functions + 1] = require(name)[member] end
        end
        local loop = {}
        loop[1], loop.x = loop, loop
        local made = {
          function() return nil end,
          function() return pick { true, false } end,
          function() return math.random(-2, 200) end,
          function() return pick { math.maxinteger, math.mininteger, 0 / 0, 1 / 0, 0.5, 1e300 } end,
          function() return bytes(12) end,
          function() return pick { "sha1", "sha256", "sha512", "md5", "http://a/b", "{}", "" } end,
          function() return cosocket.buffer(bytes(5)) end,
          function() return {} end,
          function() return { bytes(3), { bytes(2), 1 }, a = 1, [bytes(2)] = bytes(2) } end,
          function() return { { "a", bytes(2) }, { 1, 2 } } end,
          function() return { url = pick { true, 1 }, indent = math.random(-1, 20) } end,
          function() return { depth_max = math.random(0, 3), size_max = math.random(-1, 9) } end,
          function() return loop end,
          function() return pick { print, coroutine.create(print), io.stdout, json.null, crypto.new_digest("md5") } end,
        }
        local answered = 0
        for _ = 1, 50000 do
          local call = pick(functions)
          local ok, err = pcall(call, pick(made)(), pick(made)(), pick(made)(), pick(made)(), pick(made)())
          if ok then answered = answered + 1 end
          assert(ok or not tostring(err):find("panic"), err)
        end
        assert(answered > 1000, answered)
    "#);
}

#[test]
fn a_finaliser_may_use_the_buffer_that_is_being_decoded() {
    run(r#"
        local cosocket, json = require("cosocket"), require("json")
        local buffer, seen = cosocket.buffer("[" .. ('{"a":[1,"two"]},'):rep(5000) .. "1]"), 0
        for _ = 1, 200 do
          for _ = 1, 20 do setmetatable({}, { __gc = function() seen = seen + #buffer + #buffer:peek(3) end }) end
          local before = seen
          assert(#json.decode(buffer) == 5001)
          if seen > before then return end
        end
        error("no finaliser ran while decoding")
    "#);
}
