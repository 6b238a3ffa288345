"""Every way a request is refused: one table of stable codes, one shape on the wire (OpenAI's).

    {"error": {"message": ..., "type": ..., "param": ..., "code": ...}}

Knows status codes and sentences; knows no models and no limits.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

STATUS_OF_CODE = {
    "invalid_json": 400,
    "invalid_request": 400,
    "invalid_parameter": 400,
    "missing_parameter": 400,
    "unknown_parameter": 400,
    "unsupported_parameter": 400,
    "unsupported_content": 400,
    "host_not_allowed": 400,
    "too_many_images": 400,
    "image_unusable": 400,
    "image_too_large": 400,
    "image_type_unsupported": 400,
    "image_url_forbidden": 400,
    "image_url_unreachable": 400,
    "image_url_too_slow": 400,
    "prompt_too_long": 400,
    "context_length_exceeded": 400,
    "invalid_api_key": 401,
    "origin_not_allowed": 403,
    "model_not_found": 404,
    "not_found": 404,
    "method_not_allowed": 405,
    "body_too_slow": 408,
    "body_too_large": 413,
    "too_many_requests": 429,
    "queue_full": 429,
    "generation_failed": 500,
    "internal_error": 500,
    "model_unavailable": 503,
    "not_ready": 503,
    "shutting_down": 503,
    "deadline_exceeded": 504,
}
"""Codes never change their meaning; docs/small_server.md says what each asks the client to do."""

_TYPE_OF_STATUS = {401: "authentication_error", 429: "rate_limit_error"}
_CODE_OF_STATUS = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large", 500: "internal_error"}
_CODE_OF_VALIDATION = {
    "missing": "missing_parameter",
    "union_tag_invalid": "unsupported_content",
    "union_tag_not_found": "unsupported_content",
}


class ApiError(HTTPException):
    """A request that is refused or went wrong.

    Args:
        code: One of `STATUS_OF_CODE`, which decides the HTTP status.
        message: One sentence for the client: what was found, what to do.
        param: Where in the request, as `messages.0.content`.
        retry_after: Seconds after which trying again makes sense.
    """

    def __init__(self, code: str, message: str, param: str | None = None, retry_after: int | None = None) -> None:
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        if code == "invalid_api_key":
            headers["WWW-Authenticate"] = "Bearer"
        super().__init__(STATUS_OF_CODE[code], message, headers)
        self.code = code
        self.message = message
        self.param = param

    def body(self) -> dict[str, Any]:
        """The error as OpenAI writes it."""
        kind = _TYPE_OF_STATUS.get(self.status_code)
        kind = kind or ("server_error" if self.status_code >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        """The error as a response."""
        # Escaped to ASCII: what a client sent and the message repeats may be no valid Unicode.
        content = json.dumps(self.body()).encode()
        return Response(content, self.status_code, self.headers, media_type="application/json")


async def refuse(request: Request, error: Exception) -> Response:
    """Answer an exception in the one shape: ours, the framework's 404 and 405, and mistakes of ours."""
    if isinstance(error, ApiError):
        return error.response()
    if isinstance(error, HTTPException):
        return _of_framework(request, error).response()
    # The framework logs it.
    return ApiError("internal_error", "The server made a mistake; its log says more. Try again.").response()


def of_validation(error: ValidationError, body: Any) -> ApiError:
    """The first of pydantic's complaints as an error with a code, a place and a sentence.

    Args:
        error: A parameter's name that the place does not tell is its context's `name`.
        body: What was validated.
    """
    first = error.errors(include_url=False, include_input=False)[0]
    code = _CODE_OF_VALIDATION.get(first["type"], first["type"])
    if code not in STATUS_OF_CODE:
        code = "invalid_parameter"
    name = first.get("ctx", {}).get("name")
    param = _place([*first["loc"], *([] if name is None else [name])], body)
    sentences = {
        "missing_parameter": f"{param} is missing",
        "unknown_parameter": f"{param} is not a parameter of this endpoint: leave it out, or check its spelling",
    }
    return ApiError(code, sentences.get(code, f"{param or 'The body'}: {first['msg']}"), param)


def _of_framework(request: Request, error: HTTPException) -> ApiError:
    code = _CODE_OF_STATUS.get(error.status_code, "invalid_request")
    path = request.url.path[:200]
    message = {
        "not_found": f"There is no {path} here: see /openapi.json for what there is",
        "method_not_allowed": f"{path} does not take {request.method}: see /openapi.json",
    }.get(code, str(error.detail))
    found = ApiError(code, message)
    found.headers = {**(error.headers or {}), **(found.headers or {})}
    return found


def _place(steps: Sequence[str | int], body: Any) -> str | None:
    """Pydantic's location without the names of union members, which are not in the request."""
    found: list[str] = []
    value = body
    for position, step in enumerate(steps):
        if (
            position
            and isinstance(steps[position - 1], int)
            and isinstance(value, Mapping)
            and step == value.get("type")
        ):
            continue  # the member's name, which follows its place in a list
        inside = isinstance(value, Mapping) and step in value
        if inside or (isinstance(value, list) and isinstance(step, int) and step < len(value)):
            value = value[step]
            found.append(str(step))
        elif position == len(steps) - 1 and isinstance(value, Mapping):
            found.append(str(step))
    return ".".join(found)[:200] or None
