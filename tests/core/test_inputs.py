"""Inputs that lie elsewhere: named by content, fetched once, taken up again where a transfer broke off."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import services
from support import RECIPE, git, run, workbench

from workbench import lock, recipe, runs
from workbench.errors import MachineLacks, RecipeError, UsageError
from workbench.image import downloads
from workbench.inputs import fetch
from workbench.push_inputs import as_recipe_lines, push_inputs
from workbench.registry.http import Patience
from workbench.registry.where import open_target
from workbench.steps import Emit

AT_ONCE = Patience(attempts=3, sleep=lambda seconds: None)
DATA = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(DATA).hexdigest()


@dataclass
class Server:
    """A file server: ``files`` by path; ``breaks_after`` bytes it closes the connection, once; may not know ranges."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    breaks_after: int = 0
    knows_ranges: bool = True
    asked: list[tuple[str, str]] = field(default_factory=list)

    def ranges(self) -> list[str]:
        return [asked for _, asked in self.asked]


@pytest.fixture
def server() -> Iterator[Server]:
    served = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            served.asked.append((self.path, asked))
            if self.path in served.moved:
                self.send_response(302)
                self.send_header("Location", served.moved[self.path])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            data = served.files.get(self.path.partition("?")[0])
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and served.knows_ranges else 0
            status = 404 if data is None else 416 if start >= len(data) else 206 if start else 200
            body = (data or b"")[start:]
            self.send_response(status)
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{start + len(body)}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if served.breaks_after:
                body, served.breaks_after = body[: served.breaks_after], 0
                self.close_connection = True
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        served.address = f"http://127.0.0.1:{listening.server_port}"
        yield served
        listening.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of downloads."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def part_of(cache: Path, data: bytes = b"") -> Path:
    path = cache / "downloads" / "partial" / SHA256
    if data:
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
    return path


def fetched(emit: Emit, **where: str) -> bytes:
    params = {"sha256": SHA256, "name": "model.source", **where}
    outputs = fetch({}, params, emit, AT_ONCE)
    assert outputs.values == {"size": outputs.files["file"].stat().st_size}
    return outputs.files["file"].read_bytes()


# --- one file


def test_a_file_is_fetched_once_and_known_by_its_content_from_then_on(server: Server, emit: Emit) -> None:
    server.files["/m.onnx"] = DATA
    assert fetched(emit, url=f"{server.address}/m.onnx") == DATA
    assert fetched(emit, url="https://elsewhere.invalid/m.onnx") == DATA
    assert len(server.asked) == 1


def test_a_transfer_that_breaks_off_goes_on_where_it_ended(server: Server, emit: Emit) -> None:
    server.files["/m.onnx"], server.breaks_after = DATA, 300_000
    assert fetched(emit, url=f"{server.address}/m.onnx") == DATA
    assert server.ranges() == ["", "bytes=300000-"]


def test_what_an_earlier_run_got_is_not_fetched_again(server: Server, emit: Emit, cache: Path) -> None:
    server.files["/m.onnx"] = DATA
    part = part_of(cache, DATA[:700_000])
    assert fetched(emit, url=f"{server.address}/m.onnx") == DATA
    assert server.ranges() == ["bytes=700000-"]
    assert not part.exists()


@pytest.mark.parametrize("before", [DATA, b"x" * 1000, b"x" * (len(DATA) + 1)], ids=["whole", "other", "too long"])
def test_a_part_that_belongs_to_something_else_does_no_harm(
    server: Server, emit: Emit, cache: Path, before: bytes
) -> None:
    server.files["/m.onnx"] = DATA
    part_of(cache, before)
    assert fetched(emit, url=f"{server.address}/m.onnx") == DATA


def test_a_server_that_knows_no_ranges_sends_the_whole_again(server: Server, emit: Emit, cache: Path) -> None:
    server.files["/m.onnx"], server.knows_ranges = DATA, False
    part_of(cache, DATA[:1000])
    assert fetched(emit, url=f"{server.address}/m.onnx") == DATA


def test_redirects_are_followed_and_never_away_from_tls(server: Server, emit: Emit) -> None:
    server.files["/m.onnx"] = DATA
    server.moved = {"/a": "/b", "/b": f"{server.address}/m.onnx", "/out": "http://example.com/m", "/round": "/round"}
    for place in ("out", "round"):
        with pytest.raises(MachineLacks, match="points"):
            fetched(emit, url=f"{server.address}/{place}")
    assert fetched(emit, url=f"{server.address}/a") == DATA


def test_other_content_is_refused_and_not_kept(server: Server, emit: Emit, cache: Path) -> None:
    server.files["/m.onnx"] = b"x" + DATA
    with pytest.raises(MachineLacks, match=r"model\.source .* has another content") as caught:
        fetched(emit, url=f"{server.address}/m.onnx?signature=s3cret")
    assert "s3cret" not in str(caught.value)
    assert [path for path in cache.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(("place", "why"), [("/none", "has no .*/none"), ("refused", "refuses connections")])
def test_what_cannot_be_had_is_told_with_the_input_and_a_cure(
    server: Server, emit: Emit, cache: Path, place: str, why: str
) -> None:
    url = "http://127.0.0.1:9/m" if place == "refused" else server.address + place
    with pytest.raises(MachineLacks, match=why) as caught:
        fetched(emit, url=url)
    assert "model.source" in caught.value.message
    assert "the content counts" in caught.value.cure
    assert "repository" not in caught.value.cure
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_a_file_without_end_fills_no_disk(server: Server, emit: Emit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.inputs.LARGEST", 1000)
    server.files["/m.onnx"] = DATA
    with pytest.raises(MachineLacks, match="larger than"):
        fetched(emit, url=f"{server.address}/m.onnx")


def test_a_blob_of_a_layout_is_an_input(emit: Emit, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(DATA)
    target, _ = open_target(f"oci:{tmp_path}/store:x")
    target.add_blob(source, f"sha256:{SHA256}")
    assert fetched(emit, oci=f"oci:{tmp_path}/store@sha256:{SHA256}") == DATA


def test_a_blob_that_is_not_there_is_exit_6(emit: Emit, tmp_path: Path) -> None:
    with pytest.raises(MachineLacks, match=r"model\.source"):
        fetched(emit, oci=f"oci:{tmp_path}/store@sha256:{SHA256}")


# --- in a recipe


def sha256(path: Path) -> str:
    return downloads.sha256_of(path)


@pytest.fixture
def write(project: Path) -> Callable[[str, str], Path]:
    """Writes the recipe with these two in the place of the paths of model and data."""

    def written(source: str, evaluate: str) -> Path:
        path = project / "recipes" / "digits.yaml"
        text = RECIPE.replace("assets/digits/digits.onnx", source).replace("assets/digits/test.npz", evaluate)
        path.write_text(text)
        return path

    return written


def test_a_run_fetches_its_inputs_and_where_from_is_not_in_the_keys(
    project: Path, server: Server, write: Callable[[str, str], Path]
) -> None:
    folder = project / "assets" / "digits"
    names = {"digits.onnx": sha256(folder / "digits.onnx"), "test.npz": sha256(folder / "test.npz")}
    for name in names:
        server.files[f"/{name}"] = (folder / name).read_bytes()
        (folder / name).unlink()

    def places(address: str) -> list[str]:
        return [f"{{url: '{address}/{name}', sha256: {digest}}}" for name, digest in names.items()]

    write(*places(server.address))
    first = run(project, "--until", "evaluate/int8")
    assert first.status == "done", first.error
    assert first.steps["model"].ingredients["input source"] == f"sha256:{names['digits.onnx']}"
    assert len(server.asked) == 2
    write(*places("https://mirror.example.com/models"))
    second = run(project, "--until", "evaluate/int8")
    assert {step.status for step in second.steps.values()} == {"reused"}
    assert len(server.asked) == 2


def test_inputs_that_cannot_be_had_end_a_run_with_exit_6(project: Path, write: Callable[[str, str], Path]) -> None:
    write(f"{{url: 'http://127.0.0.1:9/m.onnx', sha256: {SHA256}}}", "assets/digits/test.npz")
    done = workbench(project, "run", "recipes/digits.yaml")
    assert done.returncode == 6
    assert "model.source" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_a_model_that_was_fetched_reads_no_file_of_the_project(
    project: Path, server: Server, write: Callable[[str, str], Path]
) -> None:
    """External data is looked up beside a model; what was fetched lies beside nothing."""
    import onnx

    path = project / "assets" / "digits" / "digits.onnx"
    onnx.save_model(
        onnx.load(path), project / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    server.files["/m.onnx"] = (project / "m.onnx").read_bytes()
    write(f"{{url: '{server.address}/m.onnx', sha256: {sha256(project / 'm.onnx')}}}", "assets/digits/test.npz")
    state = run(project, "--until", "model")
    assert state.exit_code == 2
    assert "weights.bin" in str(state.error)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("https://example.com/m.onnx", "named with its digest"),
        ("oci:store", "named with its digest"),
        (f"{{url: 'http://example.com/m', sha256: {SHA256}}}", "https://"),
        (f"{{url: 'https://me:pw@example.com/m', sha256: {SHA256}}}", "no password"),
        (f"{{url: 'https://example.com@evil/m', sha256: {SHA256}}}", "no password"),
        ("{url: 'https://example.com/m'}", "either url: and sha256:, or oci:"),
        (f"{{url: 'https://example.com/m', sha256: {SHA256}, oci: 'x@sha256:{SHA256}'}}", "either url"),
        ("{url: 'https://example.com/m', sha256: abc}", "sha256"),
        ("{oci: 'registry.example.com/team/x:1'}", "with the digest of the file"),
        ("{uri: 'https://example.com/m'}", "unknown key; did you mean 'url'"),
    ],
)
def test_a_place_that_is_not_usable_is_told_with_its_line(
    write: Callable[[str, str], Path], source: str, said: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe.load(write(source, "assets/digits/test.npz"))
    assert said in caught.value.message
    assert ":4:" in caught.value.message or "line 4" in caught.value.message
    assert len(caught.value.message.splitlines()) <= 3, caught.value.message


# --- stored beside the image


def test_stored_inputs_are_named_by_tag_and_titled_by_path(project: Path) -> None:
    stored = push_inputs(project / "recipes" / "digits.yaml", "oci:store")
    assert stored["reference"] == "oci:store:digits:latest.inputs"
    assert stored["only_here"]
    target, _ = open_target("oci:store:x", project)
    manifest = json.loads(target.manifest("digits:latest.inputs")[0])
    paths = {layer["annotations"]["org.opencontainers.image.title"]: layer["digest"] for layer in manifest["layers"]}
    for name in ("digits.onnx", "test.npz", "calibrate.npz"):
        assert paths[f"assets/digits/{name}"] == f"sha256:{sha256(project / 'assets' / 'digits' / name)}"
    assert stored["sources"]["data.evaluate"] == f"oci:store@{paths['assets/digits/test.npz']}"
    again = push_inputs(project / "recipes" / "digits.yaml", "oci:store")
    assert again == stored


def test_there_must_be_a_place_and_something_to_store(
    project: Path, write: Callable[[str, str], Path], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="no place"):
        push_inputs(project / "recipes" / "digits.yaml")
    done = workbench(project, "push", "recipes/digits.yaml")
    assert done.returncode == 2
    assert "--inputs" in done.stderr
    done = workbench(project, "push", "--inputs", "recipes/digits.yaml", "--to", "oci:store")
    assert "a folder of this machine" in done.stderr


@pytest.mark.timeout(900)
def test_a_checkout_without_its_inputs_replays_from_where_they_are_stored(project: Path) -> None:
    path = project / "recipes" / "digits.yaml"
    path.write_text(path.read_text() + "tolerance: {latency: 1000}\n")
    assert run(project).status == "done"
    before = lock.load(path.with_suffix(".lock.yaml"))
    done = workbench(project, "push", "--inputs", "recipes/digits.yaml", "--to", "oci:store")
    assert done.returncode == 0, done.stderr
    stored = {line.split(":")[0].strip(): line.split(": ", 1)[1] for line in done.stdout.splitlines() if "oci" in line}
    text = path.read_text()
    for key, name in (
        ("source", "digits.onnx   # as trained"),
        ("evaluate", "test.npz"),
        ("calibrate", "calibrate.npz"),
    ):
        text = text.replace(f"{key}: assets/digits/{name}", f"{key}: {stored[key]}")
    path.write_text(text)
    shutil.rmtree(project / "assets")
    shutil.rmtree(project / ".workbench")
    assert run(project).status == "done"
    after = lock.load(path.with_suffix(".lock.yaml"))
    assert before is not None
    assert after is not None
    assert after.artifacts == before.artifacts
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", "elsewhere", "--allow-empty")
    replayed = workbench(project, "replay", "recipes/digits.yaml")
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    assert runs.state_of(runs.all_runs(project)[0]).steps["fetch/source"].status == "done"
    assert "as locked" in workbench(project, "status").stdout
    exported = workbench(project, "export", "recipes/digits.yaml", "original", "-o", "o.onnx")
    assert exported.returncode == 0, exported.stderr


@pytest.mark.integration
def test_inputs_go_to_a_registry_and_come_back(project: Path, registry: services.Service, emit: Emit) -> None:
    path = project / "recipes" / "digits.yaml"
    repository = f"{registry.address}/inputs-{project.parent.name.replace('_', '-')}/digits"
    stored = push_inputs(path, f"{repository}:1.0")
    assert stored["reference"] == f"{repository}:1.0.inputs"
    reference = stored["sources"]["model.source"]
    assert reference.startswith(f"{repository}@sha256:")
    lines = as_recipe_lines(stored["sources"])
    path.write_text(RECIPE.replace("source: assets/digits/digits.onnx   # as trained", lines.splitlines()[1].strip()))
    (project / "assets" / "digits" / "digits.onnx").unlink()
    assert run(project, "--until", "model").status == "done"
    missing = {"sha256": SHA256, "name": "model.source", "oci": f"{repository}@sha256:{SHA256}"}
    with pytest.raises(MachineLacks, match=r"model\.source"):
        fetch({}, missing, emit, AT_ONCE)
