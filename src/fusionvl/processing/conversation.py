"""What a conversation must look like before a chat template sees it.

Knows roles and content parts. Does not know templates, tokens or pixels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Message = Mapping[str, Any]


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
