"""Uploaded images: through the official client, and when there is no room or the clock runs."""

import asyncio

import openai
import pytest
from running_server import error_of, running

from fusionvl.serve.errors import ApiError
from fusionvl.serve.files import FileStore
from fusionvl.serve.settings import Limits


def test_upload_ask_list_and_delete(client, server, png):
    file = client.files.create(file=("box.png", png, "image/png"), purpose="vision")
    assert (file.bytes, file.filename, file.purpose, file.status) == (len(png), "box.png", "vision", "processed")
    assert client.files.retrieve(file.id) == file
    assert [found.id for found in client.files.list()] == [file.id]
    assert client.files.content(file.id).read() == png
    content = [{"type": "file", "file": {"file_id": file.id}}, {"type": "text", "text": "messages"}]
    answer = client.chat.completions.create(model="scripted", messages=[{"role": "user", "content": content}])
    assert answer.choices[0].message.content == "[('user', [(30, 20), 'messages'])]"
    assert client.files.delete(file.id).deleted
    assert list(client.files.list()) == []
    with pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(model="scripted", messages=[{"role": "user", "content": content}])
    assert raised.value.code == "file_not_found"
    assert raised.value.param == "messages.0.content.0.file.file_id"


def upload(server, content, name="a.png", **data):
    return server.http.post("/v1/files", files={"file": (name, content)}, data={"purpose": "vision", **data})


def test_what_is_no_image_is_not_kept(server):
    error = error_of(upload(server, b"#!/bin/sh"), 400, "image_type_unsupported")
    assert error["param"] == "file"
    assert server.http.get("/v1/files").json()["data"] == []


def test_other_mistakes(server, png):
    error_of(upload(server, png, purpose="fine-tune"), 400, "invalid_parameter")
    error_of(server.http.post("/v1/files", data={"purpose": "vision"}), 400, "missing_parameter")
    error_of(
        server.http.post("/v1/files", content=b"x", headers={"Content-Type": "multipart/form-data"}),
        400,
        "invalid_request",
    )
    error_of(server.http.get("/v1/files/file-unknown"), 404, "file_not_found")


@pytest.mark.parametrize("file_id", ["/etc/passwd", "../../../etc/passwd", "file:///etc/passwd", "", "file-\x00", "."])
def test_no_id_is_a_path(server, file_id):
    content = [{"type": "file", "file": {"file_id": file_id}}, {"type": "text", "text": "what?"}]
    error_of(server.ask(content), 404, "file_not_found")


@pytest.mark.parametrize("path", ["..%2f..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "....//....//etc/passwd"])
def test_no_path_is_a_path_either(server, path):
    error_of(server.http.get(f"/v1/files/{path}"), 404, "not_found")
    error_of(server.http.get(f"/v1/files/{path}/content"), 404, "not_found")


def test_a_file_name_is_only_a_name(server, png):
    file = upload(server, png, name="../../etc/cron.d/x\n<script>").json()
    content = server.http.get(f"/v1/files/{file['id']}/content")
    assert content.content == png
    assert content.headers["Content-Disposition"] == "attachment"
    assert content.headers["X-Content-Type-Options"] == "nosniff"
    server.http.delete(f"/v1/files/{file['id']}")


def test_there_is_room_for_so_much(png):
    with running(limits={"file_bytes": 2 * len(png)}) as server:
        first = upload(server, png).json()
        assert upload(server, png).status_code == 200
        error_of(upload(server, png), 413, "storage_full")
        server.http.delete(f"/v1/files/{first['id']}")
        assert upload(server, png).status_code == 200


def test_files_are_forgotten_when_they_are_old():
    now = 1000.0
    store = FileStore(Limits(file_seconds=60), clock=lambda: now)
    old = asyncio.run(store.add("me", b"abc", "image/png", "a", "vision"))
    now += 59
    young = asyncio.run(store.add("me", b"de", "image/png", "b", "vision"))
    assert asyncio.run(store.get("me", old.id)) is old
    now += 1
    with pytest.raises(ApiError):
        asyncio.run(store.get("me", old.id))
    assert asyncio.run(store.list("me")) == [young]
    assert store.num_bytes == 2


def test_ids_cannot_be_guessed():
    store = FileStore(Limits())
    ids = {asyncio.run(store.add("me", b"", "image/png", "a", "vision")).id for _ in range(100)}
    assert len(ids) == 100
    assert all(len(file_id) >= len("file-") + 32 for file_id in ids)
