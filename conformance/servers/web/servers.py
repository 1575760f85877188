"""Three servers for the HTTP client: one that is odd, one that is strict, one that dies.

odd     sends whatever its path says, in base64: /BYTES?cut=1&then=close|reset|stall
strict  h11, which refuses whatever RFC 9112 does, and tells what it saw
large   1 GiB from a process that kills itself in the middle, twice
"""

import base64, hashlib, json, os, signal, socket, struct, sys, threading, time, urllib.parse

SIZE = 1 << 30
BLOCK = 1 << 20


def listen(port):
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("127.0.0.1", port))
    server.listen(512)
    return server


def serve(port, handle):
    server = listen(port)
    while True:
        stream, _ = server.accept()
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=guarded, args=(handle, stream), daemon=True).start()


def guarded(handle, stream):
    try:
        with stream:
            handle(stream)
    except OSError:
        pass


def head_of(stream):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = stream.recv(1)
        if not byte:
            return None
        head += byte
    return head.decode("latin-1")


def odd(stream):
    head = head_of(stream)
    if head is None:
        return
    path, _, query = head.split(" ")[1].partition("?")
    options = dict(urllib.parse.parse_qsl(query))
    answer = base64.urlsafe_b64decode(path[1:] + "==")
    cut = int(options.get("cut", "0")) or len(answer) or 1
    for at in range(0, len(answer), cut):
        stream.sendall(answer[at:at + cut])
        if cut < len(answer):
            time.sleep(0.001)
    then = options.get("then", "close")
    if then == "stall":
        # Until the client gives up.
        while stream.recv(65536):
            pass
    elif then == "reset":
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif then == "keep":
        while head_of(stream):
            stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond")


def strict(stream):
    import h11
    connection = h11.Connection(h11.SERVER)

    def next_event():
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                if connection.they_are_waiting_for_100_continue:
                    stream.sendall(connection.send(h11.InformationalResponse(status_code=100, headers=[])))
                connection.receive_data(stream.recv(65536))
            else:
                return event

    while True:
        try:
            request = next_event()
            if not isinstance(request, h11.Request):
                return
            body, trailers = b"", []
            while True:
                event = next_event()
                if isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    trailers = event.headers
                    break
                else:
                    return
        except h11.RemoteProtocolError as fault:
            body = str(fault).encode()
            stream.sendall(b"HTTP/1.1 400 Illegal\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            return
        pairs = [[name.decode(), value.decode("latin-1")] for name, value in request.headers.raw_items()]
        target = request.target.decode()
        path = urllib.parse.urlsplit(target).path
        answer = body
        kind = "application/octet-stream"
        fields = []
        if path == "/seen":
            kind = "application/json"
            answer = json.dumps({
                "method": request.method.decode(),
                "target": target,
                "headers": pairs,
                "trailers": [[n.decode(), v.decode()] for n, v in trailers],
                "body": body.decode("latin-1"),
            }).encode()
        elif path == "/login":
            fields = [("Set-Cookie", "sid=abc; Path=/; HttpOnly"), ("Set-Cookie", "all=x; Domain=co.uk"), ("Set-Cookie", "gone=1; Max-Age=0")]
        elif path == "/trailers":
            stream.sendall(connection.send(h11.Response(status_code=200, headers=[("Transfer-Encoding", "chunked"), ("Trailer", "X-Sum")])))
            stream.sendall(connection.send(h11.Data(data=b"body")))
            stream.sendall(connection.send(h11.EndOfMessage(headers=[("X-Sum", "4")])))
            connection.start_next_cycle()
            continue
        elif path == "/hints":
            hint = h11.InformationalResponse(status_code=103, headers=[("Link", "</style.css>")])
            stream.sendall(connection.send(hint))
            stream.sendall(connection.send(hint))
        elif path == "/events":
            last = dict((n.lower(), v) for n, v in pairs).get("last-event-id", "0")
            answer = b"".join(b"id: %d\ndata: event %d\n\n" % (i, i) for i in range(int(last) + 1, int(last) + 4))
            answer = b"retry: 10\n" + answer
            kind = "text/event-stream"
            if int(last) >= 9:
                stream.sendall(connection.send(h11.Response(status_code=204, headers=[])))
                stream.sendall(connection.send(h11.EndOfMessage()))
                connection.start_next_cycle()
                continue
        fields += [("Content-Type", kind), ("Content-Length", str(len(answer)))]
        stream.sendall(connection.send(h11.Response(status_code=200, headers=fields)))
        if request.method != b"HEAD":
            stream.sendall(connection.send(h11.Data(data=answer)))
        stream.sendall(connection.send(h11.EndOfMessage()))
        if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
            return
        connection.start_next_cycle()


def block(number):
    """A megabyte that no other one is like."""
    return hashlib.sha256(str(number).encode()).digest() * (BLOCK // 32)


def sum_of_all():
    digest = hashlib.sha256()
    for number in range(SIZE // BLOCK):
        digest.update(block(number))
    return digest.hexdigest()


def deaths(name):
    """How often this process's predecessors have died of `name`; one more now."""
    with open(name, "a+") as file:
        file.seek(0)
        count = len(file.read())
        if count < 2:
            file.write("x")
    return count


def large(stream):
    while True:
        head = head_of(stream)
        if head is None:
            return
        lines = head.split("\r\n")
        method, path, _ = lines[0].split(" ")
        fields = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
        if path == "/sum":
            answer = sum_of_all().encode()
            stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))
        elif method == "GET":
            start, status = 0, b"200 OK"
            extra = b""
            if "range" in fields and fields.get("if-range") == '"v1"':
                start, status = int(fields["range"][6:-1]), b"206 Partial Content"
                extra = b"Content-Range: bytes %d-%d/%d\r\n" % (start, SIZE - 1, SIZE)
            stream.sendall(b"HTTP/1.1 %s\r\nETag: \"v1\"\r\n%sContent-Length: %d\r\n\r\n" % (status, extra, SIZE - start))
            dies = deaths("down") < 2 and start + 300 * BLOCK
            at = start
            while at < SIZE:
                number, skip = divmod(at, BLOCK)
                piece = block(number)[skip:]
                stream.sendall(piece)
                at += len(piece)
                if dies and at >= dies:
                    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    os.chdir(sys.argv[3])
    serve(int(sys.argv[2]), {"odd": odd, "strict": strict, "large": large}[sys.argv[1]])
