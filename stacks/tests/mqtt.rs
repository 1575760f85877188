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

#[test]
fn a_broker_knows_its_clients_by_their_certificates() {
    let folder = Folder::new("certificates");
    let mut paths = Vec::new();
    for name in ["localhost", "device-7"] {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed([name.to_owned()]).expect("a certificate");
        let (certificate, key) = (folder.path(&format!("{name}.pem")), folder.path(&format!("{name}.key")));
        fs::write(&certificate, cert.pem()).expect("a file");
        fs::write(&key, signing_key.serialize_pem()).expect("a file");
        paths.extend([certificate, key]);
    }
    run(
        r#"
        local mqtt = require("mqtt")
        local server_certificate, server_key, device_certificate, device_key = ...
        local seen
        local broker <close> = assert(require("mqtt.broker").listen({ "tls://127.0.0.1:0", "tcp://127.0.0.1:0" }, {
          tls = { certificate = server_certificate, key = server_key, client_ca = device_certificate },
          authenticate = function(_, _, _, client)
            seen = client.certificate and client.certificate.names[1] or "nobody"
            assert(client.address:find("^127.0.0.1:"))
            return true
          end,
        }))
        local url = broker:url():gsub("127.0.0.1", "localhost")
        local tls = { ca = server_certificate, certificate = device_certificate, key = device_key }
        local client <close> = assert(mqtt.connect(url, { tls = tls, reconnect = false }))
        assert(seen == "device-7", seen)
        local other <close> = assert(mqtt.connect(broker:url(2), { reconnect = false }))
        assert(seen == "nobody", seen)
        local refused = mqtt.connect(url, { tls = { ca = server_certificate }, reconnect = false, timeout = 5 })
        assert(not refused)
        "#,
        &paths,
    );
}
