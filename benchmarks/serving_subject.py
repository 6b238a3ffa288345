"""One of the processes that `serving.py` compares: answers rounds of requests, as it is told on its standard input.

    serving_subject.py vllm|before FOLDER CORE [--compiled]

A round is a line {"clients", "requests", "seed"}; the answer is a line with seconds, tokens, texts and memory.
`before` needs a checkout that still has the batching engine, on PYTHONPATH.
"""

import ctypes
import json
import os
import queue
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil
from PIL import Image

TOKENS = (32, 64)  # the shortest and the longest answer
MOST_CLIENTS = 16
QUESTIONS = ("what shape is in the image?", "what color is the shape?")

Request = tuple[Image.Image, str, int]
"""Picture, question, and tokens of the answer."""
Run = Callable[[list[Request], int], list[tuple[str, int]]]
"""Requests and how many at once -> texts and their numbers of tokens."""


def main(kind: str, folder: str, core: str, *options: str) -> None:
    os.sched_setaffinity(0, {int(core)})
    run = {"vllm": in_vllm, "before": before}[kind](folder, "--compiled" in options)
    tell({"ready": True})
    for line in sys.stdin:
        order = json.loads(line)
        asked = list(requests(order["requests"], order["seed"]))
        began = time.perf_counter()
        answers = run(asked, order["clients"])
        tell(
            {
                "seconds": time.perf_counter() - began,
                "tokens": sum(count for _, count in answers),
                "texts": [text for text, _ in answers],
                "resident_bytes": resident_bytes(),
            }
        )


def resident_bytes() -> int:
    """Memory in use; what the allocator keeps for later is given back first, or it would look like a leak."""
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:  # glibc's
        trim(0)
    return psutil.Process().memory_info().rss


def tell(answer: dict[str, Any]) -> None:
    print("\n" + json.dumps(answer), flush=True)


def requests(count: int, seed: int) -> Iterator[Request]:
    """Noise, two questions about each picture."""
    dice = np.random.default_rng(seed)
    for number in range(count):
        if number % len(QUESTIONS) == 0:
            picture = Image.fromarray(dice.integers(0, 256, (64, 64, 3), dtype=np.uint8))
        yield picture, QUESTIONS[number % len(QUESTIONS)], int(dice.integers(TOKENS[0], TOKENS[1] + 1))


def in_vllm(folder: str, is_compiled: bool) -> Run:
    from vllm import LLM, SamplingParams

    model = LLM(folder, dtype="float32", enforce_eager=not is_compiled, max_num_seqs=MOST_CLIENTS, seed=0)
    engine = model.llm_engine

    def run(asked: list[Request], clients: int) -> list[tuple[str, int]]:
        waiting = iter(asked)
        order, answers = [], {}

        def submit() -> None:
            if (request := next(waiting, None)) is not None:
                picture, question, tokens = request
                sampling = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
                image = {"type": "image_pil", "image_pil": picture}
                messages = [{"role": "user", "content": [image, {"type": "text", "text": question}]}]
                (name,) = model.enqueue_chat(messages, sampling, use_tqdm=False)
                order.append(name.partition("-")[0])  # outputs have the name without its random part

        for _ in range(clients):
            submit()
        while engine.has_unfinished_requests():
            for output in engine.step():
                if output.finished:
                    answers[output.request_id] = output.outputs[0].text, len(output.outputs[0].token_ids)
                    submit()
        return [answers[name] for name in order]

    return run


def before(folder: str, _is_compiled: bool) -> Run:
    from fusionvl.engine.continuous_batching import ContinuousBatching
    from fusionvl.engine.generation_request import Failure, Finish, SamplingSettings

    from fusionvl.engine import FusionEngine
    from fusionvl.engine.engine import conversation

    FusionEngine.ends = property(lambda self: [])  # answers as long as they may be
    batching = ContinuousBatching(FusionEngine.from_pretrained(folder, dtype="float32"), max_batch=MOST_CLIENTS)

    def run(asked: list[Request], clients: int) -> list[tuple[str, int]]:
        texts = [""] * len(asked)
        counts = [0] * len(asked)
        ended: queue.SimpleQueue[int] = queue.SimpleQueue()

        def submit(number: int) -> None:
            def listen(event: Any) -> None:
                if isinstance(event, Failure):
                    raise RuntimeError(event.message)
                if isinstance(event, Finish):
                    counts[number] = event.answer_tokens
                    ended.put(number)
                else:
                    texts[number] += event.text

            picture, question, tokens = asked[number]
            batching.submit(conversation(picture, question), SamplingSettings(max_new_tokens=tokens), listen)

        for number in range(min(clients, len(asked))):
            submit(number)
        for following in range(clients, clients + len(asked)):
            ended.get()
            if following < len(asked):
                submit(following)
        return list(zip(texts, counts, strict=True))

    return run


if __name__ == "__main__":
    main(*sys.argv[1:])
