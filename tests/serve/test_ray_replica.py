"""What runs in a replica, and who calls it, without a cluster: a handle that calls a replica of this process."""

import asyncio
import contextlib
import time

import pytest
from scripted_model import Ticket, load_scripted

from fusionvl.engine.generation_request import Failure, Finish, Piece, SamplingSettings
from fusionvl.serve.errors import ApiError
from fusionvl.serve.messages import Refused
from fusionvl.serve.ray_replica import FileKeeper, ModelReplica
from fusionvl.serve.settings import Limits, WorkerSettings
from fusionvl.serve.worker import LoadedModel

LIMITS = Limits(waiting=1)
ONE = (SamplingSettings(),)


def replica(loader=load_scripted, **settings):
    return ModelReplica(loader, "scripted", WorkerSettings(max_batch=2, **settings), LIMITS)


def asking(text):
    return [{"role": "user", "content": [{"type": "text", "text": text}]}]


async def events_of(model, messages, settings=ONE):
    return [event async for events in model.answers(messages, settings, 20.0) for event in events]


def test_answers_of_several_settings():
    found = asyncio.run(events_of(replica(), asking("a b"), ONE * 2))
    for number in range(2):
        own = [event for index, event in found if index == number]
        assert [event.text for event in own[:-1]] == ["a ", "b "]
        assert isinstance(own[-1], Finish)


def test_what_is_refused():
    async def refused(model, messages, settings=ONE):
        _, event = (await events_of(model, messages, settings))[-1]
        assert isinstance(event, Refused)
        return event.code

    async def run():
        model = replica()
        assert await refused(model, asking("refuse it")) == "invalid_request"
        assert await refused(model, asking("a"), ONE * 4) == "queue_full"
        assert await refused(model, asking("full")) == "queue_full"
        assert len(await events_of(model, asking("a"), ONE * 3)) == 6, "refused answers take no place"

    asyncio.run(run())


def test_ending_the_generator_stops_the_work(tmp_path, monkeypatch):
    log = tmp_path / "log"
    monkeypatch.setenv("FUSIONVL_SCRIPT_LOG", str(log))

    async def run():
        async with contextlib.aclosing(replica().answers(asking("repeat w 500 0.01"), ONE, 20.0)) as events:
            await anext(events)
        while "cancelled after" not in log.read_text():
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(run(), 20))


def test_calls():
    async def run():
        model = replica()
        assert (await model.call("add", {"a": 1, "b": 2})).value == 3
        assert (await model.call("refuse", {})).refused == Refused("invalid_request", "no such call today")

    asyncio.run(run())


def test_a_call_whose_asker_left_is_waited_for():
    async def run():
        model = replica()
        left = asyncio.ensure_future(model.call("nap", {"who": "first", "seconds": 0.5}))
        await asyncio.sleep(0.1)
        left.cancel()
        began = time.monotonic()
        assert (await model.call("add", {"a": 1, "b": 2})).value == 3
        assert time.monotonic() - began > 0.2, "one call at a time"

    asyncio.run(run())


class Batching:
    """Takes requests and tells each the same events; with none, it is stuck."""

    def __init__(self, events):
        self.events = events
        self.asked = 0

    def submit(self, messages, settings, listener, deadline):
        self.asked += 1
        for event in self.events:
            listener(event)
        return Ticket()


def telling(*events, seconds=10.0):
    batching = Batching(events)
    return replica(lambda source, settings, limits: LoadedModel(batching, 1), silence_seconds=seconds), batching


def test_health_is_asked_of_the_engine():
    finish = Finish("length", 3, 1, False, 0.0, 0.1, 0.1)
    model, batching = telling(Piece("a"), finish)
    asyncio.run(model.check_health())
    assert batching.asked == 1
    asyncio.run(events_of(model, asking("a")))
    asyncio.run(model.check_health())
    assert batching.asked == 2, "it told something since: nothing needs to be asked"
    asyncio.run(model.check_health())
    assert batching.asked == 3


def test_a_stuck_or_failing_engine_is_not_healthy():
    with pytest.raises(TimeoutError):
        asyncio.run(telling(seconds=0.05)[0].check_health())
    with pytest.raises(RuntimeError, match="stumbled"):
        asyncio.run(telling(Failure("It stumbled", is_users=False))[0].check_health())


class Handle:
    """What `RayWorker` needs of a deployment's handle; the first replicas die after so many messages."""

    def __init__(self, target, deaths=()):
        self.target, self.deaths, self.cancelled = target, list(deaths), 0

    def options(self, method_name, stream=False):
        method = getattr(self.target, method_name)

        class Method:
            def remote(_, *arguments):  # noqa: N805
                return Response(self, method(*arguments)) if stream else self.once(method(*arguments))

        return Method()

    async def once(self, work):
        from ray.exceptions import ActorUnavailableError

        if self.deaths:
            self.deaths.pop()
            work.close()
            raise ActorUnavailableError("away", None)
        return await work


class Response:
    def __init__(self, handle, generator):
        self.handle, self.generator = handle, generator
        self.left = handle.deaths.pop(0) if handle.deaths else None

    def __aiter__(self):
        return self

    async def __anext__(self):
        from ray.exceptions import ActorDiedError

        if self.left == 0:
            await self.generator.aclose()
            raise ActorDiedError
        self.left = None if self.left is None else self.left - 1
        return await anext(self.generator)

    def cancel(self):
        self.handle.cancelled += 1


def test_a_worker_on_ray_survives_replicas():
    pytest.importorskip("ray")
    from fusionvl.serve.ray_pool import RayPool, RayWorker

    async def answer(deaths, text="repeat w 20 0.005"):
        worker = RayWorker(Handle(replica(), deaths))
        events = [event async for event in worker.answers(asking(text), ONE, 30.0)]
        return "".join(event.text for _, event in events if isinstance(event, Piece)), events[-1][1]

    async def run():
        for deaths in ([], [0], [3], [7, 2]):
            text, last = await answer(deaths)
            assert text == "w " * 20, deaths
            assert last.reason == "stop"
        with pytest.raises(ApiError) as caught:
            await answer([1, 1, 1])
        assert caught.value.code == "worker_crashed"
        with pytest.raises(ApiError) as caught:
            await answer([], "refuse")
        assert caught.value.code == "invalid_request"

        handle = Handle(replica())
        async with contextlib.aclosing(RayWorker(handle).answers(asking("repeat w 500 0.005"), ONE, 30.0)) as events:
            await anext(events)
        assert handle.cancelled == 1

        assert await RayWorker(Handle(replica(), [0, 0])).call("add", a=1, b=2) == 3
        pool = RayPool({"scripted": Handle(replica())}, {"scripted": "model-scripted"}, "fusionvl")
        assert (pool.names, pool.is_ready) == (("scripted",), False)
        with pytest.raises(ApiError, match="there are scripted"):
            async with pool.use("other"):
                pass

    asyncio.run(run())


def test_files_on_ray(png):
    pytest.importorskip("ray")
    from fusionvl.serve.ray_pool import RayFiles

    async def run():
        files = RayFiles(Handle(FileKeeper(Limits(file_bytes=len(png)))))
        stored = await files.add("me", png, "image/png", "a.png", "vision")
        assert (await files.get("me", stored.id)).content == png
        assert await files.list("me") == [stored]
        with pytest.raises(ApiError) as caught:
            await files.add("me", png, "image/png", "b.png", "vision")
        assert caught.value.code == "storage_full"
        with pytest.raises(ApiError) as caught:
            await files.get("other", stored.id, "messages.0")
        assert (caught.value.code, caught.value.param) == ("file_not_found", "messages.0")
        await files.delete("me", stored.id)
        assert await files.list("me") == []

    asyncio.run(run())
