"""Loads a real model in a worker process: engine, continuous batching, and further functions.

The one place of this room that knows the engine. Imports it inside: the server process needs none of it.
"""

from typing import TYPE_CHECKING, Any

from fusionvl.engine.generation_request import Listener, SamplingSettings
from fusionvl.serve.messages import Beat
from fusionvl.serve.settings import Limits, WorkerSettings
from fusionvl.serve.worker import LineFull, LoadedModel, Ticket

if TYPE_CHECKING:
    from fusionvl.engine.continuous_batching import ContinuousBatching


def load_engine(source: str, settings: WorkerSettings, limits: Limits) -> LoadedModel:
    """Load a model.

    Raises:
        ValueError: When there is no such model, or it cannot be loaded; with the reason.
    """
    from fusionvl.engine.continuous_batching import ContinuousBatching
    from fusionvl.engine.engine import FusionEngine
    from fusionvl.engine.explain import explain
    from fusionvl.engine.options import quiet_transformers

    quiet_transformers()
    engine = FusionEngine.from_pretrained(
        source,
        dtype=settings.dtype,
        device=settings.device,
        quantize=settings.quantize,
        cache_bytes=settings.image_cache_bytes,
    )
    # The server lets so many through; they stand in line all at once before the first of them runs.
    batching = ContinuousBatching(
        engine, max_batch=settings.max_batch, max_waiting=limits.waiting + settings.max_batch
    )
    tensors: list[Any] = [*engine.model.parameters(), *engine.model.buffers()]

    def beat() -> Beat:
        if not batching.is_open:
            raise RuntimeError("the batching thread has failed; its reason is in the log above")
        if (silent := batching.silent_seconds) > settings.silence_seconds:
            raise RuntimeError(f"the batching thread has been at one layer for {silent:.0f} seconds")
        stats = batching.stats()
        return Beat(waiting=stats.waiting, running=stats.running)

    def look_inside(image: bytes, question: str, num_latents: int | None, max_new_tokens: int) -> dict[str, Any]:
        seen = explain(engine, image, question, num_latents=num_latents, max_new_tokens=max_new_tokens)
        return seen.to_dict()

    num_bytes = sum(tensor.nbytes for tensor in tensors) + settings.image_cache_bytes
    return LoadedModel(_EngineBatching(batching), num_bytes, calls={"explain": look_inside}, beat=beat)


class _EngineBatching:
    """Continuous batching as a worker wants it."""

    def __init__(self, batching: "ContinuousBatching") -> None:
        self._batching = batching

    def submit(
        self, messages: list[dict[str, Any]], settings: SamplingSettings, listener: Listener, deadline: float | None
    ) -> Ticket:
        from fusionvl.engine.continuous_batching import QueueFull

        try:
            return self._batching.submit(messages, settings, listener, deadline)
        except QueueFull as error:  # answers that were cancelled a moment ago stand in line until its next turn
            raise LineFull(str(error)) from error

    def close(self, drain: bool) -> None:
        self._batching.close(drain)
