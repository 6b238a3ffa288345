"""Runs on a real cluster: two nodes on this machine, with four logical CPUs each."""

import os
import signal
import time
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import yaml
from endpoint import serving
from small_work import make_logged

from fusionvl.cli import main
from fusionvl.synth.cluster import ShardPlace, _hand_out
from fusionvl.synth.progress import RunProgress, Tally
from fusionvl.synth.recipe import load_synth_recipe
from fusionvl.synth.run import needs_of
from fusionvl.synth.shard_files import finished_rows
from fusionvl.synth.shards import ShardJob, Sharing, complete

SRC = str(Path(__file__).parents[2] / "src")
SCENES = {
    "name": "small",
    "rows": {"SynthColor": 30, "ContrastShort": 18},
    "describe": {"kind": "template"},
    "questions": {"kind": "template"},
    "images": {"kind": "procedural", "size": 64},
    "shard_size": 6,
}


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", SRC)  # workers get it from the run that starts them
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_raylet_start_wait_time_s", "120")  # the second node may be slow to start on a busy machine
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False})
        try:
            made.second = made.add_node(num_cpus=4)
            yield made
        finally:
            made.shutdown()


@pytest.fixture
def recipe(tmp_path):
    def write(**changes):
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(SCENES | changes))
        return str(path)

    return write


def synth_run(recipe, folder, *options):
    return main(["synth", "run", recipe, "--output", str(folder), *options])


def endpoint(server):
    return {"kind": "endpoint", "model": "test-model", "base_urls": [server.url], "retries": 1}


def made_files(folder):
    """All but the record, which says when the run began, and the locks."""
    kept = (
        path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock" and path.name != "run.json"
    )
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in kept}


def places():
    """The processes that work on shards, by the process of their node."""
    found = [each for each in psutil.process_iter(["name", "cmdline"]) if "ray::ShardPlace" in _title(each)]
    return {process.ppid(): process for process in found}


def _title(process):
    return " ".join(process.info["cmdline"] or ())


def wait_for(condition):
    end = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen within a minute"
        time.sleep(0.02)
    return found


@pytest.mark.slow
def test_the_same_files_come_about_as_on_one_machine(cluster, recipe, tmp_path, capsys):
    assert synth_run(recipe(), tmp_path / "plain") == 0
    assert synth_run(recipe(), tmp_path / "ray", "--ray", cluster.address, "--ray-workers", "2") == 0
    assert capsys.readouterr().out.count("48 ok in") == 2
    plain = made_files(tmp_path / "plain")
    assert len(plain) == 8 + 48
    assert made_files(tmp_path / "ray") == plain
    assert synth_run(recipe(), tmp_path / "ray", "--ray", cluster.address) == 0  # nothing left to do


@pytest.mark.slow
def test_filters_run_on_a_cluster_too(cluster, recipe, tmp_path, capsys):
    for name, ray in (("plain", ()), ("ray", ("--ray", cluster.address, "--ray-workers", "2"))):
        assert synth_run(recipe(), tmp_path / name) == 0
        assert main(["synth", "filter", str(tmp_path / name), "--filters", "rules", "images", *ray]) == 0
    assert capsys.readouterr().out.count("images: 48 ok") == 2
    plain = made_files(tmp_path / "plain" / "scores")
    assert len(plain) == 2 * 8
    assert made_files(tmp_path / "ray" / "scores") == plain


@pytest.mark.slow
@pytest.mark.parametrize("places", [1, 2])
def test_a_place_loads_its_models_once(cluster, tmp_path, monkeypatch, places):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([SRC, str(Path(__file__).parent)]))
    job = ShardJob(partial(make_logged, tmp_path), tmp_path, dict.fromkeys(range(3), 40), concurrency=8)
    assert complete(job, Sharing(ray=cluster.address, ray_workers=places, shown=False)).rows == {"ok": 120}
    made = (tmp_path / "made.log").read_text().split()
    assert len(made) == len(set(made)) == places


@pytest.mark.slow
def test_faults_of_a_run_are_told_in_one_sentence(cluster, recipe, tmp_path, capsys):
    ray = ("--ray", cluster.address, "--ray-workers", "2")
    big = recipe(images=SCENES["images"] | {"processes": 5})
    assert synth_run(big, tmp_path / "run", *ray) == 2
    assert "No node of the cluster has room for a shard, which needs 5 CPU" in capsys.readouterr().err
    fuse = {"window": 5, "max_errors": 0.5}
    with serving([(400, {})] * 100) as server:
        asking = recipe(questions=endpoint(server), fuse=fuse, concurrency=2, shard_size=24)
        assert synth_run(asking, tmp_path / "fuse", *ray) == 2
        assert "rows are error" in (told := capsys.readouterr().err)
        assert "Error code: 400" in told
        server.script.clear()
        assert synth_run(asking, tmp_path / "fuse", *ray, "--retry-errors") == 0
    assert [row.status for row in finished_rows(tmp_path / "fuse")] == ["ok"] * 48


@pytest.mark.slow
def test_when_a_process_and_then_a_node_die_every_row_is_there_once(cluster, recipe, tmp_path, capsys):
    """Each shard needs three of four CPUs, so that there is one on either node."""
    scenes = {"kind": "procedural", "size": 64, "processes": 3}
    with serving(latency=0.2) as server, ThreadPoolExecutor() as threads:
        asking = recipe(questions=endpoint(server), images=scenes, concurrency=4)
        running = threads.submit(synth_run, asking, tmp_path / "ray", "--ray", cluster.address)
        on_nodes = wait_for(lambda: len(found := places()) == 2 and found)
        wait_for(lambda: len(server.requests) >= 4)
        head = next(process for process in on_nodes.values() if process.ppid() != raylet(cluster.second))
        head.send_signal(signal.SIGKILL)
        wait_for(lambda: len(server.requests) >= 20)
        cluster.remove_node(cluster.second, allow_graceful=False)
        assert running.result(timeout=200) == 0
        asked = len(server.requests)
        assert synth_run(asking, tmp_path / "plain") == 0
    assert capsys.readouterr().out.count("48 ok, ") == 2
    assert made_files(tmp_path / "ray") == made_files(tmp_path / "plain")
    assert len({row.id for row in finished_rows(tmp_path / "ray")}) == 48
    assert 48 <= asked <= 48 + 2 * 4  # each loss repeats at most what was in flight
    cluster.second = None


def raylet(node):
    return node.all_processes["raylet"][0].process.pid


def test_a_place_makes_its_work_ready_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = ShardJob(partial(make_logged, tmp_path), tmp_path, dict.fromkeys(range(3), 40), concurrency=8)
    place = ShardPlace(job, tmp_path, {}, retry_errors=False)
    assert [place.do(shard).rows for shard in (0, 2)] == [{"ok": 40}, {"ok": 40}]
    assert len((tmp_path / "made.log").read_text().split()) == 1
    elsewhere = ShardPlace(job, tmp_path / "nowhere", {}, retry_errors=False)
    with pytest.raises(ValueError, match=r"does not see the folder .*nowhere: start from a folder"):
        elsewhere.do(1)


class LosingRay:
    """Stands where Ray does: its places do a shard at once, or are lost with it as often as a test says."""

    class exceptions:  # noqa: N801 - as Ray calls it
        class RayError(Exception):
            pass

        class RayTaskError(RayError):
            pass

    def __init__(self, losses):
        self.losses = Counter(losses)
        self.places, self.killed, self.done = [], [], []

    def make(self):
        name = len(self.places)
        ready, do = SimpleNamespace(remote=object), SimpleNamespace(remote=lambda shard: (name, shard))
        place = SimpleNamespace(__ray_ready__=ready, do=do)
        self.places.append(place)
        return place

    def wait(self, told):
        return told[:1], told[1:]

    def get(self, told):
        _, shard = told
        if self.losses[shard]:
            self.losses[shard] -= 1
            raise self.exceptions.RayError("the node\ndied")
        self.done.append(shard)
        return Tally(Counter(ok=1))

    def kill(self, place):
        self.killed.append(place)


def test_a_shard_that_is_lost_is_done_by_another_place():
    ray, progress = LosingRay({1: 3, 4: 1}), RunProgress(6, shown=False)
    _hand_out(ray, deque(range(6)), ray.make, 2, progress)
    assert progress.tally.rows == {"ok": 6}
    assert sorted(ray.done) == list(range(6))
    assert len(ray.places) == 2 + 4, "one more for each that was lost"
    assert len(ray.killed) == len(ray.places), "none is left"


def test_a_shard_that_takes_down_one_place_after_the_other_ends_the_run():
    ray = LosingRay({0: 4})
    with pytest.raises(ValueError, match=r"lost 4 times .*Ray says: the node died. What was done is kept"):
        _hand_out(ray, deque([0, 1]), ray.make, 1, RunProgress(2, shown=False))
    assert ray.done == [1]


def local(*devices):
    return {"kind": "local", "model": "m", "devices": list(devices)}


def diffusion(*devices):
    return {"kind": "diffusion", "model": "m", "devices": list(devices)}


@pytest.mark.parametrize(
    ("changes", "needs"),
    [
        ({}, "1 CPU"),
        ({"images": SCENES["images"] | {"processes": 3}}, "3 CPU"),
        ({"questions": local("cpu", "cpu")}, "3 CPU"),
        ({"images": diffusion("cuda:0", "cuda:1")}, "1 CPU and 2 GPU"),
        ({"images": diffusion("cuda"), "questions": local("cuda:0")}, "1 CPU and 1 GPU"),
    ],
)
def test_what_a_shard_needs_follows_from_the_recipe(recipe, changes, needs):
    assert str(needs_of(load_synth_recipe(recipe(**changes)))) == needs


def test_gpus_are_counted_from_0(recipe):
    with pytest.raises(ValueError, match=r"from cuda:0 on, and \['cuda:1'\] leaves some out"):
        needs_of(load_synth_recipe(recipe(images=diffusion("cuda:1"))))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ray", "127.0.0.1:9"], "No Ray cluster answers at 127.0.0.1:9"),
        (["--ray", "seed=1"], "takes HOST:PORT, as `ray start` prints it, or auto, not seed=1"),
        (["--ray-workers", "2"], "--ray-workers goes with --ray"),
        (["--ray", "127.0.0.1:9", "--ray-workers", "0"], "--ray-workers must be at least 1, not 0"),
    ],
)
def test_clusters_that_cannot_be(recipe, tmp_path, capsys, options, message):
    pytest.importorskip("ray")
    assert synth_run(recipe(), tmp_path / "run", *options) == 2
    assert message in capsys.readouterr().err
