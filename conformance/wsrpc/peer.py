"""An independent end of JSON-RPC connections over WebSocket: jsonrpcserver or jsonrpcclient, over websockets.

peer.py server              offers what every server here offers; prints "listening on 127.0.0.1:PORT"
peer.py client URL [CA]     drives a server of ours; prints "passed NAME" or "failed NAME: why" for each case
"""

import asyncio
import json
import sys
import time

from jsonrpcclient import Error, Ok, notification, parse, request
from jsonrpcserver import Error as Refusal
from jsonrpcserver import InvalidParams, Success, async_dispatch

from peers import connect, listen, report


def service():
    """What a connection may call."""
    heard = 0

    async def subtract(minuend, subtrahend):
        if not all(type(one) is int for one in (minuend, subtrahend)):
            return InvalidParams()
        return Success(minuend - subtrahend)

    async def update(*_):
        nonlocal heard
        heard += 1
        return Success()

    async def slow(milliseconds, value):
        await asyncio.sleep(milliseconds / 1000)
        return Success(value)

    async def answer(value):
        return Success(value)

    return {
        "subtract": subtract,
        "sum": lambda *numbers: answer(sum(numbers)),
        "get_data": lambda: answer(["hello", 5]),
        "update": update,
        "notify_hello": lambda *_: answer(None),
        "notify_sum": lambda *_: answer(None),
        "heard": lambda: answer(heard),
        "echo": answer,
        "slow": slow,
        "fail": lambda: refuse(-7, "no such sensor", {"sensor": 3}),
    }


async def refuse(code, message, data):
    return Refusal(code, message, data)


async def server():
    async def handle(connection):
        methods, running = service(), set()

        async def one(text):
            answer = await async_dispatch(text, methods=methods)
            if answer:
                await connection.send(answer)

        async for text in connection:
            task = asyncio.create_task(one(text))
            running.add(task)
            task.add_done_callback(running.discard)

    await listen(handle)


class Client:
    """Calls whose answers come in any order."""

    def __init__(self, connection):
        self.connection, self.waiting = connection, {}
        self.reader = asyncio.create_task(self.read())

    async def read(self):
        async for text in self.connection:
            came = json.loads(text)
            ids = tuple(sorted(one["id"] for one in came)) if isinstance(came, list) else came["id"]
            self.waiting.pop(ids).set_result(parse(came))

    async def ask(self, requests):
        """One request, or a batch."""
        several = isinstance(requests, list)
        ids = tuple(sorted(one["id"] for one in requests if "id" in one)) if several else requests["id"]
        self.waiting[ids] = asyncio.get_running_loop().create_future()
        future = self.waiting[ids]
        await self.connection.send(json.dumps(requests))
        return await future

    async def call(self, method, params=None):
        return await self.ask(request(method, params))


async def client(url, ca):
    async def params(one):
        came = await one.call("subtract", (42, 23))
        assert isinstance(came, Ok) and came.result == 19, f"{came} came"
        assert (await one.call("subtract", {"subtrahend": 23, "minuend": 42})).result == 19
        assert (await one.call("sum", (1, 2, 4))).result == 7
        assert (await one.call("get_data")).result == ["hello", 5]

    async def values(one):
        for value in (None, True, -1, 2**63 - 1, 0.1, "", "aß€\U0001F600\0\"\\", [], {}, [[], {}], {"": {"a": [1]}}, "x" * 500_000):
            came = (await one.call("echo", (value,))).result
            assert came == value and type(came) is type(value), f"{came!r} came"

    async def errors(one):
        came = await one.call("fail")
        assert isinstance(came, Error) and (came.code, came.message, came.data) == (-7, "no such sensor", {"sensor": 3}), came
        for method, given, code in (("foobar", None, -32601), ("subtract", ("a", "b"), -32602), ("subtract", (1,), -32602), ("raise", None, -32603)):
            came = await one.call(method, given)
            assert isinstance(came, Error) and came.code == code, f"{came} came"
            assert "secret" not in str(came), f"{came} came"

    async def notifications(one):
        before = (await one.call("heard")).result
        for value in range(10):
            await one.connection.send(json.dumps(notification("update", (value,))))
        await one.connection.send(json.dumps(notification("foobar")))
        assert (await one.call("heard")).result == before + 10

    async def overtaking(one):
        slow = asyncio.create_task(one.call("slow", (2000, "slow")))
        begun = time.monotonic()
        for value in range(100):
            assert (await one.call("echo", (value,))).result == value
        assert time.monotonic() - begun < 1.9 and not slow.done()
        assert (await slow).result == "slow"

    async def batch(one):
        requests = [request("slow", (50, "first")), notification("update"), request("foobar"), request("echo", ("third",))]
        came = {answer.id: answer for answer in await one.ask(requests)}
        assert came[requests[0]["id"]].result == "first"
        assert came[requests[2]["id"]].code == -32601
        assert came[requests[3]["id"]].result == "third"

    async def streams(_):
        # What this stack adds is JSON-RPC, too: a subscription with credit.
        async with connect(url, ca) as connection:
            await connection.send(json.dumps(request("rpc.subscribe", {"subscription": "s", "name": "flood", "params": [3], "credit": 2})))
            answers = [json.loads(await connection.recv()) for _ in range(3)]
            assert answers[0]["result"] is True, answers
            assert [one["params"] for one in answers[1:]] == [{"subscription": "s", "value": "xxx"}] * 2, answers
            await connection.send(json.dumps(notification("rpc.unsubscribe", {"subscription": "s"})))

    async with connect(url, ca) as connection:
        one = Client(connection)
        for name, case in (
            ("params come by position and by name", params),
            ("values of every kind come back the same", values),
            ("errors have their code, message and data, and tell no secret", errors),
            ("notifications are heard and not answered", notifications),
            ("slow calls are overtaken by fast ones", overtaking),
            ("a batch is answered, errors included", batch),
            ("a stream gives as many values as were asked for", streams),
        ):
            await report(name, case(one))
        one.reader.cancel()


if sys.argv[1] == "server":
    asyncio.run(server())
else:
    asyncio.run(client(sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None))
