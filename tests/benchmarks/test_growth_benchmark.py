"""The growth of an answer's cost: every size is run, and what does not fit the picture is left out."""

import json


def test_sizes_that_fit_are_timed_and_drawn(run_script, tmp_path):
    report, plot = tmp_path / "growth.json", tmp_path / "growth.png"
    run = run_script(
        "growth.py", "--preset", "nano", "--device", "cpu", "--threads", "1", "--repeats", "1", "--largest-batch", "2",
        "--json", str(report), "--plot", str(plot),
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    seconds = json.loads(report.read_text())["seconds"]
    assert {what: list(times) for what, times in seconds.items()} == {
        "turns": ["1", "2", "4", "8", "16"],
        "latent tokens": ["4", "16"],  # a map of 16 x 16 has room for 5 x 5 windows
        "batch size": ["1", "2"],
    }
    assert all(time > 0 for times in seconds.values() for time in times.values())
    assert seconds["turns"]["16"] > seconds["turns"]["1"]
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "time / straight line" in run.stdout
