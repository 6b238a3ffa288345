"""The run's log: whole lines only, each step once, and a plot of it."""

import json

from PIL import Image

from fusionvl.train.metrics import append_line, forget_after, plot_metrics, read_lines
from fusionvl.train.run import train


def line(stage, step, **values):
    return {"stage": stage, "step": step, **values}


def test_steps_that_will_run_again_are_forgotten(tmp_path):
    path = tmp_path / "metrics.jsonl"
    kept = [line("1", 2, loss=1.0), line("2", 1, loss=0.5)]
    for each in (kept[0], line("1", 3, loss=0.9), kept[1], line("1", 4, loss=0.8)):
        append_line(path, each)
    path.open("a").write('{"stage": "1", "st')  # the rest was lost in a kill
    forget_after(path, "1", 2)
    assert read_lines(path) == kept
    assert len(path.read_text().splitlines()) == 2


def test_nothing_to_forget(tmp_path):
    forget_after(tmp_path / "metrics.jsonl", "1", 0)
    assert read_lines(tmp_path / "metrics.jsonl") == []


def pixels(path):
    return Image.open(path).convert("L").getcolors(maxcolors=1 << 20)


def test_the_plot_shows_what_was_measured(tmp_path):
    path = tmp_path / "metrics.jsonl"
    plot_metrics(path)
    assert not path.with_suffix(".png").exists(), "nothing was measured"
    for step in range(1, 6):
        append_line(path, line("1", step, lm_loss=1 / step, text_mapping_loss=0.5, grad_norm=1.0))
    plot_metrics(path)
    loss_only = Image.open(path.with_suffix(".png")).size
    append_line(path, line("1.5", 5, held_out_accuracy=0.5))
    plot_metrics(path)
    assert Image.open(path.with_suffix(".png")).size[1] > loss_only[1], "one more panel"
    assert len(pixels(path.with_suffix(".png"))) > 10


def test_a_run_leaves_log_plot_and_tracker(tmp_path, recipe):
    train(recipe, tmp_path / "out")
    lines = read_lines(tmp_path / "out" / "metrics.jsonl")
    steps = [(each["stage"], each["step"]) for each in lines if "loss" in each]
    assert steps == [(stage, step) for stage in ("1", "2") for step in (1, 2, 3, 4)]
    for each in lines:
        if "loss" in each:
            total = each["lm_loss"] + 0.1 * (each["text_mapping_loss"] + each["vision_mapping_loss"])
            assert abs(each["loss"] - total) < 1e-3
            assert each["grad_norm"] > 0
    assert Image.open(tmp_path / "out" / "metrics.png").size[0] > 500
    assert list((tmp_path / "out" / "stage-2").rglob("events.out.tfevents.*"))
    versions = json.loads((tmp_path / "out" / "versions.json").read_text())
    assert versions["seed"] == 0
    assert versions["torch"].startswith("2.13")
