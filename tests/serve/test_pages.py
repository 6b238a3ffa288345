"""The page's files: each under its own path, with headers that let nothing foreign in; and no other file."""

import asyncio

import httpx
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from fusionvl.serve.errors import refuse
from fusionvl.serve.pages import page_routes


@pytest.fixture
def get(tmp_path):
    folder = tmp_path / "web"
    (folder / "examples").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html>")
    (folder / "app.js").write_text("1")
    (folder / "examples" / "one.png").write_bytes(b"png")
    (tmp_path / "secret.txt").write_text("secret")
    app = Starlette(routes=page_routes(folder), exception_handlers={HTTPException: refuse})

    def get(path):
        async def ask():
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
                return await client.get(path)

        return asyncio.run(ask())

    return get


def test_files_have_their_paths_and_types(get):
    for path, kind in (("/", "text/html"), ("/app.js", "javascript"), ("/examples/one.png", "image/png")):
        response = get(path)
        assert response.status_code == 200
        assert kind in response.headers["Content-Type"]
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["/secret.txt", "/../secret.txt", "/%2e%2e/secret.txt", "/a/..%2f..%2fsecret.txt"])
def test_no_other_file_can_be_had(get, path):
    response = get(path)
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"
