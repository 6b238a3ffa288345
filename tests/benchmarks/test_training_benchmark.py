import math
import sys

import pytest

SECTIONS = (
    "CHECKS", "STEPS", "RATIOS OF STEP TIMES", "MFU", "PEAK MEMORY of a step", "RATIOS OF ATTENTION TIMES",
)  # fmt: skip
RATIOS = (
    "ours / original-style",
    "ours / LLaVA, base view",
    "ours / LLaVA, five views",
    "ours, checkpointing / ours",
)
ATTENTION = (
    "bfloat16 sdpa / bfloat16 sdpa, all of it torch's",
    "float32 eager / float32 sdpa",
    "bfloat16 eager / bfloat16 sdpa",
    "bfloat16 sdpa / float32 sdpa",
    "bfloat16 eager / float32 eager",
)


@pytest.fixture(scope="module")
def benchmark(run_tiny):
    return run_tiny("training.py", "--batch-size", "2", "--answer-tokens", "4", "--compare-attention")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory of a process is read from /proc")
class TestBenchmark:
    def test_prints_every_section_and_ratio(self, benchmark):
        run, results = benchmark
        for section in SECTIONS:
            assert f"\n{section}" in run.stdout
        assert tuple(results["ratios"]) == RATIOS
        assert tuple(results["attention"])[:5] == ATTENTION
        assert results["attention"]["bfloat16 sdpa, error"] < 0.1

    def test_every_number_is_finite_and_no_time_is_negative(self, benchmark, numbers):
        _, results = benchmark
        assert all(math.isfinite(number) and number >= 0 for number in numbers(results))
        assert all(step["whole_cpu_ms"] > 0 for step in results["steps"].values())
        assert all(share > 0 for share in results["mfu"].values())

    def test_what_is_compared_computes_the_same(self, benchmark):
        _, results = benchmark
        assert len(results["checks"]) == 4
        assert max(results["checks"].values()) < 1e-4


def test_refuses_an_empty_batch(run_script):
    run = run_script("training.py", "--batch-size", "0")
    assert run.returncode == 2
    assert "must be at least 1" in run.stderr
