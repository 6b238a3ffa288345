"""Two replicas of the shipped model on one machine, one of them killed while it answers.

What becomes of its requests, and of the other replica, is what docs/serving.md says of the two ways to run
several: servers of their own behind something that balances, and vLLM's own `--data-parallel-size`.
"""

import asyncio
import base64
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import openai
import psutil
import pytest

START_SECONDS, END_SECONDS = 600, 120  # many times what a free machine needs
CLIENTS = 6
TOKENS = 120


class Replicas:
    """One `vllm serve` with one engine or several, in a session of its own."""

    def __init__(self, model: Path, log: Path, options: tuple[str, ...]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        fixed = ["--host", "127.0.0.1", "--port", str(self.port), "--served-model-name", "nano", "--dtype", "float32"]
        small = ["--enforce-eager", "--max-num-seqs", "8", "--max-model-len", "512"]
        # Engines in processes of their own, whatever the other tests want; not all of them bound to the same core.
        here = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
        vllm = Path(sys.executable).with_name("vllm")
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [vllm, "serve", model, *fixed, *small, *options],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **here},
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        """Fails with the end of the log when it ends instead, or takes too long."""
        deadline = time.monotonic() + START_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            if self.is_healthy():
                return
            time.sleep(0.5)
        pytest.fail(f"no server: exit code {self.process.poll()}\n{self.log.read_text()[-3000:]}")

    def is_healthy(self) -> bool:
        """What a load balancer asks."""
        try:
            return httpx.get(f"{self.url}/health", timeout=30).status_code == 200
        except httpx.TransportError:
            return False

    def engines(self) -> list[psutil.Process]:
        """The processes that hold a model each; they name themselves."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        return sorted((p for p in below if "EngineCore" in " ".join(p.cmdline())), key=lambda p: p.cmdline())

    def has_ended(self) -> bool:
        """Whether its first process has."""
        return self.process.poll() is not None

    def answered_by(self) -> set[str]:
        """Which engines have answered something."""
        counts = httpx.get(f"{self.url}/metrics", timeout=30).text
        return set(re.findall(r'^vllm:request_success_total{engine="(\d+)".*} [1-9]', counts, re.MULTILINE))

    def close(self) -> None:
        """Ends all of its processes, whatever they are at."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def serving(model: Path, folder: Path, *each: tuple[str, ...]) -> Iterator[list[Replicas]]:
    """Servers with these options, started together."""
    servers = [Replicas(model, folder / f"server{index}.log", options) for index, options in enumerate(each)]
    try:
        for server in servers:
            server.wait_until_ready()
        yield servers
    finally:
        for server in servers:
            server.close()


class Clients:
    """Several who ask without a pause, each the next server when one fails; an answer cut short is no answer."""

    def __init__(self, servers: list[Replicas], picture: Path, retries: int) -> None:
        self._apis = [openai.AsyncOpenAI(base_url=f"{s.url}/v1", api_key="none", max_retries=0) for s in servers]
        self._retries = retries
        image = f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"
        self._question = [
            {"type": "image_url", "image_url": {"url": image}},
            {"type": "text", "text": "what shape is in the image?"},
        ]
        self.answers: Counter[int] = Counter()  # by server
        self.failures: Counter[int] = Counter()
        self.unanswered = 0
        self.lengths: set[int] = set()

    async def ask_until(self, enough: asyncio.Event) -> None:
        """All of them, until the event."""
        async with asyncio.TaskGroup() as group:
            for index in range(CLIENTS):
                group.create_task(self._ask_until(enough, index))

    async def _ask_until(self, enough: asyncio.Event, preferred: int) -> None:
        while not enough.is_set():
            for attempt in range(1 + self._retries):
                if await self._ask((preferred + attempt) % len(self._apis)):
                    break
            else:
                self.unanswered += 1
                await asyncio.sleep(0.2)

    async def _ask(self, server: int) -> bool:
        try:
            answer = await self._apis[server].chat.completions.create(
                model="nano",
                messages=[{"role": "user", "content": self._question}],
                max_tokens=TOKENS,
                extra_body={"ignore_eos": True},
                timeout=END_SECONDS,
            )
        except (openai.APIConnectionError, openai.InternalServerError):
            self.failures[server] += 1
            return False
        (choice,) = answer.choices
        if choice.finish_reason == "abort":  # with status 200
            self.failures[server] += 1
            return False
        assert choice.message.content.startswith("triangle")
        self.lengths.add(answer.usage.completion_tokens)
        self.answers[server] += 1
        return True


async def until(condition: Callable[[], bool]) -> None:
    """Waits for it, but not for ever."""
    async with asyncio.timeout(END_SECONDS):
        while not condition():
            await asyncio.sleep(0.1)


async def kill_an_engine(
    clients: Clients, victim: psutil.Process, busy: Callable[[], bool], over: Callable[[], bool]
) -> None:
    """Clients ask; once servers are `busy` an engine is killed, and they go on asking until it is `over`."""
    enough = asyncio.Event()
    asking = asyncio.create_task(clients.ask_until(enough))
    await until(lambda: busy() or asking.done())
    victim.kill()
    clients.answers.clear()
    await until(lambda: over() or asking.done())
    enough.set()
    await asking


@pytest.fixture
def picture() -> Path:
    """One that the shipped model knows."""
    return Path(__file__).parents[2] / "examples" / "triangle.png"


@pytest.mark.slow
def test_a_server_that_loses_its_engine_takes_nobody_with_it(shipped, picture, tmp_path):
    with serving(shipped, tmp_path, (), ()) as (dying, other):
        clients = Clients([dying, other], picture, retries=1)
        (victim,) = dying.engines()

        def both_busy() -> bool:
            return min(clients.answers[0], clients.answers[1]) >= CLIENTS

        asyncio.run(kill_an_engine(clients, victim, both_busy, lambda: clients.answers[1] >= 4 * CLIENTS))
        assert clients.failures[0] > 0, "nothing was being answered when the engine was killed"
        assert clients.failures[1] == 0
        assert clients.unanswered == 0
        assert clients.lengths == {TOKENS}
        assert other.is_healthy()
        assert not dying.is_healthy()
        dying.process.wait(END_SECONDS)  # so that it can be started again


@pytest.mark.slow
def test_engines_behind_one_address_end_together(shipped, picture, tmp_path):
    with serving(shipped, tmp_path, ("--data-parallel-size", "2")) as (server,):
        clients = Clients([server], picture, retries=0)
        _, victim = server.engines()
        asyncio.run(kill_an_engine(clients, victim, lambda: len(server.answered_by()) == 2, server.has_ended))
        assert clients.unanswered > 0, "its requests end, with an error or cut short"
        assert clients.lengths == {TOKENS}
        assert server.process.returncode != 0
