//! `moonwire --trace`: what is printed, where, and what is not in it.

use std::{fs, process::Command};

use super::{Answer, Folder};

/// A mail that a sink takes, with a login over TLS; the certificate and its key are beside it.
const MAIL: &str = r#"
local sink = require("smtp.sink")
local smtp = require("smtp")
local function read(name)
  local file <close> = assert(io.open(name))
  return file:read("a")
end
local certificate, key = read("certificate.pem"), read("key.pem")
local server = assert(sink.listen("tcp://127.0.0.1:0", {
  tls = { certificate = certificate, key = key },
  users = { joe = "s3cret" },
}))
local port = server:address():match("%d+$")
assert(smtp.send(("smtp://joe:s3cret@localhost:%s"):format(port), {
  from = "a@example.org",
  to = "b@example.org",
  subject = "x",
  text = "hello",
}, { tls = { ca = certificate }, name = "device" }))
print("sent")
os.exit(0)
"#;

/// What a client of HTTP and a server in the same program say to each other.
const WEB: &str = r#"
local http = require("http")
local server = require("http.server").new()
assert(server:listen("tcp://127.0.0.1:0"))
server:post("/login", function(request, response)
  response:send({ type = "text/plain; charset=utf-8", headers = { ["Set-Cookie"] = "sid=c00kie; Path=/" }, body = "hi \27[31m" })
end)
assert(http.post("http://joe:s3cret@" .. server:address() .. "/login?access_token=t0ken", { json = { password = "geheim" } }))
print("done")
os.exit(0)
"#;

const SECRETS: [&str; 6] = ["s3cret", "am9lOnMzY3JldA", "AGpvZQBzM2NyZXQ", "c00kie", "t0ken", "geheim"];

#[track_caller]
fn has_no_secret(text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret} is in:\n{text}");
    }
}

/// The lines of connection 1, without what differs from run to run.
fn of_first(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| line.starts_with("#1 "));
    lines.map(|line| line.split("127.0.0.1:").next().unwrap_or_default().to_owned()).collect()
}

fn mail_folder(name: &str) -> Folder {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    Folder::new(name)
        .with("a.lua", MAIL)
        .with("certificate.pem", made.cert.pem())
        .with("key.pem", made.signing_key.serialize_pem())
}

#[test]
fn what_passes_under_tls_is_printed_in_clear_and_without_secrets() {
    let answer = mail_folder("trace_tls").moonwire(&["--trace", "smtp", "--trace-time=none", "a.lua"]);
    assert_eq!((answer.status, &*answer.out), (Some(0), "sent\n"), "{}", answer.err);
    has_no_secret(&answer.err);
    let all = of_first(&answer.err).join("\n");
    let lines = [
        "#1 > smtp STARTTLS\n",
        "#1 * TLS 1.3, TLS_",
        "#1 > smtp AUTH PLAIN ***\n",
        "#1 < smtp 235 2.7.0 welcome\n",
        "#1 > smtp QUIT\n",
        "#1 * closed",
    ];
    for line in lines {
        assert!(all.contains(line), "{line:?} is not in:\n{all}");
    }
}

#[test]
fn heads_and_bodies_are_printed_as_they_passed() {
    let answer =
        Folder::new("trace_http").with("a.lua", WEB).moonwire(&["--trace=http", "--trace-time", "none", "a.lua"]);
    assert_eq!((answer.status, &*answer.out), (Some(0), "done\n"), "{}", answer.err);
    has_no_secret(&answer.err);
    let lines = of_first(&answer.err);
    let dated = |line: &String| !line.contains(" Date: ");
    let lines: Vec<String> = lines.into_iter().filter(dated).collect();
    let expected = "\
#1 * http to 
#1 > http POST /login?access_token=*** HTTP/1.1
#1 > http Host: 
#1 > http User-Agent: moonwire
#1 > http Accept: */*
#1 > http Accept-Encoding: gzip, deflate, br, zstd
#1 > http Content-Type: application/json
#1 > http Authorization: Basic ***
#1 > http Content-Length: 21
#1 > http body 21 bytes '{\"password\":\"***\"}'
#1 < http HTTP/1.1 200 OK
#1 < http Set-Cookie: sid=***; Path=/
#1 < http Content-Type: text/plain; charset=utf-8
#1 < http Content-Length: 8
#1 < http body 8 bytes \"hi \\x1b[31m\"";
    assert_eq!(lines.join("\n"), expected);
}

#[test]
fn two_runs_without_times_print_the_same_lines() {
    let folder = Folder::new("trace_diff").with("a.lua", WEB);
    let run = || {
        let err = folder.moonwire(&["--trace", "all", "--trace-time", "none", "a.lua"]).err;
        // The port is the system's choice.
        let lines = err.lines().filter(|line| !line.contains(" Date: "));
        lines.map(|line| line.split("127.0.0.1:").next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let sorted = |mut lines: Vec<String>| {
        // What both ends of a connection say in one turn of the loop may come in another order.
        lines.sort();
        lines
    };
    assert_eq!(sorted(run()), sorted(run()));
}

#[test]
fn the_environment_does_what_the_options_do_and_the_options_go_first() {
    let folder = Folder::new("trace_environment").with("a.lua", WEB);
    let traced = |arguments: &[&str]| -> Answer {
        let mut command = folder.command(arguments);
        command.env("MOONWIRE_TRACE", "http").env("MOONWIRE_TRACE_TIME", "elapsed").env("MOONWIRE_TRACE_BYTES", "2");
        command.output().unwrap().into()
    };
    let answer = traced(&["a.lua"]);
    // Seconds since the start, and no time of day; a busy machine needs some of them.
    assert!(answer.err.split(' ').next().is_some_and(|first| first.parse::<f64>().is_ok()), "{}", answer.err);
    assert!(answer.err.contains("body 8 bytes \"hi\"..."), "{}", answer.err);
    let answer = traced(&["--trace-bytes", "0", "a.lua"]);
    assert!(answer.err.contains("body 8 bytes\n"), "{}", answer.err);
    let answer = traced(&["--trace", "smtp", "a.lua"]);
    assert_eq!(answer.err, "");
}

#[test]
fn a_file_has_the_text_or_a_capture_and_the_terminal_nothing() {
    let folder = mail_folder("trace_file");
    let run = |file: &str| {
        folder.moonwire(&["--trace-file", file, "a.lua"]).is(0, "sent\n", "");
        fs::read(folder.0.join(file)).unwrap()
    };
    let text = String::from_utf8(run("a.txt")).unwrap();
    assert!(text.contains(" smtp AUTH PLAIN ***\n"), "{text}");
    for (file, magic) in [("a.pcapng", 0x0a0d_0d0a_u32), ("a.pcap", 0xa1b2_c3d4)] {
        let bytes = run(file);
        assert_eq!(bytes[..4], magic.to_le_bytes(), "{file}");
        let all = String::from_utf8_lossy(&bytes);
        assert!(all.contains("AUTH PLAIN ****"), "{file}");
        has_no_secret(&all);
    }
}

#[test]
fn tshark_reads_a_capture_where_it_is_installed() {
    let has_tshark = Command::new("tshark").arg("--version").output().is_ok_and(|output| output.status.success());
    if !has_tshark {
        println!("skipped: tshark is not installed (apt-get install tshark)");
        return;
    }
    let script = format!("{}\n{}", MQTT.trim(), WEB.trim());
    let folder = Folder::new("trace_tshark").with("a.lua", script);
    folder.moonwire(&["--trace-file", "a.pcapng", "a.lua"]).is(0, "done\n", "");
    let tshark = |arguments: &[&str]| {
        let mut command = Command::new("tshark");
        command.current_dir(&folder.0).args(["-r", "a.pcapng"]).args(arguments);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let fields = ["-T", "fields", "-e", "mqtt.clientid", "-e", "mqtt.username", "-e", "mqtt.passwd"];
    assert_eq!(
        tshark(&[&["-Y", "mqtt.msgtype == 1 && tcp.stream == 0"], &fields[..]].concat()),
        "device\tjoe\t******\n"
    );
    let topics = tshark(&["-Y", "mqtt.msgtype == 3 && tcp.stream == 0", "-T", "fields", "-e", "mqtt.topic"]);
    assert_eq!(topics, "a/b\n");
    let lines = ["-T", "fields", "-e", "http.request.uri", "-e", "http.response.code", "-e", "http.set_cookie"];
    let said = tshark(&[&["-Y", "http"], &lines[..]].concat());
    assert_eq!(said.matches("/login?access_token=*****").count(), 2, "{said}");
    assert_eq!(said.matches("\t200\tsid=******; Path=/").count(), 2, "{said}");
    // What is made up is right: nothing is sent twice, and every protocol is understood.
    assert_eq!(tshark(&["-Y", "_ws.malformed || tcp.analysis.flags"]), "");
}

const MQTT: &str = r#"
local mqtt = require("mqtt")
local broker = assert(require("mqtt.broker").listen("tcp://127.0.0.1:0"))
local client = assert(mqtt.connect((broker:url():gsub("://", "://joe:s3cret@")), { client_id = "device" }))
assert(client:publish("a/b", "hello", { qos = 1 }))
client:close()
"#;

#[test]
fn what_cannot_be_traced_is_refused() {
    let folder = Folder::new("trace_refused").with("a.lua", "print('ran')");
    let refused = |arguments: &[&str], why: &str| {
        let answer = folder.moonwire(arguments);
        answer.complains(2, why);
        assert_eq!(answer.out, "");
    };
    let known = "there are: all, http, mqtt, smtp, socks5, tcp, udp, websocket, wsrpc\n";
    refused(&["--trace", "http,nonsense", "a.lua"], known);
    refused(&["--trace", "http,nonsense", "a.lua"], "moonwire: \"nonsense\" is no protocol");
    refused(&["--trace"], "moonwire: --trace wants a value, as in `moonwire --trace all SCRIPT`\n");
    refused(
        &["--trace-file"],
        "moonwire: --trace-file wants a value, as in `moonwire --trace-file talk.pcapng SCRIPT`\n",
    );
    refused(&["--trace", "a.lua"], "moonwire: after --trace a.lua there is no script to run\n");
    refused(
        &["--trace-bytes", "5", "a.lua"],
        "moonwire: --trace-bytes and --trace-time go with --trace or --trace-file\n",
    );
    refused(&["--trace", "all", "--trace-bytes", "many", "a.lua"], "moonwire: --trace-bytes wants a number of bytes");
    refused(&["--trace", "all", "--trace-time", "later", "a.lua"], "moonwire: --trace-time must be");
    refused(&["--trace", "all", "--trace-bytes", "-1", "a.lua"], "moonwire: --trace-bytes must not be negative\n");
    refused(&["--trace", "all", "--trace-bytes", "9999999", "a.lua"], "moonwire: --trace-bytes must be from 0 to");
    refused(&["--trace", ",", "a.lua"], "moonwire: --trace names nothing\n");
    refused(&["--trace-file", "nowhere/a.txt", "a.lua"], "moonwire: cannot write nowhere/a.txt: No such file");
    folder.moonwire(&["--trace", "all", "a.lua"]).is(0, "ran\n", "");
    folder.moonwire(&["a.lua", "--trace"]).is(0, "ran\n", "");
}

#[test]
fn a_protocol_of_ones_own_is_a_file_beside_the_script() {
    let decoder = r#"
        local shout = {}
        function shout.follow(lane)
          while true do
            local line = lane:line(100)
            if not line then return end
            lane:take(#line)
            lane:say(line:upper())
          end
        end
        return shout
    "#;
    let script = r#"
        local cosocket = require("cosocket")
        local one, other = assert(cosocket.pair())
        require("net.trace").attach(one, "shout", "client")
        one:write("hey\nho\n")
        assert(other:read(7))
        one:close()
    "#;
    let folder = Folder::new("trace_own").with("a.lua", script).with("trace/shout.lua", decoder);
    let err = "#1 * shout to nowhere\n#1 > shout HEY\\n\n#1 > shout HO\\n\n#1 * closed\n";
    folder.moonwire(&["--trace", "shout", "--trace-time", "none", "a.lua"]).is(0, "", err);
}

#[test]
fn a_test_prints_what_was_traced_only_when_it_fails() {
    let tests = r#"
        local cosocket = require("cosocket")
        local trace = require("net.trace")
        local function say(count)
          local one, other = assert(cosocket.pair())
          trace.attach(one, "smtp", "client")
          for i = 1, count do
            one:write(("NOOP %d\r\n"):format(i))
            assert(other:read_line())
          end
        end
        return {
          ["passes"] = function() say(1) end,
          ["fails"] = function() say(2) error("boom") end,
          ["fails after much"] = function() say(300) error("boom") end,
        }
    "#;
    let folder = Folder::new("trace_test").with("a_test.lua", tests);
    let answer = folder.moonwire(&["--trace", "smtp", "test", "--junit", "a.xml", "a_test.lua"]);
    let expected = "\
passed a_test.lua: passes
failed a_test.lua: fails
  a_test.lua:14: boom
  trace> 0.000000 #1 * smtp to nowhere
  trace> 0.000000 #1 > smtp NOOP 1
  trace> 0.000000 #1 > smtp NOOP 2
failed a_test.lua: fails after much
  a_test.lua:15: boom
  trace> ... 101 lines before
  trace> 0.000000 #1 > smtp NOOP 101
";
    assert_eq!(answer.status, Some(1), "{answer:?}");
    assert!(answer.out.starts_with(expected), "{}", answer.out);
    assert_eq!(answer.out.matches("  trace> ").count(), 3 + 201, "{}", answer.out);
    assert_eq!(answer.err, "");
    let junit = fs::read_to_string(folder.0.join("a.xml")).unwrap();
    assert!(junit.contains("trace&gt; 0.000000 #1 &gt; smtp NOOP 2\n"), "{junit}");
}

#[test]
fn a_test_that_hangs_shows_what_was_traced() {
    let tests = r#"
        local cosocket = require("cosocket")
        return { ["hangs"] = function()
          local one = assert(cosocket.pair())
          require("net.trace").attach(one, "smtp", "client")
          one:write("NOOP\r\n")
          one:flush()
          cosocket.sleep(0.001)
          while true do end
        end }
    "#;
    let folder = Folder::new("trace_hang").with("a_test.lua", tests);
    let answer: Answer = folder
        .command(&["test", "--timeout", "1", "a_test.lua"])
        .env("MOONWIRE_TRACE", "smtp")
        .output()
        .unwrap()
        .into();
    answer.says(1, "did not end within 1s");
    answer.says(1, "  trace> 0.000000 #1 > smtp NOOP\n");
}
