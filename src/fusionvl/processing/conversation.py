"""What a conversation must look like before a chat template sees it.

Knows roles and content parts. Does not know templates, tokens or pixels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Message = Mapping[str, Any]
IMAGE_KEYS = ("image", "url", "path", "base64")  # where an image part may hold its image


def as_conversations(given: Any) -> tuple[list[list[dict[str, Any]]], bool]:
    """One conversation, or several, as a list of conversations, and whether it was several.

    Messages are copied without their empty fields; OpenAI's `image_url` parts become image parts.

    Raises:
        ValueError: There is no conversation, or a message is no mapping.
    """
    if not given:
        raise ValueError("there is no conversation: pass a list of messages, or a list of such lists")
    is_batch = isinstance(given, (list, tuple)) and isinstance(given[0], (list, tuple))
    return [[_copied(message) for message in messages] for messages in (given if is_batch else [given])], is_batch


def images_of(messages: Sequence[Message]) -> list[Any]:
    """What the image parts of a conversation hold, in their order."""
    parts = [part for message in messages if not isinstance(message["content"], str) for part in message["content"]]
    images = [part for part in parts if part["type"] == "image"]
    return [part[key] for part in images for key in IMAGE_KEYS if part.get(key) is not None]


def _copied(message: Any) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise ValueError(f"a message is a mapping with role and content, got {message!r}")
    copy = {name: value for name, value in message.items() if value is not None}
    if isinstance(copy.get("content"), (list, tuple)):
        copy["content"] = [_image_part(part) for part in copy["content"]]
    return copy


def _image_part(part: Any) -> Any:
    if not isinstance(part, Mapping) or part.get("type") != "image_url" or "image_url" not in part:
        return part
    address = part["image_url"]
    return {"type": "image", "url": address.get("url", "") if isinstance(address, Mapping) else address}


def validate_conversation(messages: Sequence[Message]) -> None:
    """Check the order of roles, the kinds of content, and that at most one image stands in the first question.

    Raises:
        ValueError: says which message (counted from 0) breaks which rule.
    """
    if not messages:
        raise ValueError("the conversation is empty: it needs at least one user message")
    roles = [message.get("role") for message in messages]
    turns = roles[1:] if roles[0] == "system" else roles
    expected = ["user", "assistant"] * (len(turns) // 2 + 1)
    if not turns or turns != expected[: len(turns)]:
        raise ValueError(
            "a conversation is an optional system message, then user and assistant in turn, beginning with user; "
            f"got roles {roles}"
        )
    first_question = len(roles) - len(turns)
    for position, message in enumerate(messages):
        images = _count_images(message, position)
        if images and position != first_question:
            raise ValueError(
                f"message {position} ({message['role']}) holds an image: the image must be in the first user message "
                f"(message {first_question})"
            )
        if images > 1:
            raise ValueError(f"message {position} holds {images} images: one conversation has at most one image")


def _count_images(message: Message, position: int) -> int:
    content = message.get("content")
    if isinstance(content, str):
        return 0
    if not isinstance(content, (list, tuple)):
        raise ValueError(
            f"message {position} ({message['role']}): content must be a string or a list of parts, got {content!r}"
        )
    kinds = [part.get("type") if isinstance(part, Mapping) else None for part in content]
    for kind, part in zip(kinds, content, strict=True):
        if kind not in ("text", "image") or (kind == "text" and not isinstance(part.get("text"), str)):
            raise ValueError(
                f"message {position} ({message['role']}): parts are {{'type': 'text', 'text': ...}} or "
                f"{{'type': 'image', ...}}, got {part!r}"
            )
    return kinds.count("image")
