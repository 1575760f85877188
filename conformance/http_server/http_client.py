"""Python's http.client as a witness: `http_client.py CASE PORT TLS_PORT CA`."""

import hashlib
import http.client
import json
import ssl
import sys
import threading


def connection():
    return http.client.HTTPConnection("127.0.0.1", PORT, timeout=20)


def ask(conn, method, path, body=None, headers={}):
    conn.request(method, path, body, headers)
    response = conn.getresponse()
    return response, response.read()


def kept():
    conn = connection()
    conn.connect()
    sock = conn.sock
    for i in range(200):
        response, body = ask(conn, "GET", f"/things/{i}?n={i}")
        assert response.status == 200 and json.loads(body) == {"id": str(i), "query": {"n": str(i)}}, body
        assert conn.sock is sock, "the connection was not kept"
    for method, path, status in [("GET", "/nowhere", 404), ("DELETE", "/hello", 405), ("GET", "/boom", 500)]:
        response, _ = ask(conn, method, path)
        assert response.status == status and conn.sock is sock, (path, response.status)


def head():
    conn = connection()
    for path in ["/hello", "/chunks", "/files/large.bin"]:
        response, body = ask(conn, "HEAD", path)
        assert response.status == 200 and body == b"", path
    response, body = ask(conn, "GET", "/hello")
    assert body == b"hello", "the connection is out of step"


def chunked_upload():
    conn = connection()
    pieces = [bytes([i]) * (i * 997 % 5000 + 1) for i in range(200)]
    conn.request("POST", "/echo", iter(pieces), {"Transfer-Encoding": "chunked"}, encode_chunked=True)
    assert conn.getresponse().read() == b"".join(pieces)


def large_upload():
    conn = connection()
    body = b"0123456789abcdef" * (2 * 1024 * 1024)
    response, text = ask(conn, "PUT", "/count", body)
    assert json.loads(text)["size"] == len(body), text
    response, text = ask(conn, "GET", "/hello")
    assert text == b"hello"


def too_large():
    conn = connection()
    conn.putrequest("PUT", "/count")
    conn.putheader("Content-Length", str(65 * 1024 * 1024))
    conn.endheaders()
    response = conn.getresponse()
    assert response.status == 413 and response.getheader("Connection") == "close", response.status


def large_download():
    conn = connection()
    response, body = ask(conn, "GET", "/files/large.bin")
    with open(WWW + "/large.bin", "rb") as file:
        assert hashlib.sha256(body).digest() == hashlib.sha256(file.read()).digest()


def chunks():
    conn = connection()
    response, body = ask(conn, "GET", "/chunks")
    assert body == b"".join(b"line %d\n" % i for i in range(1, 101))
    response, body = ask(conn, "GET", "/hello")
    assert body == b"hello"


def broken():
    conn = connection()
    conn.request("GET", "/broken")
    response = conn.getresponse()
    try:
        response.read()
    except http.client.IncompleteRead:
        return
    raise AssertionError("a response that was cut short was taken for whole")


def parallel():
    failures = []

    def one(number):
        try:
            conn = connection()
            for i in range(20):
                response, body = ask(conn, "GET", f"/things/{number}-{i}")
                assert json.loads(body)["id"] == f"{number}-{i}"
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[:3]


def tls():
    context = ssl.create_default_context(cafile=CA)
    conn = http.client.HTTPSConnection("localhost", TLS_PORT, timeout=20, context=context)
    for _ in range(3):
        response, body = ask(conn, "GET", "/tls")
        assert body == b"1.3", body
    response, body = ask(conn, "POST", "/echo", b"x" * 300000)
    assert body == b"x" * 300000


PORT, TLS_PORT, CA, WWW = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
globals()[sys.argv[1]]()
