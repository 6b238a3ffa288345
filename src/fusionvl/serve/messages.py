"""What server and worker process say to each other. Plain values; knows neither process nor HTTP."""

from dataclasses import dataclass, field
from typing import Any

from fusionvl.engine.generation_request import Event, SamplingSettings


@dataclass(frozen=True)
class Submit:
    """To the worker: answer a conversation, once for each of the settings.

    Attributes:
        keys: Names of the answers, one for each of the settings.
        messages: The conversation; images are encoded bytes.
        settings: Of each answer.
        seconds: Until the answers are of no use.
    """

    keys: tuple[int, ...]
    messages: list[dict[str, Any]]
    settings: tuple[SamplingSettings, ...]
    seconds: float


@dataclass(frozen=True)
class Cancel:
    """To the worker: nobody waits for these answers and calls."""

    keys: tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """To the worker: run one of its functions by name (`worker.CALLS`)."""

    key: int
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Stop:
    """To the worker: end now; nobody waits any more."""


@dataclass(frozen=True)
class Loaded:
    """From the worker: the model is ready and takes so many bytes."""

    num_bytes: int


@dataclass(frozen=True)
class LoadFailed:
    """From the worker: there will be no model, for this reason."""

    message: str


@dataclass(frozen=True)
class Refused:
    """From the worker: the request was at fault; `code` as in `errors.py`."""

    code: str
    message: str


@dataclass(frozen=True)
class Told:
    """From the worker: an event of an answer."""

    key: int
    event: Event | Refused


@dataclass(frozen=True)
class Returned:
    """From the worker: what a call returned, or why it did not."""

    key: int
    value: Any = None
    refused: Refused | None = None


@dataclass(frozen=True)
class Beat:
    """From the worker, every second: it lives, and how busy it is."""

    waiting: int = 0
    running: int = 0
    extra: dict[str, float] = field(default_factory=dict)
