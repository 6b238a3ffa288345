"""What the application needs of whatever runs its models, and of whatever keeps its files.

Two ways fulfil it: processes of this machine (`models.py`, `files.py`) and a Ray cluster (`ray_pool.py`). Knows
neither.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from fusionvl.engine.generation_request import Event, SamplingSettings
from fusionvl.serve.files import StoredFile


class Worker(Protocol):
    """One model that answers."""

    def answers(
        self, messages: list[dict[str, Any]], settings: Sequence[SamplingSettings], seconds: float
    ) -> AsyncGenerator[tuple[int, Event], None]:
        """Answer a conversation once for each of the settings; leaving the loop early stops the work.

        Yields:
            (Which of the settings, event); the last event of each is `Finish` or `Failure`.

        Raises:
            ApiError: When the request is refused or the model's process dies.
        """

    async def call(self, name: str, **arguments: Any) -> Any:
        """Run one of the model's functions (`LoadedModel.calls`).

        Raises:
            ApiError: When it refuses, fails, or the model's process dies.
        """


@dataclass(frozen=True)
class ModelLoad:
    """How busy a model is, as far as the pool can tell; None is not known here.

    Attributes:
        replicas: Processes that can answer.
        waiting: Answers that wait for the running batch.
        running: Answers decoded together.
        num_bytes: Memory of the loaded model.
        restarts: Times that a dead process was replaced.
    """

    replicas: int
    waiting: int | None = None
    running: int | None = None
    num_bytes: int | None = None
    restarts: int | None = None


class Pool(Protocol):
    """The models of a server, by name."""

    @property
    def names(self) -> Sequence[str]:
        """Of all models, loaded or not."""

    @property
    def is_ready(self) -> bool:
        """Whether requests for the first model may come."""

    async def load_first(self) -> None:
        """Make the first model ready.

        Raises:
            LoadError: When it cannot be loaded.
        """

    def use(self, name: str, answers: int = 1) -> AbstractAsyncContextManager[Worker]:
        """What answers for a model, kept until the block is left.

        Raises:
            ApiError: When there is no such model, too many wait for it, or it cannot be loaded.
        """

    def loads(self) -> dict[str, ModelLoad]:
        """How busy each model is."""

    async def close(self) -> None:
        """End, with all that runs."""


class Files(Protocol):
    """Uploaded images; a client sees its own only. All raise `ApiError` as `FileStore` does."""

    async def add(self, owner: str, content: bytes, media_type: str, filename: str, purpose: str) -> StoredFile:
        """Keep an image."""

    async def get(self, owner: str, file_id: str, param: str | None = None) -> StoredFile:
        """A client's own file."""

    async def list(self, owner: str) -> list[StoredFile]:
        """A client's files, newest first."""

    async def delete(self, owner: str, file_id: str) -> None:
        """Forget a client's own file."""
