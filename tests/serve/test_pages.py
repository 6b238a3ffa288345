"""The page's files: each under its own path, with headers that let nothing foreign in; and no other file."""

import pytest
from running_server import error_of


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/", "text/html"), ("/page.js", "javascript"), ("/examples/red-triangle.png", "image/png")],
)
def test_files_have_their_paths_and_types(server, path, kind):
    response = server.http.get(path)
    assert response.status_code == 200
    assert kind in response.headers["Content-Type"]
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["/app.py", "/../app.py", "/%2e%2e/app.py", "/examples/..%2f..%2fapp.py"])
def test_no_other_file_can_be_had(server, path):
    """`app.py` lies beside the folder of the page."""
    error_of(server.http.get(path), 404, "not_found")
