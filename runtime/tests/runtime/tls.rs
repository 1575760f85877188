//! What TLS agrees on, and how streams behave over it.

use super::support::run;

#[test]
fn both_sides_are_told_what_was_agreed() {
    run(r#"
        local near, err, far, ok = meet(serving("server", { alpn = { "h2", "mqtt" } }), trusting({ alpn = { "mqtt", "h2" }, server_name = "localhost" }))
        assert(near, err)
        local info = near:tls_info()
        equal(info.version, "1.3")
        matches(info.cipher, "^TLS_")
        equal(info.server_name, "localhost")
        equal(info.resumed, false)
        assert(info.alpn == "h2" or info.alpn == "mqtt")
        local certificate = info.peer_certificate
        equal(certificate.subject, "CN=server")
        equal(certificate.issuer, "CN=ca")
        equal(table.concat(certificate.names, " "), "localhost 127.0.0.1 ::1")
        equal(os.date("!%Y-%m-%d", certificate.not_before), "2020-01-01")
        equal(os.date("!%Y-%m-%d", certificate.not_after), "2120-01-01")
        matches(certificate.sha256, ("^" .. ("%x"):rep(64) .. "$"))
        matches(certificate.spki_sha256, ("^" .. ("%x"):rep(64) .. "$"))
        local theirs = far:tls_info()
        equal(theirs.version, "1.3")
        equal(theirs.cipher, info.cipher)
        equal(theirs.alpn, info.alpn)
        equal(theirs.server_name, "localhost")
        equal(theirs.peer_certificate, nil)
        matches(tostring(near), "TLS")
    "#);
}

#[test]
fn no_alpn_on_one_side_is_no_alpn() {
    run(r#"
        local near = assert(meet(serving("server", { alpn = { "h2" } }), trusting()))
        equal(near:tls_info().alpn, nil)
        near = assert(meet(serving("server"), trusting({ alpn = { "h2" } })))
        equal(near:tls_info().alpn, nil)
    "#);
}

#[test]
fn the_oldest_version_is_kept_to() {
    run(r#"
        for _, options in ipairs({ { "1.3", "1.2" }, { "1.2", "1.3" }, { "1.2", "1.2" } }) do
          local near = assert(meet(serving("server", { min_version = options[1] }), trusting({ min_version = options[2] })))
          equal(near:tls_info().version, "1.3")
        end
    "#);
}

#[test]
fn tls_1_2_is_spoken_when_one_side_knows_nothing_newer() {
    run(r#"
        for _, newest in ipairs({ { "1.2", "1.2" }, { "1.2", nil }, { nil, "1.2" } }) do
          local there = serving("server", { max_version = newest[1], alpn = { "mqtt" } })
          local near, err, far = meet(there, trusting({ max_version = newest[2], alpn = { "mqtt" } }))
          assert(near, err)
          for _, info in ipairs({ near:tls_info(), far:tls_info() }) do
            equal(info.version, "1.2")
            equal(info.alpn, "mqtt")
            matches(info.cipher, "^TLS_ECDHE_")
          end
          equal(near:tls_info().peer_certificate.subject, "CN=server")
          assert(near:write("to and"))
          assert(near:flush())
          equal(far:read(6), "to and")
          assert(far:write(" fro"))
          assert(far:flush())
          equal(near:read(4), " fro")
        end
    "#);
}

#[test]
fn no_version_in_common_is_a_failure_of_tls_that_says_so() {
    run(r#"
        for _, bounds in ipairs({
          { { max_version = "1.2" }, { min_version = "1.3" } },
          { { min_version = "1.3" }, { max_version = "1.2" } },
        }) do
          local near, err, _, ok, why = meet(serving("server", bounds[1]), trusting(bounds[2]))
          fails("tls", near, err)
          fails("tls", ok, why)
          matches(err.message .. " " .. why.message, "[Vv]ersion")
        end
        -- The version is checked before the certificate is: a client that would refuse that one, too, is told of the version.
        local near, err = meet(serving("elsewhere", { max_version = "1.2" }), trusting({ min_version = "1.3" }))
        matches(fails("tls", near, err).message, "[Vv]ersion")
    "#);
}

#[test]
fn a_certificate_is_asked_for_and_a_session_resumed_in_tls_1_2_too() {
    run(r#"
        local cosocket = require("cosocket")
        local there = serving("server", { max_version = "1.2", client_ca = certs.ca.certificate })
        local near, err, far = meet(there, trusting({ certificate = certs.client.certificate, key = certs.client.key }))
        assert(near, err)
        equal(far:tls_info().version, "1.2")
        equal(far:tls_info().peer_certificate.subject, "CN=client")
        local _, _, _, ok, why = meet(there, trusting())
        fails("tls", ok, why)
        local listener = assert(cosocket.listen("tls://127.0.0.1:0", { tls = serving("server", { max_version = "1.2" }) }))
        cosocket.spawn("server", function()
          for _ = 1, 2 do
            local stream <close> = assert(listener:accept())
            stream:write("hello")
            stream:flush()
            stream:read()
          end
        end)
        local resumed = {}
        for i = 1, 2 do
          local stream <close> = assert(cosocket.connect("tls://" .. listener:local_address(), { tls = trusting() }))
          equal(stream:read(5), "hello")
          equal(stream:tls_info().version, "1.2")
          resumed[i] = stream:tls_info().resumed
        end
        equal(resumed[1], false)
        equal(resumed[2], true)
    "#);
}

#[test]
fn a_server_shows_the_certificate_for_the_name_that_was_asked() {
    run(r#"
        local server = serving("server", {
          certificates = {
            { certificate = certs.elsewhere.certificate, key = certs.elsewhere.key },
            { certificate = certs.wildcard.certificate, key = certs.wildcard.key },
            { certificate = certs.self_signed.certificate, key = certs.self_signed.key, names = { "own.example" } },
          },
        })
        local function subject(name, insecure)
          local near, err = meet(server, trusting({ server_name = name, insecure = insecure }))
          assert(near, err)
          return near:tls_info().peer_certificate.subject
        end
        equal(subject("localhost"), "CN=server")
        equal(subject("elsewhere.example"), "CN=elsewhere")
        equal(subject("ELSEWHERE.example"), "CN=elsewhere")
        equal(subject("a.wild.example"), "CN=wildcard")
        equal(subject("own.example", true), "CN=self_signed")
        equal(subject("unknown.example", true), "CN=server")
        equal(subject(nil), "CN=server")
    "#);
}

#[test]
fn the_second_connection_is_resumed() {
    run(r#"
        local cosocket = require("cosocket")
        local listener = assert(cosocket.listen("tls://127.0.0.1:0", { tls = serving("server") }))
        cosocket.spawn("server", function()
          for _ = 1, 3 do
            local stream <close> = assert(listener:accept())
            stream:write("hello")
            stream:flush()
            stream:read()
          end
        end)
        local resumed = {}
        for i = 1, 3 do
          local stream <close> = assert(cosocket.connect("tls://" .. listener:local_address(), { tls = trusting() }))
          equal(stream:read(5), "hello")
          resumed[i] = stream:tls_info().resumed
          equal(stream:tls_info().peer_certificate.subject, "CN=server")
        end
        equal(resumed[1], false)
        equal(resumed[2], true)
        equal(resumed[3], true)
    "#);
}

#[test]
fn other_options_do_not_resume_what_they_would_refuse() {
    run(r#"
        local cosocket = require("cosocket")
        local listener = assert(cosocket.listen("tls://127.0.0.1:0", { tls = serving("server") }))
        cosocket.spawn("server", function()
          while true do
            local stream = listener:accept()
            if not stream then return end
            cosocket.spawn(function()
              if stream:write("hello") then stream:flush() end
              stream:read()
            end)
          end
        end)
        local address = "tls://" .. listener:local_address()
        local loose <close> = assert(cosocket.connect(address, { tls = { insecure = true } }))
        equal(loose:read(5), "hello")
        local strict, err = cosocket.connect(address, { tls = { ca = certs.other_ca.certificate } })
        fails("tls", strict, err, "UnknownIssuer")
        listener:close()
    "#);
}

#[test]
fn every_read_and_write_works_over_tls() {
    run(r#"
        local cosocket = require("cosocket")
        local near, err, far = meet(serving("server"), trusting())
        assert(near, err)
        local text = ("0123456789"):rep(300000)
        cosocket.group(function()
          cosocket.spawn(function()
            equal(far:read_line(), "line")
            equal(far:read(3), "abc")
            equal(far:read_until("--"), "until--")
            assert(far:write(text, "\n"))
            assert(far:shutdown("write"))
            equal(far:read_all(), "rest")
          end)
          assert(near:write("line\r\nab"))
          assert(near:flush())
          assert(near:write("cuntil-"))
          assert(near:flush())
          assert(near:write("-rest"))
          assert(near:flush())
          assert(near:shutdown("write"))
          assert(near:read_line(#text) == text)
          fails("closed", near:read())
        end)
    "#);
}

#[test]
fn a_timed_out_read_over_tls_consumes_nothing() {
    run(r#"
        local cosocket = require("cosocket")
        local near, _, far = meet(serving("server"), trusting())
        far:write("half")
        far:flush()
        fails("timeout", cosocket.deadline(0.05, near.read_line, near))
        fails("timeout", cosocket.deadline(0.05, near.read, near, 100))
        far:write(" whole\n")
        far:flush()
        equal(near:read_line(), "half whole")
    "#);
}

#[test]
fn both_directions_move_at_once_over_tls() {
    run(r#"
        local cosocket = require("cosocket")
        local near, _, far = meet(serving("server"), trusting())
        local size = 3000000
        local function exchange(stream)
          cosocket.group(function()
            cosocket.spawn(function()
              for _ = 1, size // 1000 do assert(stream:write(("x"):rep(1000))) end
              assert(stream:flush())
            end)
            equal(#assert(stream:read(size)), size)
          end)
        end
        cosocket.group(function()
          cosocket.spawn(exchange, near)
          cosocket.spawn(exchange, far)
        end)
    "#);
}

#[test]
fn a_cut_connection_is_told_from_a_clean_end() {
    run(r#"
        local cosocket = require("cosocket")
        local near, _, far = meet(serving("server"), trusting())
        far:write("the answer")
        far:close()
        equal(near:read_all(), "the answer")

        local inner = assert(cosocket.listen("tcp://127.0.0.1:0"))
        cosocket.spawn("server that cuts", function()
          local stream = assert(inner:accept())
          -- TLS on top of a stream that is closed below it: the plain socket ends without close_notify.
          local one, other = cosocket.pair()
          cosocket.spawn(function()
            while true do
              local data = stream:read()
              if not data or not other:write(data) then return end
            end
          end)
          cosocket.spawn("relay", function()
            local count = 0
            while true do
              local data = other:read()
              if not data then return end
              count = count + #data
              stream:write(data)
              stream:flush()
            end
          end)
          assert(one:start_tls({ server = true, certificate = certs.server.certificate, key = certs.server.key }))
          one:write("the answer")
          one:flush()
          cosocket.sleep(0.05)
          stream:shutdown("write")
          cosocket.sleep(0.05)
          one:close()
          other:close()
        end)
        local stream = assert(cosocket.connect("tls://" .. inner:local_address(), { tls = trusting() }))
        local data, err = stream:read_all()
        fails("closed", data, err)
        matches(err.message, "ended in the middle")
        stream:close()
        inner:close()
    "#);
}

#[test]
fn an_end_of_sending_is_clean_although_the_socket_takes_no_more_at_the_moment() {
    run(r#"
        local cosocket = require("cosocket")
        local size = 100000
        local one, two = cosocket.pair()
        cosocket.spawn(function()
          assert(one:start_tls(serving("server", { server = true })))
          one:set_option("send_buffer", 1)
          assert(one:write(("x"):rep(size)))
          assert(one:shutdown())
          assert(one:shutdown())
          fails("closed", one:write("more"))
          equal(one:read_line(), "answer")
          one:close()
        end)
        assert(two:start_tls(trusting({ server_name = "localhost" })))
        local text, err = two:read_all()
        assert(text, err)
        equal(#text, size)
        assert(two:write("answer\n"))
        two:close()
    "#);
}

#[test]
fn what_was_written_before_a_close_arrives_whole_and_its_end_is_clean() {
    run(r#"
        local cosocket = require("cosocket")
        local size = 8000000
        for _, shakes_hands_first in ipairs({ true, false }) do
          local listener <close> = assert(cosocket.listen("tls://127.0.0.1:0", { tls = serving("server"), queue_max = size }))
          cosocket.spawn(function()
            local far <close> = assert(listener:accept())
            if shakes_hands_first then assert(far:handshake()) end
            assert(far:write(("x"):rep(size)))
          end)
          local port = listener:local_address():match(":(%d+)$")
          local near = assert(cosocket.connect("127.0.0.1", tonumber(port), { tls = trusting(), queue_max = size }))
          local text, err = near:read_all()
          assert(text, err)
          equal(#text, size)
          -- And the other way.
          local one, two = cosocket.pair()
          cosocket.spawn(function()
            assert(one:start_tls(serving("server", { server = true })))
            local text, err = one:read_all()
            assert(text, err)
            equal(#text, size)
          end)
          assert(two:start_tls(trusting({ server_name = "localhost" })))
          two:set_option("queue_max", size)
          assert(two:write(("x"):rep(size)))
          two:close()
        end
    "#);
}

#[test]
fn what_was_written_before_a_close_arrives_although_the_time_for_the_handshake_is_over() {
    run(r#"
        local cosocket = require("cosocket")
        local size = 8000000
        local listener <close> = assert(cosocket.listen("tls://127.0.0.1:0",
          { tls = serving("server", { handshake_timeout = 0.2 }), queue_max = size }))
        cosocket.spawn(function()
          local far <close> = assert(listener:accept())
          assert(far:write(("x"):rep(size)))
        end)
        local port = listener:local_address():match(":(%d+)$")
        local near = assert(cosocket.connect("127.0.0.1", tonumber(port), { tls = trusting() }))
        near:set_option("receive_buffer", 65536)
        cosocket.sleep(0.4)
        local text, err = near:read_all()
        assert(text, err)
        equal(#text, size)
    "#);
}

#[test]
fn a_live_stream_becomes_tls_on_both_sides() {
    run(r#"
        local cosocket = require("cosocket")
        local one, other = cosocket.pair()
        cosocket.group(function()
          cosocket.spawn("server", function()
            equal(other:read_line(), "STARTTLS")
            other:write("220 go ahead\r\n")
            assert(other:start_tls({ server = true, certificate = certs.server.certificate, key = certs.server.key }))
            equal(other:read_line(), "secret")
            other:write("reply\n")
          end)
          one:write("STARTTLS\r\n")
          equal(one:read_line(), "220 go ahead")
          equal(one:tls_info(), nil)
          assert(one:start_tls(trusting({ server_name = "localhost" })))
          equal(one:tls_info().version, "1.3")
          one:write("secret\n")
          equal(one:read_line(), "reply")
        end)
        fails("tls", one:start_tls(trusting({ server_name = "localhost" })))
    "#);
}

#[test]
fn bytes_that_came_before_tls_are_not_trusted() {
    run(r#"
        local cosocket = require("cosocket")
        local one, other = cosocket.pair()
        other:write("220 go ahead\r\n250 injected\r\n")
        other:flush()
        equal(one:read_line(), "220 go ahead")
        local err = fails("protocol", one:start_tls(trusting({ server_name = "localhost" })))
        matches(err.message, "before TLS")
        equal(one:tls_info(), nil)
    "#);
}

#[test]
fn a_dead_handshake_stays_dead() {
    run(r#"
        local near, err, far, ok, why = meet(serving("expired"), trusting())
        fails("tls", near, err)
        fails("tls", far:read())
        fails("tls", far:write("x"))
        fails("tls", far:handshake())
        equal(far:tls_info(), nil)
    "#);
}

#[test]
fn random_bytes_break_no_handshake_on_either_side() {
    run(r#"
        local cosocket = require("cosocket")
        local seed = os.time()
        math.randomseed(seed)
        print(("seed %d"):format(seed))
        local function noise(n)
          local bytes = {}
          for i = 1, n do bytes[i] = string.char(math.random(0, 255)) end
          return table.concat(bytes)
        end
        -- Starts that look like TLS get further.
        local starts = { "", "\x16\x03\x01", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "\x15\x03\x03\x00\x02", "\x17\x03\x03\x40\x00" }
        for round = 1, 60 do
          local one, other = cosocket.pair()
          local is_server = round % 2 == 0
          cosocket.group(function()
            cosocket.spawn(function()
              other:write(starts[math.random(#starts)], noise(math.random(0, 600)))
              other:shutdown("write")
              while other:read() do end
            end)
            local options = is_server and serving("server") or trusting({ server_name = "localhost" })
            options.server = is_server or nil
            local ok, err = one:start_tls(options)
            fails(err and err.kind == "protocol" and "protocol" or "tls", ok, err)
            one:close()
          end)
        end
    "#);
}

#[test]
fn a_good_handshake_with_one_byte_changed_fails_with_an_error() {
    run(r#"
        local cosocket = require("cosocket")
        local seed = os.time()
        math.randomseed(seed)
        print(("seed %d"):format(seed))
        for _ = 1, 30 do
          local one, left = cosocket.pair()
          local right, other = cosocket.pair()
          local at, changes = math.random(1, 900), math.random(2)
          local function relay(from, to, changes)
            local count = 0
            while true do
              local data = from:read()
              if not data then break end
              if changes and count < at and count + #data >= at then
                local i = at - count
                data = data:sub(1, i - 1) .. string.char(data:byte(i) ~ (1 << math.random(0, 7))) .. data:sub(i + 1)
              end
              count = count + #data
              if not to:write(data) then break end
            end
            to:shutdown("write")
          end
          cosocket.group(function()
            cosocket.spawn(relay, left, right, changes == 1)
            cosocket.spawn(relay, right, left, changes == 2)
            cosocket.spawn(function()
              local options = serving("server")
              options.server = true
              if cosocket.deadline(1, other.start_tls, other, options) then
                other:write("hello")
                other:flush()
              end
              other:close()
            end)
            local ok, err = cosocket.deadline(1, one.start_tls, one, trusting({ server_name = "localhost" }))
            local data, why
            if ok then data, why = cosocket.deadline(1, one.read, one, 5) end
            assert(data == "hello" or cosocket.is_error(err or why), err or why)
            one:close()
          end)
        end
    "#);
}
