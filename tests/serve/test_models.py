"""Several models: loaded when asked for, unloaded when memory runs out, refused when they cannot be had."""

import threading

import pytest
from running_server import error_of, running, wait_for

from fusionvl.engine.sources import shipped_model
from fusionvl.serve.models import estimated_bytes
from fusionvl.serve.settings import ServedModel, ServerSettings, WorkerSettings, parse_models, read_api_keys

MODELS = tuple(ServedModel(name, f"{name}-{size}") for name, size in (("a", 600), ("b", 300), ("c", 300), ("d", 2000)))


@pytest.fixture(scope="module")
def server():
    with running(
        models=(*MODELS, ServedModel("e", "broken")), workers={"memory_bytes": 1000, "image_cache_bytes": 0}
    ) as server:
        yield server


def loaded(server):
    return {name for name, slot in server.app.state.pool.slots.items() if slot.is_loaded}


def test_models_come_and_go_within_the_budget(server):
    assert loaded(server) == {"a"}
    assert [model["id"] for model in server.http.get("/v1/models").json()["data"]] == ["a", "b", "c", "d", "e"]
    assert server.ask(model="b").status_code == 200
    assert loaded(server) == {"a", "b"}
    assert server.ask(model="a").status_code == 200
    assert server.ask(model="c").status_code == 200
    assert loaded(server) == {"a", "c"}, "b was used least recently"
    assert server.ask(model="b").status_code == 200
    assert loaded(server) == {"b", "c"}
    assert server.http.get("/ready").status_code == 200, "unloading the first model does not make the server unready"
    told = server.http.get("/metrics").text
    assert 'fusionvl_model_bytes{model="b"} 300.0' in told
    assert 'fusionvl_model_bytes{model="a"} 0.0' in told


def busy(server, model):
    """A stream that goes on until it is closed; its model is loaded when this returns."""
    messages = [{"role": "user", "content": "repeat on 10000 0.02"}]
    return server.http.stream(
        "POST", "/v1/chat/completions", json={"model": model, "stream": True, "messages": messages}
    )


def test_a_model_that_answers_is_not_unloaded(server):
    with busy(server, "a"), busy(server, "b"):
        assert loaded(server) == {"a", "b"}
        answer = server.ask(model="c")
        error_of(answer, 503, "memory_full")
        assert "Retry-After" in answer.headers
    wait_for(lambda: not any(slot.answers for slot in server.app.state.pool.slots.values()))
    assert server.ask(model="c").status_code == 200


def test_models_that_cannot_be_had(server, caplog):
    error = error_of(server.ask(model="e"), 503, "model_unavailable")
    assert "broken" not in error["message"], "where models lie is not for clients"
    assert "The folder broken cannot be loaded" in caplog.text
    error_of(server.ask(model="d"), 503, "model_unavailable")
    assert "2.00" not in error["message"]
    error = error_of(server.ask(model="../a"), 404, "model_not_found")
    assert error["param"] == "model"


def test_several_requests_load_a_model_once(server):
    before = len([line for line in server.log() if line.startswith("load b-300")])
    server.ask(model="a")
    server.ask(model="c")  # b is out, whatever ran before
    threads = [threading.Thread(target=server.ask, kwargs={"model": "b"}) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([line for line in server.log() if line.startswith("load b-300")]) - before in (1, 2)


def test_the_size_of_a_model_is_known_before_it_is_loaded():
    weights = (shipped_model() / "model.safetensors").stat().st_size  # of two bytes a parameter
    half, full = (
        estimated_bytes(str(shipped_model()), WorkerSettings(dtype=dtype, image_cache_bytes=0))
        for dtype in ("bfloat16", "float32")
    )
    assert full == 2 * half
    assert 0.99 < half / weights < 1.0, "the rest of the file is its head"
    assert estimated_bytes("some/hub-name", WorkerSettings(image_cache_bytes=7)) == 7


def test_names_of_models(tmp_path):
    assert parse_models([], tmp_path) == (ServedModel("nano", str(tmp_path)),)
    assert parse_models(["/models/big", "small=/x/y", "starriver030515/FUSION-X"], tmp_path) == (
        ServedModel("big", "/models/big"),
        ServedModel("small", "/x/y"),
        ServedModel("FUSION-X", "starriver030515/FUSION-X"),
    )
    for wrong in ("a b=/x", "=/x", "name=", "../=x"):
        with pytest.raises(ValueError, match="NAME=PATH"):
            parse_models([wrong], tmp_path)
    with pytest.raises(ValueError, match="same name"):
        ServerSettings(models=parse_models(["/a/m", "/b/m"], tmp_path))


def test_files_of_keys(tmp_path):
    path = tmp_path / "keys"
    path.write_text("# ours\n\n a-long-enough-key-1 \na-long-enough-key-2\n")
    assert read_api_keys(path) == ("a-long-enough-key-1", "a-long-enough-key-2")
    path.write_text("short\n")
    with pytest.raises(ValueError, match="fewer than 16"):
        read_api_keys(path)
    path.write_text("# none\n")
    with pytest.raises(ValueError, match="no API key"):
        read_api_keys(path)
    with pytest.raises(ValueError, match="cannot be read"):
        read_api_keys(tmp_path / "missing")
