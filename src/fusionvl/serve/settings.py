"""What a server is told before it starts, as typed values: models, keys, limits, times.

Knows names and numbers; reads no environment.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

MIB = 2**20


@dataclass(frozen=True)
class ServedModel:
    """A model under the name that requests call it by.

    Attributes:
        name: In requests.
        source: Hub name or folder.
    """

    name: str
    source: str


@dataclass(frozen=True)
class Limits:
    """What a request, or a client, may take. Beyond each stands a refusal with its own code (`errors.py`).

    Attributes:
        body_bytes, body_seconds: Of a request's body, and until all of it must have come.
        image_bytes, image_pixels: Of one image, wherever it comes from.
        prompt_characters: Of all text of a conversation; the model's context bounds its tokens besides.
        choices: `n` of a request.
        max_new_tokens: Of an answer when the request does not say.
        requests_per_key: At the same time, of one API key, or of one address when there are no keys.
        waiting: Answers of one model that may wait for the running batch.
        answer_seconds: From a request to the last token of its answers.
        fetch_seconds, fetch_redirects: For an image's URL, all redirects together.
        file_bytes, file_seconds: Of all uploaded files together, and until each is forgotten.
    """

    body_bytes: int = 20 * MIB
    body_seconds: float = 60.0
    image_bytes: int = 10 * MIB
    image_pixels: int = 40_000_000
    prompt_characters: int = 32_000
    choices: int = 8
    max_new_tokens: int = 512
    requests_per_key: int = 16
    waiting: int = 64
    answer_seconds: float = 120.0
    fetch_seconds: float = 10.0
    fetch_redirects: int = 3
    file_bytes: int = 256 * MIB
    file_seconds: float = 24 * 3600.0


@dataclass(frozen=True)
class WorkerSettings:
    """How models run in their processes.

    Attributes:
        device, dtype, quantize: As for `FusionEngine.from_pretrained`.
        max_batch: Answers that are decoded together.
        load_seconds: Until a model must be ready.
        silence_seconds: Without a sign of life until a worker counts as hung and is replaced.
        image_cache_bytes: Of each model, for the features of images it has seen.
        memory_bytes: Of all loaded models and their image caches together; None is no bound.
    """

    device: str = "auto"
    dtype: str = "auto"
    quantize: Literal["int8", "int4"] | None = None
    max_batch: int = 8
    load_seconds: float = 600.0
    silence_seconds: float = 60.0
    image_cache_bytes: int = 256 * MIB
    memory_bytes: int | None = None


@dataclass(frozen=True)
class RaySettings:
    """How models are spread over a Ray cluster.

    Attributes:
        min_replicas, max_replicas: Processes of each model; between them the number follows the load.
        ingress_replicas: Processes that speak HTTP.
        cpus, gpus: That each process of a model takes; a part of a GPU is shared.
    """

    min_replicas: int = 1
    max_replicas: int = 1
    ingress_replicas: int = 1
    cpus: float = 1.0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.min_replicas <= self.max_replicas:
            raise ValueError(f"--replicas is N or MIN-MAX from 1 on, not {self.min_replicas}-{self.max_replicas}")
        if not all(0 <= number < math.inf for number in (self.cpus, self.gpus)):
            raise ValueError(f"a replica takes at least 0 CPUs and GPUs, not {self.cpus:g} and {self.gpus:g}")


@dataclass(frozen=True)
class ServerSettings:
    """Everything `create_app` needs.

    Attributes:
        models: The first is loaded at the start, others on demand.
        api_keys: One of them must come with every request; none asks for no key.
        allowed_hosts: Names that requests may call the server by, against DNS rebinding; empty allows all.
        allow_private_networks: Whether image URLs may lead to private and loopback addresses.
        drain_seconds: For running answers after SIGTERM.
    """

    models: tuple[ServedModel, ...]
    api_keys: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    allow_private_networks: bool = False
    drain_seconds: float = 30.0
    limits: Limits = field(default_factory=Limits)
    workers: WorkerSettings = field(default_factory=WorkerSettings)

    def __post_init__(self) -> None:
        names = [model.name for model in self.models]
        if not names:
            raise ValueError("there is no model to serve: name at least one")
        if len(set(names)) < len(names):
            raise ValueError(f"two models have the same name, among {', '.join(names)}: use NAME=PATH")


def parse_models(arguments: Sequence[str], shipped: Path) -> tuple[ServedModel, ...]:
    """Read `NAME=PATH` or a hub name or folder, which is called by its last part; none is the shipped model.

    Raises:
        ValueError: When a name cannot be used in a URL.
    """
    models = []
    for argument in arguments or [f"nano={shipped}"]:
        name, equals, source = argument.partition("=")
        if not equals:
            name, source = Path(argument).name, argument
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) or not source:
            raise ValueError(f"{argument}: a model is NAME=PATH or a path; names are letters, digits, '.', '_', '-'")
        models.append(ServedModel(name, source))
    return tuple(models)


def read_api_keys(path: Path) -> tuple[str, ...]:
    """Read one key a line; empty lines and those that begin with # are no keys.

    Raises:
        ValueError: When there is no such file, or no key in it, or one that is easy to guess.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise ValueError(f"{path}: the file of API keys cannot be read ({error.strerror})") from error
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise ValueError(f"{path} holds no API key: write one a line")
    if short := [key for key in keys if len(key) < 16]:
        raise ValueError(f"{path}: {len(short)} of {len(keys)} keys have fewer than 16 characters: make longer ones")
    return keys
