"""The client that the Autobahn suite tests:  python echo_client.py URL AGENT"""

import asyncio
import sys

import fullduplex


async def main(url: str, agent: str) -> None:
    async with fullduplex.connect(f"{url}/getCaseCount") as ws:
        count = int(await ws.recv())
    for case in range(1, count + 1):
        # The largest messages of the suite are 16 MiB. A ping of ours would be an event that no case foresees.
        try:
            async with fullduplex.connect(
                f"{url}/runCase?case={case}&agent={agent}", max_size=2**24 + 1, ping_interval=None
            ) as ws:
                async for message in ws:
                    await ws.send(message)
        except fullduplex.ConnectionClosed:
            pass  # most cases break a rule; the suite has seen how the connection ended
    async with fullduplex.connect(f"{url}/updateReports?agent={agent}") as ws:
        await ws.wait_closed()


asyncio.run(main(*sys.argv[1:]))
