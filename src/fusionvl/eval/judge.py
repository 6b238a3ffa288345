"""A language model that judges free text, behind an OpenAI-compatible endpoint.

Knows how to ask and what a failure is; the words of a judgement are the task's.
"""

import os
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from fusionvl.data.extras import import_extra

API_KEY_VARIABLE = "FUSIONVL_JUDGE_API_KEY"
_MAX_TOKENS = 512
_HOPELESS = {401: "refuses the key", 403: "forbids the request", 404: "knows no such model or path"}


class JudgeError(Exception):
    """The judge gave no judgement, after all attempts; asked another time it may."""


class EndpointJudge:
    """Callable: a prompt in, the judge's words out. Several threads may use one.

    The key is read from the environment variable FUSIONVL_JUDGE_API_KEY; local servers want none.

    Args:
        base_url: Of the endpoint, up to and with `/v1`.
        model: As the endpoint names it.
        retries: Attempts after a first one that failed; the client waits longer before each.
        timeout: Seconds an attempt may take.

    Raises:
        ModuleNotFoundError: When openai is not installed; says how to install it.
    """

    def __init__(self, base_url: str, model: str, *, retries: int = 4, timeout: float = 120.0) -> None:
        self._openai = import_extra("openai", extra="eval", needed_for="Asking a judge")
        self._base_url = base_url
        self._model = model
        key = os.environ.get(API_KEY_VARIABLE) or "none"  # the client insists on one
        self._client = self._openai.OpenAI(base_url=base_url, api_key=key, max_retries=retries, timeout=timeout)

    def settings(self) -> dict[str, Any]:
        """Who judges, to be recorded; without user name and password."""
        return {"model": self._model, "base_url": without_credentials(self._base_url)}

    def __call__(self, prompt: str) -> str:
        """Ask.

        Raises:
            JudgeError: When there is no answer, or it is empty; with the reason.
            ValueError: When the endpoint would answer no request at all.
        """
        try:
            completion = self._client.chat.completions.create(
                model=self._model,
                messages=[{"role": "user", "content": prompt}],
                temperature=0,
                max_tokens=_MAX_TOKENS,
            )
        except self._openai.APIStatusError as error:
            reason = " ".join(str(error.message).split())[:300]
            if error.status_code in _HOPELESS:
                raise ValueError(
                    f"{without_credentials(self._base_url)} {_HOPELESS[error.status_code]}: {reason}. Model: "
                    f"{self._model}; the key is read from the environment variable {API_KEY_VARIABLE}"
                ) from error
            raise JudgeError(reason) from error
        except self._openai.APIError as error:  # no connection, too late, or an answer that is none
            raise JudgeError(f"{type(error).__name__}: {error}") from error
        except ValueError as error:  # a body that is not JSON
            raise JudgeError(f"the answer is broken ({error})") from error
        return _words(completion)


def _words(completion: Any) -> str:
    """The text of an answer; the client hands on whatever JSON or page came with status 200."""
    choices = getattr(completion, "choices", None)
    if not isinstance(choices, list):
        raise JudgeError(f"the answer is broken: no chat completion, but {str(completion)[:80]!r}")
    message = getattr(choices[0], "message", None) if choices else None
    text = getattr(message, "content", None)
    if not isinstance(text, str) or not text.strip():
        raise JudgeError("the judge said nothing")
    return text


def without_credentials(url: str) -> str:
    """An address as it may be recorded: without user name, password and query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
