"""Every way a request is refused: one table of stable codes, one shape on the wire (OpenAI's).

    {"error": {"message": ..., "type": ..., "param": ..., "code": ...}}

Knows status codes and sentences; knows no models and no limits.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

ERROR_KEY = "fusionvl.error"
"""Where a request's ASGI scope holds the code of its refusal, for counting."""

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
    "file_not_found": 404,
    "not_found": 404,
    "method_not_allowed": 405,
    "body_too_slow": 408,
    "body_too_large": 413,
    "storage_full": 413,
    "too_many_requests": 429,
    "queue_full": 429,
    "generation_failed": 500,
    "internal_error": 500,
    "worker_crashed": 503,
    "model_unavailable": 503,
    "memory_full": 503,
    "not_ready": 503,
    "shutting_down": 503,
    "deadline_exceeded": 504,
}
"""Codes never change their meaning; docs/serving.md says what each asks the client to do."""

_TYPE_OF_STATUS = {401: "authentication_error", 429: "rate_limit_error"}
_CODE_OF_STATUS = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large", 500: "internal_error"}
_CODE_OF_VALIDATION = {
    "missing": "missing_parameter",
    "extra_forbidden": "unknown_parameter",
    "json_invalid": "invalid_json",
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


def add_error_handlers(app: FastAPI) -> None:
    """Give every refusal the one shape: ours, the framework's 404, 405 and validation errors, and mistakes of ours."""

    async def refuse(request: Request, error: Exception) -> Response:
        if isinstance(error, RequestValidationError):
            refusal = of_validation(error.errors(), error.body)
        elif isinstance(error, HTTPException):
            refusal = _of_framework(request, error)
        else:  # the framework logs it
            refusal = ApiError("internal_error", "The server made a mistake; its log says more. Try again.")
        request.scope[ERROR_KEY] = refusal.code
        return refusal.response()

    for kind in (HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, refuse)


def of_validation(errors: Sequence[Any], body: Any) -> ApiError:
    """The first of pydantic's complaints as an error with a code, a place and a sentence."""
    first = errors[0]
    code = _CODE_OF_VALIDATION.get(first["type"], first["type"])
    if code not in STATUS_OF_CODE:
        code = "invalid_parameter"
    param = _place(first["loc"], body)
    sentences = {
        "missing_parameter": f"{param} is missing",
        "unknown_parameter": f"{param} is not a parameter of this endpoint: leave it out, or check its spelling",
        "invalid_json": f"The body is no valid JSON: {first.get('ctx', {}).get('error', first['msg'])}",
    }
    return ApiError(code, sentences.get(code, f"{param or 'The body'}: {first['msg']}"), param)


def _of_framework(request: Request, error: Exception) -> ApiError:
    if isinstance(error, ApiError):
        return error
    assert isinstance(error, HTTPException)
    code = _CODE_OF_STATUS.get(error.status_code, "invalid_request")
    message = {
        "not_found": f"There is no {request.url.path} here: see /openapi.json for what there is",
        "method_not_allowed": f"{request.url.path} does not take {request.method}: see /openapi.json",
    }.get(code, str(error.detail))
    found = ApiError(code, message)
    if error.headers:
        found.headers = {**error.headers, **(found.headers or {})}
    return found


def _place(location: Sequence[str | int], body: Any) -> str | None:
    """Pydantic's location without the names of union members, which are not in the request."""
    steps = list(location[1:])
    found: list[str] = []
    value = body
    for step in steps:
        inside = isinstance(value, Mapping) and step in value
        if inside or (isinstance(value, list) and isinstance(step, int) and step < len(value)):
            value = value[step]
            found.append(str(step))
        elif step is steps[-1] and isinstance(value, Mapping):
            found.append(str(step))
    return ".".join(found)[:200] or None
