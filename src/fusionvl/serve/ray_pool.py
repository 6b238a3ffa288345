"""The application's models and files on a Ray cluster: calls to deployments, repeated when a replica dies.

Knows Ray Serve's handles and errors; knows no HTTP and no engine.
"""

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any

from ray import serve
from ray.exceptions import NodeDiedError, ObjectLostError, RayActorError, WorkerCrashedError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from fusionvl.engine.generation_request import Event, SamplingSettings
from fusionvl.serve.backend import ModelLoad, Worker
from fusionvl.serve.errors import ApiError
from fusionvl.serve.files import StoredFile
from fusionvl.serve.messages import Refused, Returned
from fusionvl.serve.repeating import ReplicaLost, repeated, repeated_call

_LOG = logging.getLogger("fusionvl.serve")
_LOOK_SECONDS = 2.0
_LOST = (RayActorError, NodeDiedError, ObjectLostError, WorkerCrashedError)


@contextlib.contextmanager
def _rays_errors() -> Any:
    """Ray's errors as those that the rest of the server knows."""
    try:
        yield
    except _LOST as error:
        raise ReplicaLost(type(error).__name__) from error
    except BackPressureError as error:
        raise ApiError("queue_full", "Too many answers of this model wait: try again", None, 2) from error
    except DeploymentUnavailableError as error:
        raise ApiError(
            "model_unavailable", "No process of the model can be started: ask who runs the server", "model"
        ) from error


class RayWorker:
    """One model, wherever its replicas are.

    Args:
        handle: Of a deployment of `ModelReplica`.
    """

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._answers = handle.options(method_name="answers", stream=True)
        self._call = handle.options(method_name="call")

    def answers(
        self, messages: list[dict[str, Any]], settings: Sequence[SamplingSettings], seconds: float
    ) -> AsyncGenerator[tuple[int, Event], None]:
        """As `Worker.answers`; a replica that dies is noticed by nobody unless all do."""
        return repeated(functools.partial(self._ask, messages), settings, seconds)

    async def call(self, name: str, **arguments: Any) -> Any:
        """As `Worker.call`, again of another replica when one dies."""

        async def once() -> Returned:
            with _rays_errors():
                return await self._call.remote(name, arguments)

        returned = await repeated_call(once)
        if returned.refused is not None:
            raise ApiError(returned.refused.code, returned.refused.message)
        return returned.value

    async def _ask(
        self, messages: list[dict[str, Any]], settings: Sequence[SamplingSettings], seconds: float
    ) -> AsyncGenerator[tuple[int, Event], None]:
        response: Any = self._answers.remote(messages, tuple(settings), seconds)
        is_over = False
        try:
            with _rays_errors():
                async for events in response:
                    for index, event in events:
                        if isinstance(event, Refused):
                            raise ApiError(event.code, event.message)
                        yield index, event
            is_over = True
        finally:
            if not is_over:
                response.cancel()


class RayPool:
    """The models of an application.

    Args:
        handles: Of each model's deployment, by the model's name.
        deployments: The deployments' names, by the model's.
        app_name: Of the Serve application.
    """

    def __init__(
        self, handles: Mapping[str, DeploymentHandle[Any]], deployments: Mapping[str, str], app_name: str
    ) -> None:
        self._workers = {name: RayWorker(handle) for name, handle in handles.items()}
        self._deployments = deployments
        self._app_name = app_name
        self._replicas = dict.fromkeys(handles, 0)
        self._looking: asyncio.Task[None] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Of all models."""
        return tuple(self._workers)

    @property
    def is_ready(self) -> bool:
        """Whether a replica of the first model ran when the controller was last asked."""
        return self._replicas[self.names[0]] > 0

    async def load_first(self) -> None:
        """Begin to count replicas; Ray starts them."""
        self._looking = asyncio.create_task(self._look())

    @contextlib.asynccontextmanager
    async def use(self, name: str, answers: int = 1) -> AsyncIterator[Worker]:
        """As `Pool.use`; the deployments themselves bound how many wait."""
        worker = self._workers.get(name)
        if worker is None:
            known = ", ".join(self._workers)
            raise ApiError("model_not_found", f"There is no model {name[:100]!r}: there are {known}", "model")
        yield worker

    def loads(self) -> dict[str, ModelLoad]:
        """How many replicas run; how busy they are is in Ray's own metrics."""
        return {name: ModelLoad(replicas) for name, replicas in self._replicas.items()}

    async def close(self) -> None:
        """Stop counting; the replicas are Ray's to end."""
        if self._looking is not None:
            self._looking.cancel()

    async def _look(self) -> None:
        while True:
            try:
                status = await asyncio.to_thread(serve.status)
                found = status.applications[self._app_name].deployments
            except Exception as error:  # noqa: BLE001 - whatever it is, Ray may say more the next time; what is known stays
                _LOG.warning("Ray Serve does not say what runs: %r", error)
            else:
                for name, deployment in self._deployments.items():
                    states = found[deployment].replica_states if deployment in found else {}
                    self._replicas[name] = sum(count for state, count in states.items() if state == "RUNNING")
            await asyncio.sleep(_LOOK_SECONDS)


class RayFiles:
    """`backend.Files`, kept by a deployment of `FileKeeper`.

    Args:
        handle: Of the deployment.
    """

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._do = handle.options(method_name="do")

    async def add(self, owner: str, content: bytes, media_type: str, filename: str, purpose: str) -> StoredFile:
        """Keep an image."""
        file: StoredFile = await self._done("add", owner, content, media_type, filename, purpose)
        return file

    async def get(self, owner: str, file_id: str, param: str | None = None) -> StoredFile:
        """A client's own file."""
        file: StoredFile = await self._done("get", owner, file_id, param=param)
        return file

    async def list(self, owner: str) -> list[StoredFile]:
        """A client's files, newest first."""
        return list(await self._done("list", owner))

    async def delete(self, owner: str, file_id: str) -> None:
        """Forget a client's own file."""
        await self._done("delete", owner, file_id)

    async def _done(self, action: str, *arguments: Any, param: str | None = None) -> Any:
        async def once() -> Any:
            with _rays_errors():
                return await self._do.remote(action, arguments)

        found = await repeated_call(once)
        if isinstance(found, Refused):
            raise ApiError(found.code, found.message, param)
        return found
