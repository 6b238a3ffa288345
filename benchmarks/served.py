"""What the serving benchmark puts under load: an engine one question at a time, the batching, a server at an address.

Knows the engine and the OpenAI-compatible protocol; measures nothing.
"""

import base64
import json
import threading
from collections.abc import Callable

import httpx
import torch
from geometry import EarlyGuidance, Geometry, Placement, build_fusion
from load import Answered, Question, now
from measure import TokenClock
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from fusionvl import FusionProcessor
from fusionvl.engine import FusionEngine
from fusionvl.engine.continuous_batching import ContinuousBatching
from fusionvl.engine.engine import conversation
from fusionvl.engine.generation_request import SamplingSettings
from fusionvl.engine.listening import Collected
from fusionvl.processing import FusionImageProcessorPil
from fusionvl.train.scratch import train_tokenizer

Ask = Callable[[Question], Answered]
PLACEHOLDERS = 4  # tokens that the processor adds: two vision markers, two placeholders
TIMEOUT = 600


def build_engine(geometry: Geometry, early_guidance: EarlyGuidance, place: Placement) -> FusionEngine:
    """An engine with random weights whose answers end at their bound only."""
    processor = FusionProcessor(
        FusionImageProcessorPil(size={"height": geometry.image_size, "width": geometry.image_size}),
        _tokenizer(geometry.vocabulary - PLACEHOLDERS),
        chat_template="chatml",
        num_latents=geometry.num_latents,
        patch_size=geometry.patch_size,
    )
    return FusionEngine(build_fusion(geometry, early_guidance, place), processor)


def fresh(engine: FusionEngine) -> FusionEngine:
    """The same model with an empty cache of pictures."""
    return FusionEngine(engine.model, engine.processor)


class OneAtATime:
    """What `FusionEngine.stream` does, one question after the other, and noting the time of every token."""

    def __init__(self, engine: FusionEngine) -> None:
        self._engine = fresh(engine)
        self._lock = threading.Lock()

    def __call__(self, question: Question) -> Answered:
        """Ask."""
        asked, tokens = now(), TokenClock(now)
        with self._lock, torch.inference_mode():
            inputs = self._engine.encode([conversation(question.picture, question.text)], None)
            self._engine.model.generate(
                **self._engine.with_features(inputs), max_new_tokens=question.answer_tokens, streamer=tokens,
                do_sample=False,
            )  # fmt: skip
        return Answered(asked, tokens.times, len(tokens.times))


class Batched:
    """Continuous batching. Log probabilities are asked for, so that every token is an event."""

    def __init__(self, engine: FusionEngine, max_batch: int, max_stall: float = 0.1) -> None:
        self.batching = ContinuousBatching(fresh(engine), max_batch=max_batch, max_waiting=1024, max_stall=max_stall)

    def __call__(self, question: Question) -> Answered:
        """Ask."""
        listener, asked = Collected(), now()
        settings = SamplingSettings(max_new_tokens=question.answer_tokens, top_logprobs=0)
        self.batching.submit(conversation(question.picture, question.text), settings, listener)
        return Answered(asked, listener.moments, listener.answer().answer_tokens)


class Server:
    """An OpenAI-compatible server, streaming.

    Args:
        url: Its address, without `/v1`.
        model: Name of the model, None: the first it lists.
        key: API key, if it wants one.
    """

    def __init__(self, url: str, model: str | None, key: str | None) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(
            base_url=url.rstrip("/"), headers=headers, timeout=TIMEOUT, limits=httpx.Limits(max_connections=None)
        )
        self.model = model or self._client.get("/v1/models").raise_for_status().json()["data"][0]["id"]

    def __call__(self, question: Question) -> Answered:
        """Ask.

        Raises:
            ValueError: When the server refuses.
        """
        asked, moments, tokens = now(), [], 0
        with self._client.stream("POST", "/v1/chat/completions", json=self._body(question)) as response:
            if response.status_code != httpx.codes.OK:
                raise ValueError(f"The server answered {response.status_code}: {response.read().decode()}")
            for line in response.iter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                chunk = json.loads(line.removeprefix("data: "))
                if "error" in chunk:
                    raise ValueError(f"The server gave up: {chunk['error']}")
                if any(choice["delta"].get("content") for choice in chunk["choices"]):
                    moments.append(now())
                tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
        return Answered(asked, moments or [now()], tokens)

    def _body(self, question: Question) -> dict[str, object]:
        picture = "data:image/jpeg;base64," + base64.b64encode(question.picture).decode()
        parts = [
            {"type": "image_url", "image_url": {"url": picture}},
            {"type": "text", "text": question.text},
        ]
        return {
            "model": self.model, "messages": [{"role": "user", "content": parts}], "stream": True, "temperature": 0,
            "max_tokens": question.answer_tokens, "stream_options": {"include_usage": True},
        }  # fmt: skip


def _tokenizer(size: int) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with as many tokens as the model knows; most stand in no text but may be answered."""
    trained = train_tokenizer(["What is in the picture, and what else is there beside it? Question 1."], 300)
    parts = json.loads(trained.backend_tokenizer.to_str())
    vocabulary = parts["model"]["vocab"]
    vocabulary |= {f"word{index}": index for index in range(len(vocabulary), size)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(parts)), padding_side="left",
        bos_token=trained.bos_token, eos_token=trained.eos_token, pad_token=trained.pad_token,
    )  # fmt: skip
