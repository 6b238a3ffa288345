"""What a server is told before it starts, as typed values: limits, key, host names. Knows no command line."""

from dataclasses import dataclass, field
from pathlib import Path

MIB = 2**20
_SHORTEST_KEY = 16


@dataclass(frozen=True)
class Limits:
    """What requests may take. Beyond each stands a refusal with its own code (`errors.py`).

    Attributes:
        body_bytes, body_seconds: Of a request's body, and until all of it must have come.
        body_marks: Quotes, commas, colons and opening brackets in a body: work is bounded before it is parsed.
        bodies_bytes: Of the bodies of all requests that are under way.
        image_bytes, image_pixels: Of one image, wherever it comes from.
        prompt_characters: Of all text of a conversation; the model's context bounds its tokens besides.
        max_new_tokens: Of an answer when the request does not say.
        waiting: Answers that may wait for the model.
        answer_seconds: From a request to the last token of its answers.
        fetches: Images fetched at a time.
        fetch_seconds, fetch_redirects: For an image's URL, all redirects together.
    """

    body_bytes: int = 20 * MIB
    body_seconds: float = 60.0
    body_marks: int = 100_000
    bodies_bytes: int = 256 * MIB
    image_bytes: int = 10 * MIB
    image_pixels: int = 40_000_000
    prompt_characters: int = 32_000
    max_new_tokens: int = 512
    waiting: int = 64
    answer_seconds: float = 120.0
    fetches: int = 16
    fetch_seconds: float = 10.0
    fetch_redirects: int = 3


@dataclass(frozen=True)
class ServerSettings:
    """What every request meets.

    Attributes:
        api_key: Must come with every request; None asks for none.
        allowed_hosts: Names that requests may call the server by, against DNS rebinding; empty allows all.
        allow_private_networks: Whether image URLs may lead to private and loopback addresses.
        limits: Of requests.
    """

    api_key: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    allow_private_networks: bool = False
    limits: Limits = field(default_factory=Limits)


def read_api_key(path: Path) -> str:
    """Read the one key of a file; empty lines and those that begin with # are no keys.

    Raises:
        ValueError: When there is no such file, not one key in it, or one that is easy to guess.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ValueError(f"{path}: the file of the API key cannot be read ({reason})") from error
    keys = [line for line in lines if line and not line.startswith("#")]
    if len(keys) != 1:
        raise ValueError(f"{path} holds {len(keys)} API keys: write exactly one")
    if len(keys[0]) < _SHORTEST_KEY:
        raise ValueError(f"{path}: the key has fewer than {_SHORTEST_KEY} characters: make a longer one")
    return keys[0]
