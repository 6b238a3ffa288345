"""A judge behind a real HTTP server, one that fails included."""

import json
import re
from types import SimpleNamespace

import pytest
from endpoint import serving
from stand_ins import JUDGED, FakeAnswerer, lines

from fusionvl.eval.judge import API_KEY_VARIABLE, EndpointJudge, JudgeError
from fusionvl.eval.runner import run_task


def judge(url, **options):
    return EndpointJudge(url, "test-model", timeout=5, **options)


def test_asks_and_answers(monkeypatch):
    monkeypatch.setenv(API_KEY_VARIABLE, "secret")
    with serving(script=["right"]) as server:
        assert judge(server.url)("Is it?") == "right"
    (request,) = server.requests
    assert request["messages"] == [{"role": "user", "content": "Is it?"}]
    assert (request["model"], request["temperature"]) == ("test-model", 0)
    assert server.keys == ["Bearer secret"]


def test_tries_again():
    with serving(script=[(503, {"Retry-After": "0.01"}), (500, {"Retry-After": "0.01"}), "wrong"]) as server:
        assert judge(server.url)("Is it?") == "wrong"
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ((500, {}), "test 500"),
        ("no choice", "said nothing"),
        ("empty choice", "said nothing"),
        ("broken body", "broken"),
        ("close mid-stream", "Connection"),
    ],
)
def test_what_is_no_judgement(behaviour, reason):
    with serving(script=[behaviour]) as server, pytest.raises(JudgeError, match=reason):
        judge(server.url, retries=0)("Is it?")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("<html>Bad gateway</html>", "no chat completion, but '<html>Bad gateway"),
        (None, "no chat completion"),
        ([], "no chat completion"),
        (SimpleNamespace(choices=None), "no chat completion"),
        (SimpleNamespace(choices=[SimpleNamespace(index=0)]), "said nothing"),
        (SimpleNamespace(choices=[SimpleNamespace(message=None)]), "said nothing"),
        (SimpleNamespace(choices=[SimpleNamespace(message=SimpleNamespace(content=["right"]))]), "said nothing"),
    ],
)
def test_what_is_no_answer_at_all(monkeypatch, body, reason):
    """What the client returns for such bodies with status 200."""
    asked = judge("http://127.0.0.1:9/v1")
    monkeypatch.setattr(asked._client.chat.completions, "create", lambda **_: body)
    with pytest.raises(JudgeError, match=reason):
        asked("Is it?")


def test_an_endpoint_that_cannot_be_reached():
    with serving() as server:
        url = server.url
    with pytest.raises(JudgeError, match="Connection"):
        judge(url, retries=0)("Is it?")


@pytest.mark.parametrize("status", [401, 404])
def test_what_no_other_attempt_would_change_stops_the_run(tmp_path, status):
    with serving(script=[(status, {})] * 64) as server, pytest.raises(ValueError, match=API_KEY_VARIABLE):
        run_task(JUDGED, FakeAnswerer(), tmp_path, judge=judge(server.url), show_progress=False)


def test_failures_are_counted_and_judged_again_without_asking_the_model(tmp_path):
    failing = [(500, {})] * 5
    with serving(script=[*failing, *["right"] * 7]) as server:
        first = FakeAnswerer()
        results = run_task(JUDGED, first, tmp_path, judge=judge(server.url, retries=0), show_progress=False)
    assert (results.judge_failed, results.questions, results.value) == (5, 12, 100.0)
    assert not results.is_complete
    failed = [json.loads(line) for line in lines(tmp_path) if json.loads(line)["score"] is None]
    assert len(failed) == 5
    assert all(re.search("^judge failed: .*test 500", sample["reason"]) for sample in failed)

    with serving(script=["wrong"] * 5) as server:
        # The same judge at another port would be another judge.
        second_judge = judge(server.url)
        second_judge.settings = lambda: json.loads((tmp_path / "run.json").read_text())["settings"]["judge"]
        second = FakeAnswerer()
        results = run_task(JUDGED, second, tmp_path, judge=second_judge, show_progress=False)
    assert second.asked == []
    assert len(server.requests) == 5
    assert (results.judge_failed, results.value) == (0, pytest.approx(100 * 7 / 12))
    assert len(lines(tmp_path)) == 12


def test_when_every_judgement_fails_there_is_no_score(tmp_path):
    with serving(script=[(500, {})] * 12) as server:
        results = run_task(JUDGED, FakeAnswerer(), tmp_path, judge=judge(server.url, retries=0), show_progress=False)
    assert (results.judge_failed, results.value, results.metrics, results.intervals) == (12, None, {}, {})


def test_the_judge_is_recorded_without_credentials_and_not_exchanged(tmp_path):
    with serving(script=["right"] * 12) as server:
        url = server.url.replace("http://", "http://name:password@") + "?key=1"
        run_task(JUDGED, FakeAnswerer(), tmp_path, judge=judge(url.split("?")[0]), show_progress=False)
        recorded = json.loads((tmp_path / "run.json").read_text())
        assert recorded["settings"]["judge"] == {
            "model": "test-model",
            "base_url": server.url,
            "prompt_version": "3",
        }
        assert judge(url).settings()["base_url"] == server.url
        other = EndpointJudge(server.url, "other-model")
        with pytest.raises(ValueError, match=r"judge.model: 'test-model' there, 'other-model' here"):
            run_task(JUDGED, FakeAnswerer(), tmp_path, judge=other, show_progress=False)
