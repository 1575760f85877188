"""The examples of the JSON-RPC 2.0 specification, section 7, over real sockets.

vectors.py ask URL [CA]     sends what the examples send, and compares what comes
vectors.py serve            answers as the examples do, and sees that what comes is what they send; prints
                            "listening on 127.0.0.1:PORT"

The first prints "passed NAME" or "failed NAME: why" for each example. The words of an error are the server's own, and
so is whether it says more in `data`: its code, its id, and that there is one, are not.
"""

import asyncio
import json
import sys

from peers import connect, listen, report

PARSE_ERROR = '{"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}, "id": null}'
INVALID = '{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}'
NOT_FOUND = '{"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": "%s"}'

EXAMPLES = (
    (
        "rpc call with positional parameters",
        (
            (
                '{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}',
                '{"jsonrpc": "2.0", "result": 19, "id": 1}',
            ),
            (
                '{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}',
                '{"jsonrpc": "2.0", "result": -19, "id": 2}',
            ),
        ),
    ),
    (
        "rpc call with named parameters",
        (
            (
                '{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}',
                '{"jsonrpc": "2.0", "result": 19, "id": 3}',
            ),
            (
                '{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 4}',
                '{"jsonrpc": "2.0", "result": 19, "id": 4}',
            ),
        ),
    ),
    (
        "a Notification",
        (
            ('{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}', None),
            ('{"jsonrpc": "2.0", "method": "foobar"}', None),
        ),
    ),
    (
        "rpc call of non-existent method",
        (('{"jsonrpc": "2.0", "method": "foobar", "id": "1"}', NOT_FOUND % "1"),),
    ),
    (
        "rpc call with invalid JSON",
        (('{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]', PARSE_ERROR),),
    ),
    (
        "rpc call with invalid Request object",
        (('{"jsonrpc": "2.0", "method": 1, "params": "bar"}', INVALID),),
    ),
    (
        "rpc call Batch, invalid JSON",
        (
            (
                '[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},{"jsonrpc": "2.0", "method"]',
                PARSE_ERROR,
            ),
        ),
    ),
    ("rpc call with an empty Array", (("[]", INVALID),)),
    ("rpc call with an invalid Batch (but not empty)", (("[1]", f"[{INVALID}]"),)),
    ("rpc call with invalid Batch", (("[1,2,3]", f"[{INVALID}, {INVALID}, {INVALID}]"),)),
    (
        "rpc call Batch",
        (
            (
                '[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},'
                '{"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},'
                '{"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},'
                '{"foo": "boo"},'
                '{"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},'
                '{"jsonrpc": "2.0", "method": "get_data", "id": "9"}]',
                '[{"jsonrpc": "2.0", "result": 7, "id": "1"},'
                '{"jsonrpc": "2.0", "result": 19, "id": "2"},'
                + INVALID
                + ","
                + NOT_FOUND % "5"
                + ', {"jsonrpc": "2.0", "result": ["hello", 5], "id": "9"}]',
            ),
        ),
    ),
    (
        "rpc call Batch (all notifications)",
        (
            (
                '[{"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},'
                '{"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}]',
                None,
            ),
        ),
    ),
)

PROBE = '{"jsonrpc": "2.0", "method": "get_data", "id": "probe"}'
PROBED = {"jsonrpc": "2.0", "result": ["hello", 5], "id": "probe"}


def plain(answer):
    """What counts of an answer: not the words of an error, nor the order within a batch (6)."""
    if isinstance(answer, list):
        return sorted((plain(one) for one in answer), key=lambda one: json.dumps(one, sort_keys=True))
    if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
        error = answer["error"]
        assert isinstance(error.get("message"), str), f"an error without a message: {answer}"
        return {**answer, "error": error.get("code")}
    return answer


async def ask(url, ca):
    """Each example on a connection of its own: how one ends must not matter to another."""

    async def example(pairs):
        async with connect(url, ca) as connection:
            for request, right in pairs:
                await connection.send(request)
                if right is not None:
                    came = json.loads(await asyncio.wait_for(connection.recv(), 10))
                    assert plain(came) == plain(json.loads(right)), f"{came} came"
                # Nothing came besides, and the connection goes on.
                await connection.send(PROBE)
                came = json.loads(await asyncio.wait_for(connection.recv(), 10))
                assert came == PROBED, f"{came} came"

    for name, pairs in EXAMPLES:
        await report(f"(7) {name}", example(pairs))


async def serve():
    """Answers each request like one of the examples as they do, under the id that came; anything else is an error."""
    pairs = [pair for _, pairs in EXAMPLES for pair in pairs] + [(PROBE, json.dumps(PROBED))]

    def without_ids(value):
        """The ids are the client's own; that there is one tells a call from a notification."""
        if isinstance(value, list):
            return [without_ids(one) for one in value]
        return {**value, "id": "id" in value} if isinstance(value, dict) else value

    known = {}
    for request, right in pairs:
        try:
            request = json.loads(request)
        except ValueError:
            continue
        if isinstance(request, list):
            # What no client of ours can send.
            request = [one for one in request if isinstance(one, dict) and "method" in one]
        known[json.dumps(without_ids(request), sort_keys=True)] = (request, right and json.loads(right))

    def answer(came):
        example = known.get(json.dumps(without_ids(came), sort_keys=True))
        if not example:
            return {"jsonrpc": "2.0", "error": {"code": -1, "message": f"no example sends {came}"}, "id": came.get("id")}
        request, right = example
        if right is None:
            return None
        if not isinstance(came, list):
            return {**right, "id": came["id"]}
        ids = {one["id"]: other.get("id") for one, other in zip(request, came) if "id" in one}
        # 6: in any order
        return [{**one, "id": ids.get(one["id"])} for one in reversed(right)]

    async def handle(connection):
        notified = []
        async for text in connection:
            came = json.loads(text)
            if isinstance(came, dict) and came.get("method") == "notified":
                right = {"jsonrpc": "2.0", "result": notified, "id": came["id"]}
            elif isinstance(came, dict) and came.get("method") == "parse error":
                # 5.1: the id could not be told; the call itself is answered behind it.
                await connection.send(PARSE_ERROR)
                right = {"jsonrpc": "2.0", "result": "unharmed", "id": came["id"]}
            else:
                right = answer(came)
                if right is None:
                    notified.append(came)
                    continue
            await connection.send(json.dumps(right))

    await listen(handle)


asyncio.run(serve() if sys.argv[1] == "serve" else ask(sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None))
