"""Downloads from a local server that drops connections, sends wrong bytes, fails, redirects and ignores ranges."""

import hashlib
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from ltpipe.config.spec import Refused
from ltpipe.data.acquire import download
from ltpipe.data.acquire.download import Remote, fetch_file

CONTENT = bytes(range(256)) * 2048  # 524,288 bytes
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()
SIZE = len(CONTENT)
PIECE = SIZE // 8
QUICK = (0.0, 0.0, 0.0)


class Server(ThreadingHTTPServer):
    """Answers request n with behaviours[n] (the last behaviour repeats), and records each request's Range header."""

    daemon_threads = True

    def __init__(self, behaviours):
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviours, self.ranges, self.lock = list(behaviours), [], threading.Lock()
        self.released = threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/folder/file.bin"

    def next(self, ranged):
        with self.lock:
            self.ranges.append(ranged)
            return self.behaviours.pop(0) if len(self.behaviours) > 1 else self.behaviours[0]


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        getattr(self, self.server.next(self.headers.get("Range")))()

    def _send(self, status, body, declared=None, **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if declared is None else declared))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _start(self):
        wanted = self.headers.get("Range")
        return int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0

    def _rest(self):
        start = self._start()
        return (206 if start else 200), CONTENT[start:]

    def good(self):
        status, body = self._rest()
        self._send(status, body)

    def whole(self):
        self._send(200, CONTENT)

    def drop(self):
        status, body = self._rest()
        self._send(status, body[:PIECE], declared=len(body))

    def drop_whole(self):
        self._send(200, CONTENT[:1000], declared=len(CONTENT))

    def short(self):
        status, body = self._rest()
        self._send(status, body[: len(body) // 2])

    def wrong(self):
        self._send(200, b"x" * len(CONTENT))

    def wrong_rest(self):
        self._send(206, b"x" * (len(CONTENT) - self._start()))

    def long(self):
        self._send(200, CONTENT + b"more")

    def past(self):
        self._send(416, b"")

    def missing(self):
        self._send(404, b"not here")

    def broken(self):
        self._send(500, b"sorry")

    def busy(self):
        self._send(503, b"later")

    def redirect(self):
        self._send(302, b"", Location=self.server.url + "?again")

    def stall(self):
        """Send half of the file, then nothing more."""
        status, body = self._rest()
        self._send(status, body[: len(body) // 2], declared=len(body))
        self.server.released.wait(20)

    def silent(self):
        self.server.released.wait(20)

    def page(self):
        """Send a login page, as the network of a hotel does for any request."""
        self._send(200, b"<html>Please log in</html>")

    def slow(self):
        threading.Event().wait(0.3)
        self.good()


@contextmanager
def serving(*behaviours):
    server = Server(behaviours)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def names(folder):
    """Return the names in the folder, without the lock file, which may stay."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def fetch_from(server, folder, size=SIZE, checksum=MD5):
    return fetch_file(Remote(server.url, checksum, size), folder, QUICK)


@pytest.mark.parametrize(
    "behaviours",
    [
        ["good"],
        ["drop", "good"],
        ["drop", "drop", "drop", "drop", "drop", "drop", "good"],
        ["drop", "whole"],
        ["drop_whole", "drop_whole", "whole"],
        ["broken", "good"],
        ["busy", "broken", "good"],
        ["redirect", "good"],
        ["drop", "redirect", "good"],
        ["drop", "wrong_rest", "good"],
        ["drop", "past", "good"],
    ],
    ids=", ".join,
)
@pytest.mark.parametrize("size", [len(CONTENT), None], ids=["size known", "size unknown"])
def test_the_downloaded_file_has_the_right_content(behaviours, size, tmp_path):
    with serving(*behaviours) as server:
        path = fetch_from(server, tmp_path, size)
    assert path == tmp_path / "file.bin"
    assert path.read_bytes() == CONTENT
    assert names(tmp_path) == ["file.bin"]


def test_a_short_file_is_continued_if_its_size_is_known(tmp_path):
    with serving("short", "good") as server:
        assert fetch_from(server, tmp_path).read_bytes() == CONTENT
    with serving("short", "good") as server, pytest.raises(Refused, match="a different file: 262,144 bytes"):
        fetch_from(server, tmp_path / "unknown", size=None)


def test_only_the_missing_bytes_are_requested(tmp_path):
    with serving("drop", "good") as server:
        fetch_from(server, tmp_path)
    assert server.ranges == [None, f"bytes={PIECE}-"]


def test_a_later_call_continues_the_part_of_an_earlier_call(tmp_path):
    with serving("drop", "broken") as server, pytest.raises(Refused):
        fetch_from(server, tmp_path)
    assert names(tmp_path) == [".file.bin.part"]
    with serving("good") as server:
        assert fetch_from(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [f"bytes={PIECE}-"]


def test_a_complete_part_is_only_checked(tmp_path):
    (tmp_path / ".file.bin.part").write_bytes(CONTENT)
    with serving("missing") as server:
        assert fetch_from(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges == []


def test_an_existing_file_is_not_fetched_again(tmp_path):
    (tmp_path / "file.bin").write_bytes(CONTENT)
    with serving("missing") as server:
        fetch_from(server, tmp_path)
    assert server.ranges == []
    assert names(tmp_path) == ["file.bin"]


def test_an_existing_wrong_file_stays_until_the_right_one_is_complete(tmp_path):
    (tmp_path / "file.bin").write_bytes(b"wrong")
    with serving("broken") as server, pytest.raises(Refused):
        fetch_from(server, tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == b"wrong"
    with serving("good") as server:
        fetch_from(server, tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("behaviour", "message", "requests"),
    [
        ("missing", "404", 1),
        ("wrong", "the server sent a different file: 524,288 bytes, md5:", 1),
        ("long", "the server sent a different file: 524,292 bytes", 1),
        ("broken", "500", 4),
        ("redirect", "Exceeded 30 redirects", 31),
    ],
)
def test_a_failed_download_is_refused_and_leaves_nothing(behaviour, message, requests, tmp_path):
    with serving(behaviour) as server, pytest.raises(Refused) as caught:
        fetch_from(server, tmp_path)
    assert caught.value.exit_code == 2
    for part in ("cannot fetch file.bin (524,288 bytes)", message, server.url, f"put the file at {tmp_path}", MD5):
        assert part in caught.value.message
    assert len(server.ranges) == requests
    assert names(tmp_path) == []


def test_without_a_network_the_error_says_where_to_put_the_file(tmp_path):
    with serving("good") as server:
        url = server.url
    with pytest.raises(Refused, match=r"cannot fetch file\.bin") as caught:
        fetch_file(Remote(url, MD5), tmp_path, QUICK)
    assert f"without a network: put the file at {tmp_path / 'file.bin'}" in caught.value.message


@pytest.mark.parametrize(
    "checksum",
    [
        MD5,
        "sha256:" + hashlib.sha256(CONTENT).hexdigest(),
        "git:" + hashlib.sha1(b"blob 524288\0" + CONTENT).hexdigest(),
    ],
    ids=["md5", "sha256", "git"],
)
def test_each_kind_of_checksum_is_verified(checksum, tmp_path):
    with serving("good") as server:
        assert fetch_from(server, tmp_path, checksum=checksum).exists()
        wrong = checksum[:-1] + ("0" if checksum[-1] != "0" else "1")
        with pytest.raises(Refused, match="a different file"):
            fetch_from(server, tmp_path / "other", checksum=wrong)


def test_the_blob_id_is_that_of_git(tmp_path):
    (tmp_path / "hello").write_bytes(b"hello\n")
    remote = Remote("http://127.0.0.1/hello", "git:ce013625030ba8dba906f756967f9e9ca394464a", 6)
    assert fetch_file(remote, tmp_path, QUICK) == tmp_path / "hello"


CODE = (
    "import sys; from pathlib import Path; from ltpipe.data.acquire.download import Remote, fetch_file\n"
    f"fetch_file(Remote(sys.argv[1], {MD5!r}, {len(CONTENT)}), Path(sys.argv[2]))"
)


def process(server, folder):
    return subprocess.Popen([sys.executable, "-c", CODE, server.url, str(folder)], stderr=subprocess.PIPE)


def test_two_processes_fetch_once(tmp_path):
    with serving("slow") as server:
        runs = [process(server, tmp_path) for _ in range(2)]
        errors = [run.communicate(timeout=60)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], errors
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.ranges == [None]


def test_a_waiting_process_completes_the_part_of_a_killed_one(tmp_path):
    part = tmp_path / ".file.bin.part"
    with serving("stall", "good") as server:
        first = process(server, tmp_path)
        while not (part.exists() and part.stat().st_size >= SIZE // 4):
            assert first.poll() is None
            time.sleep(0.01)
        second = process(server, tmp_path)
        time.sleep(1.0)  # it starts, and waits for the lock
        assert second.poll() is None
        assert not (tmp_path / "file.bin").exists()
        first.kill()
        first.communicate(timeout=60)
        have = part.stat().st_size
        errors = second.communicate(timeout=60)[1]
    assert second.returncode == 0, errors
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={have}-"]
    assert names(tmp_path) == ["file.bin"]


@pytest.mark.parametrize("behaviour", ["stall", "silent"])
def test_a_silent_server_is_tried_again_after_the_timeout(behaviour, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", (5, 0.2))
    with serving(behaviour, "good") as server:
        began = time.monotonic()
        assert fetch_from(server, tmp_path).read_bytes() == CONTENT
    assert time.monotonic() - began < 10
    assert len(server.ranges) == 2


@pytest.fixture
def pauses(monkeypatch):
    """Return the list of requested pauses; none of them is made."""
    requested = []
    monkeypatch.setattr(download, "time", SimpleNamespace(sleep=requested.append))
    return requested


def test_each_attempt_waits_longer_and_the_last_one_gives_up(pauses, tmp_path):
    with serving("broken") as server, pytest.raises(Refused, match="500"):
        fetch_file(Remote(server.url, MD5, SIZE), tmp_path)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0]
    assert len(server.ranges) == 6


def test_an_attempt_that_gets_further_resets_the_pauses(pauses, tmp_path):
    with serving("busy", "busy", "drop", "busy", "busy", "good") as server:
        fetch_file(Remote(server.url, MD5, SIZE), tmp_path)
    assert pauses == [1.0, 2.0, 1.0, 2.0, 4.0]


def test_a_permanent_error_is_not_tried_again(pauses, tmp_path):
    with serving("missing") as server, pytest.raises(Refused, match="404"):
        fetch_file(Remote(server.url, MD5, SIZE), tmp_path)
    assert pauses == []


def test_a_login_page_is_not_taken_for_the_file(tmp_path):
    with serving("page") as server, pytest.raises(Refused, match="cannot fetch file"):
        fetch_from(server, tmp_path)
    assert not (tmp_path / "file.bin").exists()
    with serving("good") as server:
        assert fetch_from(server, tmp_path).read_bytes() == CONTENT


def test_a_lack_of_disk_space_is_refused_before_anything_is_fetched(tmp_path):
    with (
        serving("good") as server,
        pytest.raises(Refused, match=r"not enough disk space for file\.bin .* bytes to fetch"),
    ):
        fetch_from(server, tmp_path, size=1 << 60)
    assert server.ranges == []


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with serving("good") as server, pytest.raises(Refused, match="cannot write"):
        fetch_from(server, tmp_path / "taken")


def test_a_progress_bar_on_a_terminal(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with serving("drop", "good") as server:
        fetch_from(server, tmp_path)
    shown = capfd.readouterr().err
    assert "100%" in shown
    assert (
        "/524k" in shown and "459k/459k" in shown
    )  # the entire file, then the bytes that the dropped connection left over


def test_no_progress_bar_without_a_terminal(tmp_path, capfd):
    with serving("good") as server:
        fetch_from(server, tmp_path)
    assert capfd.readouterr() == ("", "")
