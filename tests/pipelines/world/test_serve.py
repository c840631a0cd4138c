import http.client
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from pipelines.world.serve import serve


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "public"
    root.mkdir()
    (tmp_path / "secret.txt").write_text("not served")
    (root / "a photo.jpg").write_bytes(b"jpeg bytes")
    (root / "b.webp").write_bytes(b"webp bytes")
    return root


def test_files_come_with_their_content_type_and_length(folder: Path) -> None:
    with serve(folder) as base, urlopen(f"{base}/a%20photo.jpg?size=large") as answer:
        assert answer.read() == b"jpeg bytes"
        assert answer.headers["Content-Type"] == "image/jpeg"
        assert answer.headers["Content-Length"] == "10"
    with serve(folder) as base, urlopen(f"{base}/b.webp") as answer:
        assert answer.headers["Content-Type"] == "image/webp"


@pytest.mark.parametrize("path", ["/missing.jpg", "/", "/../secret.txt", "/%2e%2e/secret.txt"])
def test_whatever_is_no_file_of_the_folder_is_not_found(folder: Path, path: str) -> None:
    with serve(folder) as base, pytest.raises(HTTPError) as error:
        urlopen(base + path)
    assert error.value.code == 404


def test_one_connection_serves_many_requests_and_heads_have_no_body(folder: Path) -> None:
    with serve(folder) as base:
        connection = http.client.HTTPConnection(base.removeprefix("http://"))
        for method, body in (("HEAD", b""), ("GET", b"webp bytes"), ("GET", b"webp bytes")):
            connection.request(method, "/b.webp")
            assert connection.getresponse().read() == body
        connection.close()


def test_the_port_is_free_again_after_the_block(folder: Path) -> None:
    with serve(folder) as base:
        port = int(base.rsplit(":", 1)[1])
    with serve(folder, port=port) as again:
        assert again == base


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no folder"), serve(tmp_path / "nowhere"):
        pass
