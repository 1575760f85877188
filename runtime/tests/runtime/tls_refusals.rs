//! What TLS refuses, and in which words.

use super::support::run;

/// A client that trusts the authority meets the certificate `name`: refused with `code`, in words with `pattern`.
#[track_caller]
fn refused(name: &str, code: &str, pattern: &str) {
    run(&format!(
        r#"
        local near, err, far, ok, why = meet(serving("{name}"), trusting())
        fails("tls", near, err, "{code}")
        equal(err.op, "connect")
        matches(err.message, "{pattern}")
        fails("tls", ok, why)
        "#
    ));
}

#[test]
fn a_certificate_of_an_unknown_authority_is_refused() {
    run(r#"
        local near, err, _, ok, why = meet(serving("server"), { ca = certs.other_ca.certificate })
        fails("tls", near, err, "UnknownIssuer")
        matches(err.message, "name its authority in tls.ca, or in tls.client_ca if it is a client's")
        fails("tls", ok, why)
        matches(why.message, "the other side refused: ")
    "#);
}

#[test]
fn the_platforms_authorities_do_not_vouch_for_a_private_one() {
    run(r#"
        local near, err = meet(serving("server"), {})
        fails("tls", near, err)
        -- A machine without any authority says that instead.
        matches(err.message, "tls.ca")
    "#);
}

#[test]
fn a_self_signed_certificate_is_refused() {
    refused("self_signed", "UnknownIssuer", "not signed by an authority trusted here");
}

#[test]
fn an_authoritys_own_certificate_is_not_a_servers() {
    refused("ca", "CaUsedAsEndEntity", "basicConstraints=critical,CA:FALSE");
}

#[test]
fn an_expired_certificate_is_refused() {
    refused("expired", "Expired", "the certificate expired %d+ days ago");
}

#[test]
fn a_certificate_that_is_not_valid_yet_is_refused() {
    refused("future", "NotValidYet", "becomes valid in %d+ days");
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    refused("elsewhere", "NotValidForName", "is for elsewhere.example, not for 127.0.0.1; see tls.server_name");
}

#[test]
fn insecure_takes_any_certificate_and_nothing_else_does() {
    run(r#"
        for _, name in ipairs({ "self_signed", "expired", "elsewhere" }) do
          local near, err, far, ok = meet(serving(name), { insecure = true })
          assert(near, err)
          equal(ok, true)
          assert(not meet(serving(name), { insecure = false }))
        end
    "#);
}

#[test]
fn a_pin_is_checked_besides_the_chain() {
    run(r#"
        local near = assert(meet(serving("server"), trusting()))
        local pin = near:tls_info().peer_certificate.spki_sha256
        assert(meet(serving("server"), trusting({ pin_sha256 = pin })))
        assert(meet(serving("server"), trusting({ pin_sha256 = { ("00"):rep(32), pin:upper() } })))
        local refused, err = meet(serving("server"), trusting({ pin_sha256 = ("00"):rep(32) }))
        fails("tls", refused, err, "PinMismatch")
        matches(err.message, "tls.pin_sha256")
        -- A right pin does not replace the chain, unless the chain is not to be checked.
        refused, err = meet(serving("server"), { ca = certs.other_ca.certificate, pin_sha256 = pin })
        fails("tls", refused, err, "UnknownIssuer")
        assert(meet(serving("server"), { insecure = true, pin_sha256 = pin }))
        refused, err = meet(serving("elsewhere"), { insecure = true, pin_sha256 = pin })
        fails("tls", refused, err, "PinMismatch")
    "#);
}

#[test]
fn a_server_may_require_the_clients_certificate() {
    run(r#"
        local server = serving("server", { client_ca = certs.ca.certificate })
        local client = trusting({ certificate = certs.client.certificate, key = certs.client.key })
        local near, err, far, ok = meet(server, client)
        assert(near, err)
        equal(ok, true)
        equal(far:tls_info().peer_certificate.subject, "CN=client")
        -- In TLS 1.3 the client has finished before the server looks at its certificate.
        for _, options in ipairs({ {}, { certificate = certs.other_client.certificate, key = certs.other_client.key } }) do
          local near, err, far, ok, why = meet(server, trusting(options))
          fails("tls", ok, why)
          if near then _, err = near:read() end
          fails("tls", nil, err)
          matches(err.message, "the other side refused")
        end
        local _, _, _, ok, why = meet(server, trusting())
        fails("tls", ok, why, "NoCertificatesPresented")
    "#);
}

#[test]
fn a_server_may_look_at_a_clients_certificate_if_there_is_one() {
    run(r#"
        local server = serving("server", { client_ca = certs.ca.certificate, client_certificate = "optional" })
        local near, err, far, ok = meet(server, trusting())
        equal(ok, true)
        equal(far:tls_info().peer_certificate, nil)
        near, err, far, ok = meet(server, trusting({ certificate = certs.client.certificate, key = certs.client.key }))
        equal(ok, true)
        equal(far:tls_info().peer_certificate.subject, "CN=client")
        local _, _, _, ok, why = meet(server, trusting({ certificate = certs.other_client.certificate, key = certs.other_client.key }))
        fails("tls", ok, why)
    "#);
}

#[test]
fn no_alpn_protocol_in_common_is_refused() {
    run(r#"
        local near, err, _, ok, why = meet(serving("server", { alpn = { "h2" } }), trusting({ alpn = { "mqtt" } }))
        fails("tls", near, err)
        matches(err.message, "ALPN")
        fails("tls", ok, why, "NoApplicationProtocol")
    "#);
}

#[test]
fn a_peer_that_speaks_plain_text_is_told_from_one_that_speaks_tls() {
    run(r#"
        local cosocket = require("cosocket")
        local listener = assert(cosocket.listen("tcp://127.0.0.1:0"))
        cosocket.spawn(function()
          local stream <close> = assert(listener:accept())
          stream:write("220 mail.example ESMTP\r\n")
          stream:flush()
          stream:read()
        end)
        local near, err = cosocket.connect("tls://" .. listener:local_address(), { tls = trusting() })
        fails("tls", near, err, "InvalidMessage")
        matches(err.message, "is not TLS")

        local secure = assert(cosocket.listen("tls://127.0.0.1:0", { tls = serving("server") }))
        local plain = assert(cosocket.connect("tcp://" .. secure:local_address()))
        plain:write("GET / HTTP/1.1\r\n\r\n")
        plain:flush()
        local far = assert(secure:accept())
        fails("tls", far:handshake())
        fails("tls", far:read())
    "#);
}

#[test]
fn a_peer_that_closes_during_the_handshake_is_a_tls_error() {
    run(r#"
        local cosocket = require("cosocket")
        local listener = assert(cosocket.listen("tcp://127.0.0.1:0"))
        cosocket.spawn(function() assert(listener:accept()):close() end)
        local near, err = cosocket.connect("tls://" .. listener:local_address(), { tls = trusting() })
        fails("tls", near, err)
        matches(err.message, "during the handshake")
        -- It was the connection, and not TLS.
        assert(err.cause.kind == "closed", err.cause)
    "#);
}

#[test]
fn a_client_that_is_slow_to_shake_hands_is_dropped() {
    run(r#"
        local cosocket = require("cosocket")
        local tls = serving("server", { handshake_timeout = 0.05 })
        local listener = assert(cosocket.listen("tls://127.0.0.1:0", { tls = tls }))
        local silent = assert(cosocket.connect("tcp://" .. listener:local_address()))
        local began = cosocket.now()
        local far = assert(listener:accept())
        local ok, err = far:handshake()
        fails("tls", ok, err)
        matches(err.message, "took too long")
        assert(cosocket.now() - began < 5)
        fails("tls", far:read())
        fails("tls", far:write("x"))
        far:close()
        assert(#silent:read_all() < 20, "no more than a goodbye")
    "#);
}

#[test]
fn a_server_that_never_shakes_hands_runs_into_the_timeout_of_connect() {
    run(r#"
        local cosocket = require("cosocket")
        local listener = assert(cosocket.listen("tcp://127.0.0.1:0"))
        local near, err = cosocket.connect("tls://" .. listener:local_address(), { tls = trusting(), timeout = 0.05 })
        fails("timeout", near, err)
        matches(err.message, "within 0.05 s %(handshake%)")
    "#);
}

#[test]
fn files_that_hold_no_certificate_are_named() {
    run(r#"
        local cosocket = require("cosocket")
        local listener = assert(cosocket.listen("tcp://127.0.0.1:0"))
        local address = "tls://" .. listener:local_address()
        local path = os.tmpname()
        local file = assert(io.open(path, "w"))
        file:write("not PEM at all")
        file:close()
        local pem, key = certs.server.certificate, certs.server.key
        local cases = {
          { { ca = "/nowhere/ca.pem" }, "tls.ca: cannot read \"/nowhere/ca.pem\": no such file" },
          { { ca = "/" }, "tls.ca: cannot read" },
          { { ca = path }, "tls.ca: .* has no certificate in PEM form" },
          { { ca = { certs.ca.certificate, path } }, "tls.ca: .* has no certificate in PEM form" },
          { { ca = key }, "tls.ca: the text given has no certificate" },
          { { ca = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" }, "tls.ca: not a usable certificate" },
          { { ca = "-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n" }, "tls.ca: .* is not a certificate" },
          { { certificate = "/nowhere/c.pem", key = key }, "tls.certificate: cannot read" },
          { { certificate = pem, key = "/nowhere/k.pem" }, "tls.key: cannot read" },
          { { certificate = pem, key = pem }, "tls.key: .* no private key in PEM form" },
          { { certificate = pem, key = certs.client.key }, "tls.key does not belong to tls.certificate" },
          { { certificate = key, key = key }, "tls.certificate: .* no certificate" },
        }
        for i, case in ipairs(cases) do
          local near, err = cosocket.connect(address, { tls = case[1], timeout = 5 })
          local ok, why = pcall(matches, fails("tls", near, err).message, case[2])
          assert(ok, ("case %d: %s"):format(i, tostring(why)))
          if case[1].certificate then
            local bound, why = cosocket.listen("tls://127.0.0.1:0", { tls = case[1] })
            fails("tls", bound, why)
            matches(why.message, case[2])
          end
        end
        os.remove(path)
        local bound, err = cosocket.listen("tls://127.0.0.1:0", { tls = serving("server", { client_ca = path }) })
        matches(fails("tls", bound, err).message, "tls.client_ca: cannot read")
    "#);
}

#[test]
fn options_that_make_no_sense_are_the_callers_mistake() {
    run(r#"
        local cosocket = require("cosocket")
        local listener = assert(cosocket.listen("tcp://127.0.0.1:0"))
        local address = listener:local_address()
        local pem, key = certs.server.certificate, certs.server.key
        local function connecting(tls) return mistaken(cosocket.connect, address, { tls = tls }) end
        matches(connecting({ sever_name = "x" }), 'unknown option "tls.sever_name"; did you mean "server_name"')
        matches(connecting({ certificate = pem }), "certificate needs")
        matches(connecting({ key = key }), "key needs")
        matches(connecting({ min_version = "1.1" }), 'min_version is "1.2" or "1.3", not "1.1"')
        matches(connecting({ max_version = "1.1" }), 'max_version is "1.2" or "1.3", not "1.1"')
        matches(connecting({ max_version = "1.2", min_version = "1.3" }), "min_version is above max_version")
        matches(connecting({ alpn = { "" } }), "alpn must be a list")
        matches(connecting({ alpn = { {} } }), "alpn must be a list")
        matches(connecting({ pin_sha256 = "abc" }), "is not a SHA%-256")
        matches(connecting({ pin_sha256 = { {} } }), "pin_sha256")
        matches(connecting({ pin_sha256 = {} }), "pin_sha256")
        matches(connecting({ ca = {} }), "ca must be")
        matches(connecting({ ca = { 1, {} } }), "ca must be")
        matches(connecting({ ca = "\xff\xfe" }), "ca must be")
        matches(connecting({ server_name = "not a name" }), "is no name to verify")
        matches(connecting({ insecure = 1 }), "insecure")
        matches(connecting("yes"), "option \"tls\"")
        matches(mistaken(cosocket.connect, "tls://" .. address, { tls = false }), "contradicts")
        local function listening(tls) return mistaken(cosocket.listen, "tls://127.0.0.1:0", { tls = tls }) end
        matches(listening(nil), "needs tls")
        matches(listening({}), "needs certificate and key")
        matches(listening({ certificate = pem, key = key, client_certificate = "maybe" }), "optional")
        matches(listening({ certificate = pem, key = key, client_certificate = "require" }), "needs client_ca")
        matches(listening({ certificate = pem, key = key, max_version = "1" }), "max_version")
        matches(listening({ certificates = { 1 } }), "certificates%[1%] must be a table")
        matches(listening({ certificates = { { certificate = pem } } }), "certificates%[1%]")
        matches(listening({ certificates = { { certificate = pem, key = key, names = 5 } } }), "names")
        matches(listening({ certificate = pem, key = key, handshake_timeout = "soon" }), "handshake_timeout")
    "#);
}
