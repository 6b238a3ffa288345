"""The decoder spread over two processes answers alike; encoder and interaction layers have a copy in each."""

import pytest
from vllm import LLM, SamplingParams

from fusionvl.engine import FusionEngine

QUESTIONS = ("what shape is in the image?", "what color is the shape?", "is there a circle?")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_two_processes(shipped, asked, triangle, monkeypatch):
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    monkeypatch.setenv("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    engine = FusionEngine.from_pretrained(shipped, dtype="float32")
    model = LLM(str(shipped), dtype="float32", enforce_eager=True, max_num_seqs=4, tensor_parallel_size=2)
    try:
        outputs = model.chat(
            [asked(question, picture=triangle) for question in QUESTIONS],
            SamplingParams(temperature=0, max_tokens=8),
            use_tqdm=False,
        )
    finally:
        model.llm_engine.engine_core.shutdown()
    assert [output.outputs[0].text for output in outputs] == [engine.ask(triangle, question) for question in QUESTIONS]
