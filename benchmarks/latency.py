"""How long the answer to a small request takes on a kept connection: `GET /health`, and a chat answer of one token.

    python benchmarks/latency.py http://127.0.0.1:8000 http://127.0.0.1:8001

Several servers are asked in turn, request by request, so that whatever else the machine does meets all of them alike.
Prints the median and the 95th percentile of each, in milliseconds.
"""

import argparse
import http.client
import json
import statistics
import time
from urllib.parse import urlsplit

QUESTION = {"messages": [{"role": "user", "content": "what color is the sky?"}], "max_tokens": 1}


class Server:
    """One server, asked over one connection."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        self._model = json.loads(self._ask("GET", "/v1/models"))["data"][0]["id"]

    def health(self) -> None:
        """Ask how it is."""
        self._ask("GET", "/health")

    def chat(self) -> None:
        """Ask for one token."""
        self._ask("POST", "/v1/chat/completions", json.dumps({"model": self._model, **QUESTION}))

    def _ask(self, method: str, path: str, body: str | None = None) -> bytes:
        self._connection.request(method, path, body, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise ValueError(f"{self.url}{path} answered {response.status}: {content[:200]!r}")
        return content


def measured(servers: list[Server], what: str, count: int) -> list[list[float]]:
    """Milliseconds of each request, by server; the first requests do not count."""
    times: list[list[float]] = [[] for _ in servers]
    for number in range(-10, count):
        for server, of_server in zip(servers, times, strict=True):
            start = time.perf_counter()
            getattr(server, what)()
            if number >= 0:
                of_server.append(1000 * (time.perf_counter() - start))
    return times


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure the latency of small requests.")
    parser.add_argument("urls", metavar="URL", nargs="+", help="of a server's root")
    parser.add_argument("--count", metavar="N", type=int, default=300, help="requests of each kind")
    options = parser.parse_args()
    servers = [Server(url) for url in options.urls]
    for what in ("health", "chat"):
        for server, times in zip(servers, measured(servers, what, options.count), strict=True):
            p95 = statistics.quantiles(times, n=20)[-1]
            print(f"{what:7} {server.url}: median {statistics.median(times):.2f} ms, p95 {p95:.2f} ms")


if __name__ == "__main__":
    main()
