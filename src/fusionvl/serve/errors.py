"""Every way a request is refused: one table of stable codes, one shape on the wire (OpenAI's).

    {"error": {"message": ..., "type": ..., "param": ..., "code": ...}}

Knows status codes and sentences; knows no models and no limits.
"""

import json
from typing import Any

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


def shutting_down() -> ApiError:
    """What everybody is told at the end."""
    return ApiError("shutting_down", "The server is shutting down: try again elsewhere or later", None, 5)


async def refuse(request: Request, error: Exception) -> Response:
    """Answer an exception in the one shape: ours, the framework's 404 and 405, and mistakes of ours."""
    path = request.url.path[:200]
    match error:
        case ApiError():
            found = error
        case HTTPException(status_code=404):
            found = ApiError("not_found", f"There is no {path} here: see /openapi.json for what there is")
        case HTTPException(status_code=405):
            found = ApiError("method_not_allowed", f"{path} does not take {request.method}: see /openapi.json")
            found.headers = error.headers  # which methods it takes
        case HTTPException():
            found = ApiError("invalid_request", str(error.detail))
        case _:  # the framework logs it
            found = ApiError("internal_error", "The server made a mistake; its log says more. Try again.")
    return found.response()
