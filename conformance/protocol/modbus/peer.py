"""pymodbus as the other end of Modbus TCP.

peer.py server            holds 100 coils, discrete inputs, holding and input registers; prints "listening on 127.0.0.1:PORT"
peer.py client ADDRESS    drives a server of ours; prints "passed NAME" or "failed NAME: why" for each case
"""

import asyncio
import sys

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

CASE_TIME_MAX = 30


async def server():
    bits = SimData(0, values=[address % 3 == 0 for address in range(112)], datatype=DataType.BITS)
    words = SimData(0, values=list(range(100)), datatype=DataType.REGISTERS)
    device = SimDevice(0, simdata=([bits], [bits], [words], [words]))
    one = ModbusTcpServer(device, address=("127.0.0.1", 0))
    await one.listen()
    host, port = one.transport.sockets[0].getsockname()
    print(f"listening on {host}:{port}", flush=True)
    await asyncio.get_running_loop().create_future()


async def client(address):
    host, port = address.rsplit(":", 1)
    one = AsyncModbusTcpClient(host, port=int(port), timeout=5, retries=0)
    assert await one.connect()

    async def coils():
        assert (await one.read_coils(0, count=10)).bits[:10] == [n % 3 == 0 for n in range(10)]
        assert not (await one.write_coil(1, True)).isError()
        assert not (await one.write_coils(2, [True, False, True])).isError()
        assert (await one.read_coils(0, count=6)).bits[:6] == [True, True, True, False, True, False]

    async def inputs():
        assert (await one.read_discrete_inputs(3, count=4)).bits[:4] == [True, False, False, True]
        assert (await one.read_input_registers(90, count=10)).registers == list(range(90, 100))

    async def registers():
        assert (await one.read_holding_registers(0, count=100)).registers == list(range(100))
        assert not (await one.write_register(1, 65535)).isError()
        assert not (await one.write_registers(2, [7, 8])).isError()
        both = await one.readwrite_registers(read_address=0, read_count=6, write_address=4, values=[9, 10])
        assert both.registers == [0, 65535, 7, 8, 9, 10], both

    async def refusals():
        assert (await one.read_holding_registers(99, count=2)).exception_code == 2
        assert (await one.write_register(100, 1)).exception_code == 2
        assert (await one.read_exception_status()).exception_code == 1
        assert (await one.read_coils(0, count=1, device_id=7)).bits[0] is True

    async def pipelined():
        answers = await asyncio.gather(*(one.read_input_registers(n, count=2) for n in range(50)))
        assert [answer.registers for answer in answers] == [[n, n + 1] for n in range(50)]

    for name, case in {
        "coils are read and written": coils,
        "inputs are read": inputs,
        "registers are read, written, and both at once": registers,
        "what is not there is refused with its exception code": refusals,
        "requests that are sent together are answered": pipelined,
    }.items():
        try:
            await asyncio.wait_for(case(), CASE_TIME_MAX)
            print(f"passed {name}", flush=True)
        except Exception as why:
            words = f"{type(why).__name__} {why}".replace("\n", " ")[:500]
            print(f"failed {name}: {words}", flush=True)
    one.close()


if sys.argv[1] == "server":
    asyncio.run(server())
else:
    asyncio.run(client(sys.argv[2]))
