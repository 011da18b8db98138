"""A burst: as many deliveries at once as connections."""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence

SECONDS_MAX = 30.0
Answer = tuple[int, str]  # the status, 0 without a response; and what the body says


def send_burst(port: int, bodies: Sequence[bytes]) -> Counter[Answer]:
    """Open all connections, then send on all of them; return when all are answered.

    Raise TimeoutError after SECONDS_MAX.
    """
    return asyncio.run(_send(port, bodies))


async def _send(port: int, bodies: Sequence[bytes]) -> Counter[Answer]:
    connected = asyncio.Barrier(len(bodies))
    async with asyncio.timeout(SECONDS_MAX):
        return Counter(await asyncio.gather(*(_deliver(port, body, connected) for body in bodies)))


async def _deliver(port: int, body: bytes, connected: asyncio.Barrier) -> Answer:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await connected.wait()
    writer.write(
        b"POST /api/webhook/bank/ HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    try:
        status = int((await reader.readline()).split()[1])
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split()[0])
        answer = json.loads(await reader.readexactly(length))
    except (OSError, EOFError, IndexError) as exc:
        return 0, repr(exc)
    finally:
        writer.close()
    return status, answer.get("status") or answer["error"]
