//! MQTT over real sockets: TLS and unix sockets, client against the development broker in one process.

use std::{env, fs, path::PathBuf, process};

use rcgen::{CertifiedKey, generate_simple_self_signed};

/// A folder of this test's own, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("moonwire-mqtt-{name}-{}", process::id()));
        fs::create_dir_all(&path).expect("a folder for the test");
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_string_lossy().into_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left behind does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn run(script: &str, arguments: &[String]) {
    let runtime = moonwire::builder().arguments("test", arguments.iter().cloned()).build().expect("a runtime");
    if let Err(error) = runtime.run_source("test", script) {
        panic!("{error}");
    }
}

#[test]
fn a_large_message_crosses_tls_both_ways_and_an_unknown_authority_is_refused() {
    let folder = Folder::new("tls");
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (certificate, key) = (folder.path("cert.pem"), folder.path("key.pem"));
    fs::write(&certificate, cert.pem()).expect("a file");
    fs::write(&key, signing_key.serialize_pem()).expect("a file");
    run(
        r#"
        local cosocket = require("cosocket")
        local mqtt = require("mqtt")
        local certificate, key = ...
        local broker <close> = assert(require("mqtt.broker").listen("tls://127.0.0.1:0", {
          tls = { certificate = certificate, key = key },
          packet_max = 8000000,
        }))
        local url = "mqtts://localhost:" .. broker:address():match("%d+$")

        -- Without a keep alive nothing but the bytes themselves moves the connection on.
        local client = assert(mqtt.connect(url, { tls = { ca = certificate }, keep_alive = 0 }))
        assert(client:subscribe("big", { qos = 1 }))
        local payload = ("0123456789abcdef"):rep(250000)
        assert(cosocket.deadline(30, function()
          for _ = 1, 5 do
            assert(client:publish("big", payload, { qos = 1 }))
            for message in client:messages() do
              assert(message.payload == payload)
              break
            end
          end
          return true
        end))
        client:close()

        local refused, err = mqtt.connect(url)
        assert(not refused and err.kind == "tls", tostring(err))
        refused, err = mqtt.connect(url:gsub("localhost", "127.0.0.1"), { tls = { ca = certificate } })
        assert(not refused and err.kind == "tls", tostring(err))
        "#,
        &[certificate, key],
    );
}

#[test]
fn clients_of_both_versions_meet_on_a_unix_socket() {
    let folder = Folder::new("unix");
    run(
        r#"
        local cosocket = require("cosocket")
        local mqtt = require("mqtt")
        local url = "unix://" .. ...
        local broker <close> = assert(require("mqtt.broker").listen(url))
        local new = assert(mqtt.connect(url))
        local old = assert(mqtt.connect(url, { version = "3.1.1" }))
        local got = cosocket.queue(2)
        assert(new:subscribe("t", function(message) got:put("new " .. message.payload) end))
        assert(old:subscribe("t", function(message) got:put("old " .. message.payload) end))
        assert(new:publish("t", "hello", { qos = 1 }))
        local one, other = got:get(), got:get()
        assert(one ~= other and (one .. other):find("new hello") and (one .. other):find("old hello"))
        new:close()
        old:close()
        "#,
        &[folder.path("socket")],
    );
}
