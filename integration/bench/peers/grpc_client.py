"""gRPC's client, in Python: a round for each line, `NUMBER WINDOW BYTES`. The argument is the port.

The answer is the microseconds of one call: the median where the window is 1.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import deque

import grpc

from integration.bench.peers.grpc_server import METHOD, OPTIONS, SERVICE

__all__ = ["main"]


def main() -> None:
    channel = grpc.insecure_channel(f"127.0.0.1:{sys.argv[1]}", options=OPTIONS)
    grpc.channel_ready_future(channel).result(timeout=30)
    ping = channel.unary_unary(f"/{SERVICE}/{METHOD}")
    for line in sys.stdin:
        number, window, size = map(int, line.split())
        payload = b"h" * size
        if window == 1:
            times = []
            for _ in range(number):
                began = time.perf_counter()
                assert ping(payload) == payload
                times.append(time.perf_counter() - began)
            print(statistics.median(times) * 1e6, flush=True)
        else:
            began = time.perf_counter()
            under_way = deque(ping.future(payload) for _ in range(window))
            for _ in range(number - window):
                assert under_way.popleft().result() == payload
                under_way.append(ping.future(payload))
            for call in under_way:
                assert call.result() == payload
            print((time.perf_counter() - began) / number * 1e6, flush=True)


if __name__ == "__main__":
    main()
