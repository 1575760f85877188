"""JSON-RPC over Python websockets, with nothing in between: what a script would write by hand.

rpc_peer.py serve PORT
rpc_peer.py call URL N WINDOW       N calls, WINDOW of them under way; prints how many, and in how many seconds
"""

import asyncio
import json
import sys
import time

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve


async def server(port):
    async def answer(connection):
        async for text in connection:
            request = json.loads(text)
            await connection.send(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": sum(request["params"])}))

    async with serve(answer, "127.0.0.1", port, compression=None):
        await asyncio.get_running_loop().create_future()


async def client(url, count, window):
    async with connect(url, compression=None, proxy=None) as connection:
        waiting, last = {}, 0

        async def read():
            async for text in connection:
                came = json.loads(text)
                waiting.pop(came["id"]).set_result(came["result"])

        async def caller(calls):
            nonlocal last
            for _ in range(calls):
                last += 1
                answer = waiting[last] = asyncio.get_running_loop().create_future()
                await connection.send(json.dumps({"jsonrpc": "2.0", "id": last, "method": "sum", "params": [1, 2]}))
                assert await answer == 3

        reader = asyncio.create_task(read())
        begun = time.monotonic()
        await asyncio.gather(*(caller((count + window - 1 - at) // window) for at in range(window)))
        print(json.dumps({"n": count, "secs": time.monotonic() - begun, "bytes": 0}), flush=True)
        reader.cancel()


if sys.argv[1] == "serve":
    asyncio.run(server(int(sys.argv[2])))
else:
    asyncio.run(client(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
