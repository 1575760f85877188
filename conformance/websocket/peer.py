"""An independent end of WebSocket connections (Python websockets), for client and server of ours.

peer.py server [CERT KEY]    says everything back, with them over TLS; prints "listening on 127.0.0.1:PORT"
peer.py client URL [CA]     drives an echo server of ours; prints "passed NAME" or "failed NAME: why" for each case
"""

import asyncio
import random
import ssl
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    ServerPerMessageDeflateFactory,
)

SIZES = (0, 1, 125, 126, 65535, 65536, 1000000)


async def server(certificate=None, key=None):
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)

    async def echo(connection):
        path = connection.request.path
        if path == "/close":
            await connection.close(3001, "as asked")
            return
        if path == "/drop":
            connection.transport.abort()
            return
        try:
            async for message in connection:
                if path == "/pieces" and isinstance(message, str):
                    await connection.send([message[at : at + 1000] for at in range(0, len(message), 1000)])
                else:
                    await connection.send(message)
        except ConnectionClosed:
            pass

    listening = await serve(
        echo,
        "127.0.0.1",
        0,
        ssl=context,
        select_subprotocol=lambda _, offered: "echo" if "echo" in offered else None,
        max_size=None,
        ping_interval=0.2,
        ping_timeout=5,
        extensions=[ServerPerMessageDeflateFactory()],
        compression=None,
    )
    host, port = listening.sockets[0].getsockname()
    print(f"listening on {host}:{port}", flush=True)
    await asyncio.get_running_loop().create_future()


async def echoes(connection, random):
    for size in SIZES:
        text = "".join(random.choice("abß€\U0001F600 ") for _ in range(min(size, 10000)))
        for message in (text, random.randbytes(size)):
            await connection.send(message)
            assert await connection.recv() == message, f"another message came back for one of {size} bytes"


async def client(url, ca):
    context = ssl.create_default_context(cafile=ca) if ca else None
    options = {"ssl": context, "max_size": None, "proxy": None}
    generator = random.Random(6455)

    async def plain():
        async with connect(url, compression=None, **options) as connection:
            await echoes(connection, generator)

    async def compressed():
        for bits in (9, 12, 15):
            for alone in (False, True):
                factory = ClientPerMessageDeflateFactory(
                    client_no_context_takeover=alone,
                    server_no_context_takeover=alone,
                    client_max_window_bits=bits,
                    server_max_window_bits=bits,
                )
                async with connect(url, compression=None, extensions=[factory], **options) as connection:
                    assert connection.protocol.extensions, "no compression was agreed on"
                    await echoes(connection, generator)

    async def fragments():
        async with connect(url, compression=None, **options) as connection:
            await connection.send(["one ", "two ", "three"])
            assert await connection.recv() == "one two three"

    async def pings():
        async with connect(url, compression=None, **options) as connection:
            await asyncio.wait_for(await connection.ping(b"payload"), 5)

    async def subprotocol():
        async with connect(url, subprotocols=["other", "echo"], compression=None, **options) as connection:
            assert connection.subprotocol == "echo", connection.subprotocol

    async def closes():
        connection = await connect(url, compression=None, **options)
        await connection.close(3002, "enough")
        assert connection.close_code == 3002, connection.close_code

    async def origin():
        try:
            await connect(url, origin="http://elsewhere.example", compression=None, **options)
        except InvalidStatus as refused:
            assert refused.response.status_code == 403, refused
        else:
            raise AssertionError("the page was let in")

    async def together():
        async def one(number):
            async with connect(url, compression=None, **options) as connection:
                for round in range(20):
                    await connection.send(f"{number} {round}")
                    assert await connection.recv() == f"{number} {round}"

        await asyncio.gather(*(one(number) for number in range(50)))

    for name, case in (
        ("messages of every size are said back", plain),
        ("compressed with every window, with and without context takeover", compressed),
        ("fragments are one message", fragments),
        ("a ping is answered", pings),
        ("the subprotocol is agreed on", subprotocol),
        ("a close is answered with its code", closes),
        ("a page of another origin is refused with 403", origin),
        ("fifty connections at once", together),
    ):
        try:
            await asyncio.wait_for(case(), 30)
            print(f"passed {name}", flush=True)
        except Exception as why:
            print(f"failed {name}: {type(why).__name__} {why}", flush=True)


if sys.argv[1] == "server":
    asyncio.run(server(*sys.argv[2:]))
else:
    asyncio.run(client(sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None))
