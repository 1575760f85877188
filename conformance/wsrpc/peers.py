"""What the independent ends in Python have in common."""

import asyncio
import ssl

import websockets.asyncio.client
import websockets.asyncio.server

CASE_TIME_MAX = 60


def connect(url, ca=None, **options):
    """A bare connection, on which any message may come."""
    context = ssl.create_default_context(cafile=ca) if ca else None
    options = {"max_size": None, "compression": None, "proxy": None, "ssl": context, **options}
    return websockets.asyncio.client.connect(url, **options)


async def listen(handle):
    """Serves until it is ended; says where."""

    async def quiet(connection):
        try:
            await handle(connection)
        except websockets.exceptions.ConnectionClosed:
            pass

    listening = await websockets.asyncio.server.serve(quiet, "127.0.0.1", 0, compression=None, max_size=None)
    host, port = listening.sockets[0].getsockname()
    print(f"listening on {host}:{port}", flush=True)
    await asyncio.get_running_loop().create_future()


async def report(name, case):
    """Runs a case, and prints what becomes of it."""
    try:
        await asyncio.wait_for(case, CASE_TIME_MAX)
        print(f"passed {name}", flush=True)
    except Exception as why:
        words = f"{type(why).__name__} {why}".replace("\n", " ")[:500]
        print(f"failed {name}: {words}", flush=True)
