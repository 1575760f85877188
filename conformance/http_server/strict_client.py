"""h11 as a witness: it refuses whatever RFC 9112 does. `strict_client.py CASE PORT TLS_PORT CA WWW`."""

import socket
import sys

import h11


class Peer:
    def __init__(self):
        self.conn = h11.Connection(h11.CLIENT)
        self.sock = socket.create_connection(("127.0.0.1", PORT), timeout=20)

    def send(self, *events):
        for event in events:
            self.sock.sendall(self.conn.send(event))

    def next(self):
        while True:
            event = self.conn.next_event()
            if event is not h11.NEED_DATA:
                return event
            self.conn.receive_data(self.sock.recv(4096))

    def answer(self):
        interim, head, body = [], None, b""
        while True:
            event = self.next()
            if type(event) is h11.InformationalResponse:
                interim.append(event.status_code)
            elif type(event) is h11.Response:
                head = event
            elif type(event) is h11.Data:
                body += bytes(event.data)
            elif type(event) is h11.EndOfMessage:
                return interim, head, body, dict(event.headers)
            else:
                raise AssertionError(event)

    def ask(self, method, target, headers=(), pieces=()):
        self.send(h11.Request(method=method, target=target, headers=[("Host", "h"), *headers]))
        self.send(*[h11.Data(data=piece) for piece in pieces], h11.EndOfMessage())
        return self.answer()

    def again(self):
        assert self.conn.our_state is h11.DONE and self.conn.their_state is h11.DONE, self.conn.states
        self.conn.start_next_cycle()


def exchanges():
    peer = Peer()
    for method, target, status in [
        ("GET", "/hello", 200), ("HEAD", "/hello", 200), ("HEAD", "/chunks", 200), ("GET", "/chunks", 200),
        ("OPTIONS", "/hello", 204), ("DELETE", "/hello", 405), ("GET", "/nowhere", 404), ("GET", "/boom", 500),
        ("GET", "/files/page.html", 200), ("GET", "/files/sub", 301), ("GET", "/events", 200), ("GET", "/upgrade", 426),
    ]:
        _, head, _, _ = peer.ask(method, target)
        assert head.status_code == status, (method, target, head)
        peer.again()


def trailers():
    _, _, body, trailers = Peer().ask("GET", "/chunks")
    assert body.count(b"\n") == 100 and trailers == {b"lines": b"100"}, trailers


def upload():
    peer = Peer()
    _, _, body, _ = peer.ask("POST", "/echo", [("Transfer-Encoding", "chunked")], [b"a", b"bc", b"x" * 100000])
    assert body == b"abc" + b"x" * 100000
    peer.again()
    _, _, body, _ = peer.ask("POST", "/echo", [("Content-Length", "3")], [b"abc"])
    assert body == b"abc"


def upload_trailers():
    peer = Peer()
    peer.send(h11.Request(method="PUT", target="/count", headers=[("Host", "h"), ("Transfer-Encoding", "chunked")]))
    peer.send(h11.Data(data=b"abc"), h11.EndOfMessage(headers=[("Checksum", "xyz")]))
    _, _, body, _ = peer.answer()
    assert body == b'{"checksum":"xyz","size":3}', body


def expect():
    peer = Peer()
    peer.send(h11.Request(method="POST", target="/echo", headers=[("Host", "h"), ("Expect", "100-continue"), ("Content-Length", "3")]))
    event = peer.next()
    assert type(event) is h11.InformationalResponse and event.status_code == 100, event
    peer.send(h11.Data(data=b"abc"), h11.EndOfMessage())
    assert peer.answer()[2] == b"abc"
    peer = Peer()
    peer.send(h11.Request(method="POST", target="/refuse", headers=[("Host", "h"), ("Expect", "100-continue"), ("Content-Length", "3")]))
    interim, head, _, _ = peer.answer()
    assert interim == [] and head.status_code == 403 and (b"connection", b"close") in head.headers, head


def ranges():
    peer = Peer()
    for asked, status, wanted in [
        ("bytes=0-4", 206, b"<!doc"), ("bytes=-3", 206, b"l>\n"), ("bytes=900000-", 416, None), ("bytes=5-2", 200, None),
    ]:
        _, head, body, _ = peer.ask("GET", "/files/page.html", [("Range", asked)])
        assert head.status_code == status and (wanted is None or body == wanted), (asked, head, body)
        peer.again()


def conditions():
    peer = Peer()
    _, head, _, _ = peer.ask("GET", "/files/page.html")
    etag, modified = dict(head.headers)[b"etag"], dict(head.headers)[b"last-modified"]
    for name, value, status in [
        ("If-None-Match", etag, 304), ("If-None-Match", b"W/" + etag, 304), ("If-None-Match", b'"x"', 200),
        ("If-Match", etag, 200), ("If-Match", b'"x"', 412), ("If-Modified-Since", modified, 304),
        ("If-Unmodified-Since", b"Sun, 06 Nov 1994 08:49:37 GMT", 412),
    ]:
        peer.again()
        _, head, _, _ = peer.ask("GET", "/files/page.html", [(name, value)])
        assert head.status_code == status, (name, value, head)


def upgrade():
    peer = Peer()
    peer.send(h11.Request(method="GET", target="/upgrade", headers=[("Host", "h"), ("Connection", "upgrade"), ("Upgrade", "echo")]), h11.EndOfMessage())
    event = peer.next()
    assert type(event) is h11.InformationalResponse and event.status_code == 101, event
    assert peer.conn.next_event() is h11.PAUSED
    peer.sock.sendall(b"ping")
    assert peer.conn.trailing_data[0] + peer.sock.recv(100) == b"ping"


PORT = int(sys.argv[2])
globals()[sys.argv[1]]()
