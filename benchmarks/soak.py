"""Does the server's memory stay flat under a mixed load with bad requests and clients that leave?

    python benchmarks/soak.py                # ten minutes
    python benchmarks/soak.py --minutes 3 --clients 4 --json soak.json

Starts `fusionvl serve` with the shipped model (or --model), lets clients do to it what clients do, samples the memory
of the server and its worker, and prints what was answered and how memory went. Exit code 1 when memory is not flat, a
reply was a mistake of the server, a worker had to be replaced, or the end was not in order.
"""

import argparse
import base64
import collections
import io
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from PIL import Image

SRC = Path(__file__).parents[1] / "src"
SAMPLE_SECONDS = 2.0
PICTURES = 12
QUESTIONS = ["what shape is in the image?", "what color is the shape?", "is there a circle?"]
# What memory may grow from the second to the last quarter; allocators round, and half a minute of it is warm-up.
FLAT_SHARE, FLAT_BYTES = 0.05, 16 * 2**20


@dataclass
class Load:
    """What clients do, and what came of it.

    Attributes:
        url: Of the server.
        replies: Count by (kind of request, outcome).
        seconds: Of each whole answer.
    """

    url: str
    replies: collections.Counter[str] = field(default_factory=collections.Counter)
    seconds: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, kind: str, outcome: object) -> None:
        """Note what came of a request."""
        with self.lock:
            self.replies[f"{kind}: {outcome}"] += 1


class Client(threading.Thread):
    """One client that does one thing after another until the end."""

    def __init__(self, load: Load, pictures: list[bytes], seed: int, end: threading.Event) -> None:
        super().__init__(daemon=True)
        self.load, self.pictures, self.end = load, pictures, end
        self.random = random.Random(seed)
        self.http = httpx.Client(base_url=load.url, timeout=180)

    def run(self) -> None:
        """Choose and act until the end."""
        kinds: list[tuple[int, Callable[[], None]]] = [
            (6, self.answer),
            (6, self.stream),
            (2, self.leave_stream),
            (1, self.leave_answer),
            (1, self.explain),
            (2, self.leave_explanation),
            (2, self.upload),
            (5, self.mistake),
            (1, self.look),
        ]
        actions = [action for weight, action in kinds for _ in range(weight)]
        while not self.end.is_set():
            action = self.random.choice(actions)
            try:
                action()
            except httpx.HTTPError as error:
                self.load.count(action.__name__, type(error).__name__)
        self.http.close()

    def body(self, **more: Any) -> dict[str, Any]:
        """A good request, with the changes given."""
        picture = base64.b64encode(self.random.choice(self.pictures)).decode()
        question = self.random.choice(
            ["what shape is in the image?", "what color is the shape?", "is there a circle?"]
        )
        content = [
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
            {"type": "text", "text": f"{question} {'<image>' * self.random.randrange(3)}"},
        ]
        return {"model": "soak", "messages": [{"role": "user", "content": content}], "max_tokens": 24, **more}

    def post(self, kind: str, **request: Any) -> httpx.Response:
        """Ask, and note what came of it."""
        start = time.monotonic()
        response = self.http.post("/v1/chat/completions", **request)
        if response.status_code == 200:
            self.load.seconds.append(time.monotonic() - start)
        self.load.count(kind, response.status_code)
        return response

    def answer(self) -> None:
        """Wait for an answer in one piece."""
        settings = self.random.choice([{}, {"n": 2, "temperature": 1.0}, {"logprobs": True, "top_logprobs": 3}])
        self.post("answer", json=self.body(**settings))

    def stream(self) -> None:
        """Read a stream to its end."""
        response = self.post("stream", json=self.body(stream=True, stream_options={"include_usage": True}))
        if response.status_code == 200 and not response.text.endswith("data: [DONE]\n\n"):
            self.load.count("stream", "cut off")

    def leave_stream(self) -> None:
        """Read the beginning of a stream and go."""
        with self.http.stream(
            "POST", "/v1/chat/completions", json=self.body(stream=True, temperature=2.0)
        ) as response:
            next(response.iter_lines(), None)
        self.load.count("leave_stream", "left")

    def leave_answer(self) -> None:
        """Go before the answer is there."""
        with httpx.Client(base_url=self.load.url, timeout=httpx.Timeout(30, read=0.05)) as http:
            try:
                response = http.post("/v1/chat/completions", json=self.body(n=4, temperature=2.0))
                self.load.count("leave_answer", response.status_code)
            except httpx.ReadTimeout:
                self.load.count("leave_answer", "left")

    def explain(self) -> None:
        """Ask where the model looked."""
        self.load.count("explain", self.http.post("/v1/explain", json=self.question()).status_code)

    def leave_explanation(self) -> None:
        """Go before it is there."""
        with httpx.Client(base_url=self.load.url, timeout=httpx.Timeout(30, read=0.05)) as http:
            try:
                self.load.count("leave_explanation", http.post("/v1/explain", json=self.question()).status_code)
            except httpx.ReadTimeout:
                self.load.count("leave_explanation", "left")

    def question(self) -> dict[str, Any]:
        """What is asked for an explanation of."""
        return {name: value for name, value in self.body().items() if name in ("model", "messages")}

    def upload(self) -> None:
        """Upload a picture, ask about it, delete it."""
        files = {"file": ("picture.png", self.random.choice(self.pictures))}
        response = self.http.post("/v1/files", files=files, data={"purpose": "vision"})
        self.load.count("upload", response.status_code)
        if response.status_code == 200:
            file_id = response.json()["id"]
            content = [{"type": "file", "file": {"file_id": file_id}}, {"type": "text", "text": "what shape is it?"}]
            self.post("by file", json=self.body(messages=[{"role": "user", "content": content}]))
            self.load.count("delete", self.http.delete(f"/v1/files/{file_id}").status_code)

    def mistake(self) -> None:
        """Send what must be refused."""

        def picture(url: str) -> dict[str, Any]:
            part = {"type": "image_url", "image_url": {"url": url}}
            return {"json": self.body(messages=[{"role": "user", "content": [part]}])}

        headers = {"Content-Type": "application/json"}
        request = self.random.choice(
            [
                {"content": b"{", "headers": headers},
                {"content": b" " * 21_000_000, "headers": headers},
                {"json": self.body(tools=[{"type": "function"}])},
                {"json": self.body(temprature=1)},
                {"json": self.body(messages=[])},
                {"json": self.body(model="other")},
                {"json": self.body(num_latents=5)},
                {"json": self.body(messages=[{"role": "user", "content": "what? " * 4000}])},
                picture("http://169.254.169.254/latest/meta-data/"),
                picture("file:///etc/passwd"),
                picture("data:image/png;base64,iVBORw0KGgo="),
                picture("data:image/png;base64," + base64.b64encode(self.pictures[0][:200]).decode()),
            ]
        )
        self.post("mistake", **request)

    def look(self) -> None:
        """Read what else there is."""
        for path in ("/metrics", "/v1/models", "/health", "/v1/files", "/nothing"):
            self.load.count(f"look {path}", self.http.get(path).status_code)


def pictures() -> list[bytes]:
    found = []
    for number in range(PICTURES):
        file = io.BytesIO()
        Image.effect_noise((200 + 40 * number, 200), 20 * number).convert("RGB").save(file, "PNG")
        found.append(file.getvalue())
    return found


def start(model: str | None) -> tuple[subprocess.Popen[str], str]:
    source = f"soak={model}" if model else None
    if source is None:
        sys.path.insert(0, str(SRC))
        from fusionvl.engine.sources import shipped_model

        source = f"soak={shipped_model()}"
    command = [sys.executable, "-m", "fusionvl", "serve", source, "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert server.stdout is not None
    url = server.stdout.readline().split()[-1]
    end = time.monotonic() + 600
    while httpx.get(f"{url}/ready").status_code != 200:
        if time.monotonic() > end or server.poll() is not None:
            raise SystemExit("the server did not become ready")
        time.sleep(0.5)
    return server, url


def memory_of(server: psutil.Process) -> dict[str, int]:
    """Resident bytes of the server and of the largest of its children, which is the worker."""
    workers = [child.memory_info().rss for child in server.children(recursive=True)]
    return {"server": server.memory_info().rss, "worker": max(workers, default=0)}


def verdict(samples: list[dict[str, int]]) -> dict[str, dict[str, Any]]:
    """Medians of the quarters after a warm-up of one, and whether the last is as low as the first of them."""
    found = {}
    for name in ("server", "worker"):
        quarter = max(len(samples) // 4, 1)
        medians = [
            statistics.median(sample[name] for sample in samples[number * quarter : (number + 1) * quarter] or samples)
            for number in range(4)
        ]
        growth = medians[3] - medians[1]
        is_flat = growth <= max(FLAT_SHARE * medians[1], FLAT_BYTES)
        found[name] = {"mib_by_quarter": [round(value / 2**20, 1) for value in medians], "is_flat": is_flat}
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--model", help="hub name or folder (default: the shipped model)")
    parser.add_argument("--json", type=Path, help="file for the report, samples and all")
    arguments = parser.parse_args()
    server, url = start(arguments.model)
    load, end, sent = Load(url), threading.Event(), pictures()
    clients = [Client(load, sent, seed, end) for seed in range(arguments.clients)]
    samples, process = [], psutil.Process(server.pid)
    began = time.monotonic()
    for client in clients:
        client.start()
    while time.monotonic() - began < 60 * arguments.minutes and server.poll() is None:
        samples.append({"second": round(time.monotonic() - began), **memory_of(process)})
        time.sleep(SAMPLE_SECONDS)
    end.set()
    for client in clients:
        client.join(200)
    metrics = httpx.get(f"{url}/metrics").text
    server.send_signal(signal.SIGTERM)
    exit_code = server.wait(60)

    flat = verdict(samples)
    wrong = {kind: count for kind, count in load.replies.items() if is_wrong(kind)}
    restarts = float(
        next(line for line in metrics.splitlines() if line.startswith("fusionvl_worker_restarts{")).split()[-1]
    )
    report = {
        "minutes": arguments.minutes,
        "clients": arguments.clients,
        "replies": dict(sorted(load.replies.items())),
        "wrong": wrong,
        "median_answer_seconds": round(statistics.median(load.seconds), 3) if load.seconds else None,
        "memory": flat,
        "worker_restarts": restarts,
        "exit_code_after_sigterm": exit_code,
    }
    print(json.dumps(report, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps({**report, "samples": samples}))
    is_good = all(part["is_flat"] for part in flat.values()) and not wrong and not restarts and not exit_code
    print("flat and in order" if is_good else "NOT flat, or not in order")
    return 0 if is_good else 1


def is_wrong(kind: str) -> bool:
    """A mistake of the server, or an answer that was to be had and was not."""
    action, _, outcome = kind.rpartition(": ")
    if outcome.startswith("5") or outcome.endswith("Error") or outcome == "cut off":
        # A body that is refused unread may end in a broken pipe for who still sends it.
        return not (action == "mistake" and outcome in ("WriteError", "ReadError"))
    return action in ("answer", "stream", "by file", "explain", "upload", "delete") and outcome not in ("200", "429")


if __name__ == "__main__":
    sys.exit(main())
