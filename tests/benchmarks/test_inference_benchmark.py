import math
import sys

import pytest

SECTIONS = ("STAGES", "RATIOS", "CHECKS", "MATRIX PRODUCTS", "PEAK MEMORY")
RATIOS = (
    "released, second question / released, first question",
    "masked, second question / masked, first question",
    "masked, first question / original-style, any question",
    "masked, second question / original-style, any question",
    "masked, turn 8 / original-style, turn 8",
    "masked, first question / LLaVA, base view",
    "masked, second question / LLaVA, base view",
    "masked, second question / LLaVA, base view, its prefill alone",
    "masked, first question / LLaVA, five views",
    "masked, second question / LLaVA, five views",
    "masked, second question / LLaVA, five views, its prefill alone",
    "masked, first question / original-style, any question, a decoded token",
    "released, second question / released, first question, vision encoding alone",
    "masked, second question / masked, first question, vision encoding alone",
)


@pytest.fixture(scope="module")
def benchmark(run_tiny):
    return run_tiny("inference.py", "--early-guidance", "masked", "--new-tokens", "3")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory of a process is read from /proc")
class TestBenchmark:
    def test_prints_every_section_and_ratio(self, benchmark):
        run, results = benchmark
        for section in SECTIONS:
            assert f"\n{section}" in run.stdout
        assert set(RATIOS) <= set(results["ratios"])
        assert "CPU time" in run.stdout
        for ratio in results["ratios"]:
            assert ratio in run.stdout

    def test_every_number_is_finite_and_no_time_is_negative(self, benchmark, numbers):
        _, results = benchmark
        assert all(math.isfinite(number) and number >= 0 for number in numbers(results))
        assert all(ratio[clock]["median"] > 0 for ratio in results["ratios"].values() for clock in ("wall", "cpu"))

    def test_what_is_compared_computes_the_same(self, benchmark):
        _, results = benchmark
        assert len(results["checks"]) == 3
        assert max(results["checks"].values()) < 1e-4

    def test_progress_goes_to_stderr(self, benchmark):
        run, _ = benchmark
        assert "round 1 of 1" in run.stderr
        assert "round 1 of 1" not in run.stdout


def test_refuses_too_short_an_answer(run_script):
    run = run_script("inference.py", "--new-tokens", "1")
    assert run.returncode == 2
    assert "--new-tokens must be at least 2" in run.stderr
