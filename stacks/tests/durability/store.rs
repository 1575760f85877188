//! `mqtt.store`, the journal of a session, under crashes.

use std::collections::BTreeMap;

use super::{Running, checked, draw, folder, moonwire, seed};

/// Processes killed one after the other, on the same file.
const KILLS: usize = 25;
/// What becomes of a message, in order: added, sent, released, removed.
const REMOVED: u64 = 3;

/// Sixteen tasks lead messages through their lives, and print "message step" when a step is committed.
const WRITER: &str = r#"
local cosocket, store = require("cosocket"), require("mqtt.store")
io.stdout:setvbuf("no")
local journal = assert(store.open("session.db", "killed"))
journal:load()
journal:identify("killed")
local seq = tonumber(arg[1])
for task = 1, 16 do
  cosocket.spawn(function()
    while true do
      seq = seq + 1
      local mine = seq
      journal:add({
        seq = mine, topic = "t", payload = ("\0\xff" .. mine):rep(mine % 100), qos = 2, retain = mine % 2 == 0,
        properties = { correlation_data = "\0" .. mine, user_property = { { "n", tostring(mine) } } },
      })
      journal:received(mine)
      assert(journal:commit())
      print(mine, 0)
      journal:sent(mine, mine % 65535 + 1)
      assert(journal:commit())
      print(mine, 1)
      journal:released(mine)
      assert(journal:commit())
      print(mine, 2)
      -- Some stay.
      if mine % 5 > 0 then
        journal:remove(mine)
        journal:forget(mine)
        assert(journal:commit())
        print(mine, 3)
      end
    end
  end)
end
"#;

/// Prints "message step" for each message that is there, having looked at all of it.
const READER: &str = r#"
local journal = assert(require("mqtt.store").open("session.db", "killed"))
local kept = journal:load()
local steps = { waiting = 0, sent = 1, released = 2 }
local received = {}
for _, id in ipairs(kept.received) do received[id] = true end
local last = 0
for _, one in ipairs(kept.outgoing) do
  local n, step = one.seq, steps[one.state]
  assert(n > last)
  last = n
  -- What was noted together is there together.
  assert(received[n], "the message is there, and its identifier is not")
  received[n] = nil
  assert(one.packet_id == (step > 0 and n % 65535 + 1 or nil))
  assert(one.payload == (step < 2 and ("\0\xff" .. n):rep(n % 100) or ""))
  assert(one.retain == (n % 2 == 0) and one.qos == 2 and one.topic == "t")
  if step < 2 then
    assert(one.properties.correlation_data == "\0" .. n and one.properties.user_property[1][2] == tostring(n))
  end
  print(n, step)
end
assert(next(received) == nil, "an identifier is there, and its message is not")
assert(journal.client_id == "killed" or last == 0)
journal:close()
"#;

fn told(line: &str) -> (u64, u64) {
    let (message, step) = line.split_once('\t').unwrap();
    (message.parse().unwrap(), step.parse().unwrap())
}

#[test]
fn a_session_resumes_where_its_last_commits_left_it_whenever_it_is_killed() {
    let folder = folder("store_kill");
    let mut state = seed();
    // The last step of each message that was said to be safe.
    let mut safe: BTreeMap<u64, u64> = BTreeMap::new();
    let mut first = 0;
    for _ in 0..KILLS {
        let mut writer = Running::start(moonwire(&folder, WRITER, &[&first.to_string()]));
        for _ in 0..draw(&mut state, 150) {
            let (message, step) = told(&writer.line().unwrap());
            safe.insert(message, step);
        }
        for _ in 0..draw(&mut state, 20_000) {
            std::hint::spin_loop();
        }
        safe.extend(writer.kill().iter().map(|line| told(line)));
        let out = checked(moonwire(&folder, READER, &[]));
        let found: BTreeMap<u64, u64> = out.lines().map(told).collect();
        for (&message, &step) in &safe {
            let there = found.get(&message).copied().unwrap_or(REMOVED);
            // The next step may have been committed without a word.
            assert!(there == step || there == step + 1, "message {message}: step {step} was safe, {there} is there");
        }
        for (&message, &step) in &found {
            assert!(step == 0 || safe.contains_key(&message), "message {message} went on before it was safe");
        }
        first = found.keys().chain(safe.keys()).max().copied().unwrap_or(first) + 100;
        // What is there now is where the next process finds it.
        safe.iter_mut().for_each(|(message, step)| *step = found.get(message).copied().unwrap_or(REMOVED));
        safe.extend(found);
    }
    assert!(safe.values().any(|&step| step == REMOVED) && safe.values().any(|&step| step < REMOVED));
}

#[test]
fn two_processes_cannot_have_a_session_at_the_same_time() {
    let folder = folder("store_two");
    let mut first = Running::start(moonwire(&folder, WRITER, &["0"]));
    first.line().unwrap();
    let script = r#"
        local journal, err = require("mqtt.store").open("session.db")
        print(journal and "open" or err.op .. " " .. err.code .. ": " .. err.message)
    "#;
    let said = checked(moonwire(&folder, script, &[]));
    assert!(said.starts_with("mqtt.store SQLITE_BUSY: session.db is in use"), "{said}");
    first.kill();
    assert_eq!(checked(moonwire(&folder, script, &[])), "open\n");
}
