"""Bad input for a server of ours, which must answer with the right code, close with the right one, or go on as if nothing
had come; and whatever it does, another peer, which has a stream, a slow call and calls in between, hears nothing of it.

hostile.py main=ADDRESS small=ADDRESS hasty=ADDRESS long=ADDRESS      prints "passed NAME" or "failed NAME: why" for each case
"""

import asyncio
import base64
import json
import os
import struct
import sys

from websockets.exceptions import ConnectionClosed, InvalidStatus

from peers import connect, report

AT = dict(word.split("=", 1) for word in sys.argv[1:])

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602
SERVER_BUSY, RATE_EXCEEDED = -32002, -32003


def url(name):
    return f"ws://{AT[name]}/rpc"


def request(method, params=None, id=1, **more):
    members = {"jsonrpc": "2.0", "id": id, "method": method, **more}
    if params is not None:
        members["params"] = params
    return json.dumps(members)


async def next_of(connection):
    return json.loads(await asyncio.wait_for(connection.recv(), 20))


async def goes_on(connection):
    """The connection is open, and nothing waits on it."""
    await connection.send(request("echo", ["still there"], "goes on"))
    came = await next_of(connection)
    assert came == {"jsonrpc": "2.0", "result": "still there", "id": "goes on"}, f"{came} came"


async def refused(text, code, id=None, server="main"):
    """A text is answered with an error, and the connection goes on."""
    async with connect(url(server)) as connection:
        await refused_on(connection, text, code, id)


async def refused_on(connection, text, code, id=None):
    await connection.send(text)
    came = await next_of(connection)
    shown = str(text)[:80]
    assert came.get("jsonrpc") == "2.0" and "result" not in came, f"{shown}: {came} came"
    assert came["error"]["code"] == code and came["id"] == id, f"{shown}: {str(came)[:200]} came"
    words = json.dumps(came)
    for secret in ("secret", ".lua", "traceback", "stack", "/"):
        assert secret not in words, f"{shown}: {came} tells {secret}"
    await goes_on(connection)


async def closed(connection, code, reason=None):
    """The other side closes, with this code."""
    try:
        while True:
            await asyncio.wait_for(connection.recv(), 20)
    except ConnectionClosed as end:
        assert end.rcvd and end.rcvd.code == code, f"closed with {end.rcvd}"
        assert reason is None or reason in end.rcvd.reason, f"closed with {end.rcvd}"


async def non_json():
    for text in ("", " ", "nonsense", "{", "[", '{"jsonrpc"', "\x00", "'x'", "{}{}", "NaN", "\ufeff", "[1,]", '"\\ud800"'):
        await refused(text, PARSE_ERROR)


async def non_objects():
    for text in ("1", '"text"', "null", "true", "{}", '{"__proto__":{"jsonrpc":"2.0","method":"echo"}}'):
        await refused(text, INVALID_REQUEST)


async def deep():
    for text in ("[" * 50_000, "[" * 65 + "]" * 65, '{"a":' * 100_000, request("echo", [json.loads("[" * 70 + "]" * 70)])):
        await refused(text, PARSE_ERROR)
    value = json.loads("[" * 60 + "]" * 60)
    async with connect(url("main")) as connection:
        await connection.send(request("echo", [value]))
        assert (await next_of(connection))["result"] == value


async def huge_numbers():
    for text in ("1e400", "-1e400", "1e999999999"):
        await refused('{"jsonrpc":"2.0","id":1,"method":"echo","params":[%s]}' % text, PARSE_ERROR)
        await refused('{"jsonrpc":"2.0","id":%s,"method":"echo"}' % text, PARSE_ERROR)
    async with connect(url("main")) as connection:
        for number in ("9223372036854775807", "-9223372036854775808", "0", "-1", "1e300", "0.1"):
            await connection.send('{"jsonrpc":"2.0","id":%s,"method":"echo","params":[%s]}' % (number, number))
            came = await next_of(connection)
            assert came["id"] == came["result"] == json.loads(number), f"{came} came for {number}"
        # Beyond 64 bits a number is what IEEE 754 makes of it.
        for number in (10**30, 2**64):
            await connection.send(request("echo", [number], number))
            came = await next_of(connection)
            assert came["id"] == came["result"] == float(number), f"{came} came for {number}"
        await connection.send('{"jsonrpc":"2.0","id":7,"method":"echo","params":[%s]}' % ("1" * 300))
        assert (await next_of(connection))["id"] == 7
        await refused_on(connection, '{"jsonrpc":"2.0","id":7,"method":"echo","params":[%s]}' % ("1" * 400), PARSE_ERROR)


async def duplicate_ids():
    async with connect(url("main")) as connection:
        await connection.send(request("slow", [300, "first"], 7))
        await connection.send(request("echo", ["second"], 7))
        came = await next_of(connection)
        assert came["id"] == 7 and came["error"]["code"] == INVALID_REQUEST, f"{came} came"
        came = await next_of(connection)
        assert came == {"jsonrpc": "2.0", "id": 7, "result": "first"}, f"{came} came"
        await connection.send(request("echo", ["again"], 7))
        assert (await next_of(connection))["result"] == "again"
        # In a batch, too; the number is not the text.
        await connection.send("[%s,%s,%s]" % (request("slow", [50, "a"], 1), request("echo", ["b"], 1), request("echo", ["c"], "1")))
        came = {json.dumps(one["id"]) + ("!" if "error" in one else "") for one in await next_of(connection)}
        assert came == {"1", "1!", '"1"'}, f"{came} came"


async def versions():
    for version in ('"1.0"', '"1.1"', '"3.0"', "2.0", "2", "null", '""', '"2.00"', "[]", '{"2.0":1}'):
        await refused('{"jsonrpc":%s,"id":7,"method":"echo","params":[1]}' % version, INVALID_REQUEST, 7)
    await refused('{"id":7,"method":"echo","params":[1]}', INVALID_REQUEST, 7)


async def members():
    for params in ('"text"', "1", "true", "false"):
        await refused('{"jsonrpc":"2.0","id":7,"method":"echo","params":%s}' % params, INVALID_REQUEST, 7)
    for method in ("null", "1", "[]", "{}", '["echo"]'):
        await refused('{"jsonrpc":"2.0","id":7,"method":%s,"params":[1]}' % method, INVALID_REQUEST, 7)
    for id in ("true", "[]", "{}", '{"toString":1}', '[["x"]]'):
        await refused('{"jsonrpc":"2.0","id":%s,"method":"echo","params":[1]}' % id, INVALID_REQUEST)
    await refused(request("echo", {"valeu": 1}, 7), INVALID_PARAMS, 7)
    await refused(request("echo", [1, 2], 7), INVALID_PARAMS, 7)
    async with connect(url("main")) as connection:
        # RFC 8259, 4: of members with the same name the last counts, here as in most parsers.
        await connection.send('{"jsonrpc":"2.0","id":1,"id":2,"method":"foobar","method":"echo","params":[1],"params":[2]}')
        came = await next_of(connection)
        assert came == {"jsonrpc": "2.0", "id": 2, "result": 2}, f"{came} came"
        # 4: members that nobody knows harm nothing.
        await connection.send(request("echo", [3], 3, __proto__=1, constructor={}, extra=[None]))
        assert (await next_of(connection))["result"] == 3


async def names():
    for name in (
        "__gc", "__index", "__newindex", "__close", "__mode", "__name", "__proto__", "constructor", "prototype", "toString",
        "hasOwnProperty", "valueOf", "os.execute", "print", "_G", "load", "require", "", " ", "echo ", "ECHO", "echo\x00",
        "rpc.x", "rpc.subscribe.x", "$/x", "eval", "é" * 1000, "x" * 100_000, "flood",
    ):
        await refused(request(name, [], 7), METHOD_NOT_FOUND, 7)


async def prototypes():
    names = ("__proto__", "constructor", "__index", "__gc", "__metatable", "toString", "length", "__name")
    value = {name: {"polluted": name} for name in names}
    async with connect(url("main")) as connection:
        for params in ([value], {"value": value}):
            await connection.send(request("echo", params))
            came = await next_of(connection)
            assert came["result"] == value, f"{came} came"
        for name in names:
            await refused_on(connection, request("echo", {name: 1}, 7), INVALID_PARAMS, 7)
            # As an id, as a subscription, as what is to be cancelled, it is a text.
            await connection.send(request("echo", [name], name))
            assert (await next_of(connection))["id"] == name
            await connection.send(request("$/cancelRequest", {"id": name}, None).replace('"id": null, ', "", 1))
            for method in ("rpc.next", "rpc.end", "rpc.credit", "rpc.unsubscribe"):
                params = {"subscription": name, "value": 1, "credit": 1}
                await connection.send(json.dumps({"jsonrpc": "2.0", "method": method, "params": params}))
            await goes_on(connection)


async def long_ids():
    for length in (257, 100_000):
        await refused(request("echo", [1], "x" * length), INVALID_REQUEST)
    async with connect(url("main")) as connection:
        id = "x" * 256
        await connection.send(request("echo", [1], id))
        assert (await next_of(connection))["id"] == id
    # Where messages may be so long, it is an id that is none; elsewhere the message is too long.
    await refused(request("echo", [1], "x" * 10_000_000), INVALID_REQUEST, server="long")
    connection = await connect(url("main"))
    try:
        await connection.send(request("echo", [1], "x" * 10_000_000))
    except ConnectionClosed:
        pass
    await closed(connection, 1009)


async def binary():
    for payload in (b"", b"\x00", request("echo", [1]).encode()):
        connection = await connect(url("main"))
        await connection.send(payload)
        await closed(connection, 1003)


async def raw(frames):
    """A connection of our own making, for frames that no library sends: the code of the Close that comes."""
    host, port = AT["main"].rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET /rpc HTTP/1.1\r\nHost: {AT['main']}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101"), head
    writer.write(frames)
    try:
        while True:
            first, length = await asyncio.wait_for(reader.readexactly(2), 20)
            payload = await reader.readexactly(length)
            if first == 0x88:
                return struct.unpack(">H", payload[:2])[0]
    finally:
        writer.close()


def frame(opcode, payload, masked=True, fin=True):
    first = opcode | (0x80 if fin else 0)
    length = len(payload) if len(payload) < 126 else 126
    head = bytes((first, length | (0x80 if masked else 0)))
    if length == 126:
        head += struct.pack(">H", len(payload))
    return head + (b"\0\0\0\0" if masked else b"") + payload


async def not_utf8():
    for payload in (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b'{"jsonrpc":"2.0","id":"\xe9","method":"echo"}', b"\xf5\x80\x80\x80"):
        code = await raw(frame(1, payload))
        assert code == 1007, f"closed with {code}"
    # Cut within a character.
    code = await raw(frame(1, b'"\xe2\x82', fin=False) + frame(0, b'x"'))
    assert code == 1007, f"closed with {code}"


async def broken_frames():
    for frames in (frame(1, b"{}", masked=False), frame(3, b"{}"), b"\xf1\x80\0\0\0\0", frame(0, b"{}"), frame(9, b"", fin=False)):
        code = await raw(frames)
        assert code == 1002, f"closed with {code}"


async def fragments():
    async with connect(url("main")) as connection:
        text = request("echo", ["aß€\U0001F600"])
        await connection.send(list(text))
        assert (await next_of(connection))["result"] == "aß€\U0001F600"
    # Whoever goes in the middle of a message takes nobody along.
    host, port = AT["main"].rsplit(":", 1)
    for cut in (1, 3, 7, 40):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"GET /rpc HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        writer.write(frame(1, request("slow", [10000, "x"]).encode())[:cut])
        await writer.drain()
        writer.transport.abort()


async def batches():
    await refused("[]", INVALID_REQUEST)
    await refused("[%s]" % ",".join([request("echo", [1])] * 101), INVALID_REQUEST)
    async with connect(url("main")) as connection:
        await connection.send("[[],[[]],1,{},null]")
        came = await next_of(connection)
        assert [one["error"]["code"] for one in came] == [INVALID_REQUEST] * 5 and [one["id"] for one in came] == [None] * 5
        await connection.send("[%s]" % ",".join(request("echo", [n], n) for n in range(100)))
        assert sorted(one["result"] for one in await next_of(connection)) == list(range(100))
        await goes_on(connection)


async def subscriptions():
    def subscribe(id, params):
        return request("rpc.subscribe", params, id)

    async with connect(url("main")) as connection:
        for params in ({}, [], {"subscription": 1, "name": "flood"}, {"subscription": [], "name": "flood", "credit": 1},
                       {"subscription": 1, "name": "flood", "credit": 0}, {"subscription": 1, "name": 1, "credit": 1},
                       {"subscription": 1, "name": "flood", "credit": 1, "params": ["x"]}):
            await refused_on(connection, subscribe(7, params), INVALID_PARAMS, 7)
        for name in ("__gc", "constructor", "nothing", "echo"):
            await refused_on(connection, subscribe(7, {"subscription": 1, "name": name, "credit": 1}), METHOD_NOT_FOUND, 7)
        # As many values come as were asked for, and not one more.
        await connection.send(subscribe(8, {"subscription": "s", "name": "flood", "credit": 3, "params": [10]}))
        assert (await next_of(connection))["result"] is True
        for _ in range(3):
            assert (await next_of(connection))["params"] == {"subscription": "s", "value": "x" * 10}
        await goes_on(connection)
        await refused_on(connection, subscribe(9, {"subscription": "s", "name": "flood", "credit": 1, "params": [1]}), INVALID_PARAMS, 9)
        await connection.send('{"jsonrpc":"2.0","method":"rpc.credit","params":{"subscription":"s","credit":-5}}')
        await connection.send('{"jsonrpc":"2.0","method":"rpc.credit","params":{"subscription":"s","credit":"many"}}')
        await goes_on(connection)
        await connection.send('{"jsonrpc":"2.0","method":"rpc.unsubscribe","params":{"subscription":"s"}}')
        await goes_on(connection)


async def answers_to_nothing():
    async with connect(url("main")) as connection:
        for text in (
            '{"jsonrpc":"2.0","id":1,"result":1}',
            '{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":"x"}}',
            '{"jsonrpc":"2.0","id":"__gc","result":{}}',
            '{"jsonrpc":"2.0","result":1}',
            '{"jsonrpc":"2.0","id":{},"error":"x"}',
        ):
            await connection.send(text)
        await goes_on(connection)


async def limits():
    headers = {"Authorization": "Bearer secret"}
    async with connect(url("small"), additional_headers=headers) as connection:
        for id in range(5):
            await connection.send(request("slow", [200, id], id))
        came = await next_of(connection)
        assert came["id"] == 4 and came["error"]["code"] == SERVER_BUSY, f"{came} came"
        assert sorted([(await next_of(connection))["result"] for _ in range(4)]) == [0, 1, 2, 3]
        await refused_on(connection, "[%s]" % ",".join(request("echo", [n], n) for n in range(4)), INVALID_REQUEST)
        for number in (1, 2, 3):
            params = {"subscription": number, "name": "flood", "credit": 1, "params": [1]}
            await connection.send(request("rpc.subscribe", params, f"s{number}"))
        came = [await next_of(connection) for _ in range(5)]
        [wrong] = [one for one in came if "error" in one]
        assert wrong["id"] == "s3" and wrong["error"]["code"] == SERVER_BUSY, f"{wrong} came"


async def rate():
    connection = await connect(url("hasty"))
    told = None
    try:
        for id in range(2000):
            await connection.send(request("foobar", [id], id))
    except ConnectionClosed:
        pass
    try:
        while True:
            came = await next_of(connection)
            if came["error"]["code"] != METHOD_NOT_FOUND:
                told = told or came["error"]["code"]
    except ConnectionClosed as end:
        assert end.rcvd and end.rcvd.code == 1008 and "too many messages" in end.rcvd.reason, f"closed with {end.rcvd}"
    assert told == RATE_EXCEEDED, f"{told} came first"


async def slow_reader():
    """Asks for much and reads nothing, until the server says that it has cut somebody off."""
    headers = {"Authorization": "Bearer secret"}
    async with connect(url("main")) as other:
        # What the library reads ahead is little.
        connection = await connect(url("small"), additional_headers=headers, max_queue=1)
        params = {"subscription": 1, "name": "flood", "credit": 100_000, "params": [100_000]}
        await connection.send(request("rpc.subscribe", params))
        await other.send(request("cut", [], "cut"))
        came = await next_of(other)
        assert "too slow" in came["result"], f"{came} came"
        connection.transport.abort()


async def strangers():
    async def status(**options):
        try:
            await connect(url(options.pop("server", "main")), **options)
        except InvalidStatus as why:
            return why.response.status_code
        return 101

    assert await status(origin="http://elsewhere.example") == 403
    assert await status(origin="null") == 403
    assert await status(origin=f"http://{AT['main']}") == 101
    assert await status(server="small") == 401
    assert await status(server="small", additional_headers={"Authorization": "Bearer secreT"}) == 403
    assert await status(server="small", additional_headers={"Authorization": "Basic secret"}) == 401
    assert await status(server="small", additional_headers={"Authorization": "Bearer secret"}) == 101


CASES = (
    ("what is no JSON is a parse error", non_json),
    ("what is no object is an invalid request", non_objects),
    ("deep nesting is a parse error", deep),
    ("huge numbers are parse errors, or the nearest number", huge_numbers),
    ("an id that is in use is refused, and the call that has it goes on", duplicate_ids),
    ("unknown versions are invalid requests", versions),
    ("members of the wrong kind are refused, unknown ones are not", members),
    ("names of metamethods, prototypes and functions are methods not found", names),
    ("prototype-style names are data like any other", prototypes),
    ("an id of 10 MB is refused, or the message is too long", long_ids),
    ("binary messages close with 1003", binary),
    ("what is not UTF-8 closes with 1007", not_utf8),
    ("frames that are none close with 1002", broken_frames),
    ("messages in pieces are whole, and half ones nobody's", fragments),
    ("batches that are none are refused", batches),
    ("subscriptions that make no sense are refused", subscriptions),
    ("answers that nobody waits for are passed over", answers_to_nothing),
    ("calls, batches and subscriptions beyond the limits are refused", limits),
    ("too many messages close with 1008", rate),
    ("a peer that does not read is cut off", slow_reader),
    ("strangers are not let in", strangers),
)


async def main():
    async with connect(url("main")) as bystander:
        params = {"subscription": 1, "name": "flood", "credit": 1, "params": [5]}
        await bystander.send(request("rpc.subscribe", params, "stream"))
        assert (await next_of(bystander))["result"] is True
        assert (await next_of(bystander))["params"]["value"] == "xxxxx"

        async def unharmed(case):
            await bystander.send(request("slow", [50, "slow"], "slow"))
            try:
                await asyncio.wait_for(case(), 50)
            finally:
                came = await next_of(bystander)
            assert came == {"jsonrpc": "2.0", "id": "slow", "result": "slow"}, f"{came} came to another peer"
            await goes_on(bystander)
            await bystander.send('{"jsonrpc":"2.0","method":"rpc.credit","params":{"subscription":1,"credit":1}}')
            came = await next_of(bystander)
            assert came["params"]["value"] == "xxxxx", f"{came} came to another peer"

        for name, case in CASES:
            await report(name, unharmed(case))


asyncio.run(main())
