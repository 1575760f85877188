//! A process that has run out of descriptors.

use std::{env, process::Command};

use super::support::run;

#[test]
fn a_listener_outlives_a_lack_of_descriptors_without_spinning() {
    // The limit concerns the whole process, so the script has one of its own.
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 48 && exec \"$0\" --exact descriptors::out_of_descriptors --ignored --nocapture"])
        .arg(env::current_exe().unwrap())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "wants few descriptors: `a_listener_outlives_a_lack_of_descriptors_without_spinning` runs it"]
fn out_of_descriptors() {
    run(r#"
        local cosocket = require("cosocket")
        local listener = assert(cosocket.listen("tcp://127.0.0.1:0"))
        local address = "tcp://" .. listener:local_address()
        local clients = {}
        while true do
          local stream, err = cosocket.connect(address)
          if not stream then
            fails("connect", stream, err, "EMFILE")
            break
          end
          clients[#clients + 1] = stream
          assert(#clients < 48)
        end
        for _, open in ipairs({
          function() return cosocket.listen("tcp://127.0.0.1:0") end,
          function() return cosocket.udp() end,
          function() return cosocket.pair() end,
        }) do
          local value, err = open()
          fails("io", value, err, "EMFILE")
        end

        local accepted = {}
        cosocket.spawn("server", function()
          while true do
            local stream, err = listener:accept()
            if not stream then
              fails("closed", stream, err)
              return
            end
            accepted[#accepted + 1] = stream
          end
        end)
        local before = os.clock()
        cosocket.sleep(0.3)
        assert(os.clock() - before < 0.1, "it spins")
        equal(#accepted, 0)
        -- A deadline is still kept.
        for i = 1, 4 do clients[i]:close() end
        local began = cosocket.now()
        while #accepted < 4 and cosocket.now() - began < 5 do cosocket.sleep(0.01) end
        equal(#accepted, 4)
        for _, stream in ipairs(clients) do stream:close() end
        while #accepted < #clients and cosocket.now() - began < 5 do cosocket.sleep(0.01) end
        equal(#accepted, #clients)
        listener:close()
    "#);
}
