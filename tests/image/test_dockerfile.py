"""The Dockerfile: a pure function, judged by golden files, by hadolint and by what a build of it may do."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from image_helpers import CREATED

from workbench.errors import UsageError
from workbench.image import oci
from workbench.image.dockerfile import Parameters, render

GOLDEN = Path(__file__).parent / "golden"
MODEL = f"sha256:{'5' * 64}"
DEBIAN = "workbench.local/base:0123456789ab"
REGISTRY = f"registry.example.com/team/python:3.11@sha256:{'a' * 64}"


def rendered(base: str = DEBIAN, interpreter: str = "/usr/bin/python3.11", **changed: Any) -> str:
    params = {"name": "digits", "python": "3.11", "device": "cpu", "port": 8000, **changed}
    runtime = oci.runtime_config({**params, "interpreter": interpreter}, MODEL)
    # The golden files are about the Dockerfile, not about which version wrote it.
    runtime["Labels"] = {**runtime["Labels"], "workbench.version": "1.2.3"}
    return render(Parameters(base, interpreter, CREATED, runtime))


CASES = {
    "debian": rendered(),
    "registry": rendered(REGISTRY, "/usr/local/bin/python3.11"),
    "cuda": rendered(device="cuda", name="mini-lm.v2", port=9000),
    "grpc": rendered(grpc=8001),
}


@pytest.mark.parametrize("name", CASES)
def test_the_dockerfile_is_the_golden_one(name: str) -> None:
    """Written anew with WORKBENCH_GOLDEN=write."""
    path = GOLDEN / f"{name}.Dockerfile"
    if os.environ.get("WORKBENCH_GOLDEN") == "write":
        path.write_text(CASES[name])
    assert CASES[name] == path.read_text()


@pytest.mark.parametrize("name", CASES)
def test_hadolint_has_nothing_to_say(name: str) -> None:
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    done = subprocess.run(
        [str(hadolint), str(GOLDEN / f"{name}.Dockerfile")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def instructions(text: str, stage: str) -> list[tuple[str, str]]:
    """The instructions of one stage: word and rest, continued lines joined."""
    joined = re.sub(r"\\\n\s*", "", "\n".join(line for line in text.splitlines() if not line.startswith("#")))
    found: list[tuple[str, str]] = []
    inside = False
    for line in filter(None, joined.splitlines()):
        word, _, rest = line.partition(" ")
        inside = rest.endswith(f" AS {stage}") if word == "FROM" else inside
        if inside:
            found.append((word, rest))
    return found


def test_the_runtime_stage_only_copies_and_what_changes_most_often_lies_on_top() -> None:
    found = [*instructions(CASES["debian"], "sources"), *instructions(CASES["debian"], "runtime")]
    assert {word for word, _ in found} == {
        *("FROM", "COPY", "ADD", "ENV", "WORKDIR", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "LABEL")
    }
    assert [f"{word} {rest}" for word, rest in found if word in ("COPY", "ADD")] == [
        *("COPY --from=wheels /out/ /", "ADD server.tar /", "COPY --from=bytecode /out/ /", "ADD model.tar /")
    ]
    assert found[-len(instructions(CASES["debian"], "runtime"))] == ("FROM", "sources AS runtime")


def test_every_layer_says_why_it_stands_where_it_does() -> None:
    lines = CASES["debian"].splitlines()
    layers = [number for number, line in enumerate(lines) if line.startswith(("COPY", "ADD"))]
    assert all(lines[number - 1].startswith("# ") for number in layers)


def test_the_build_stage_runs_one_command_without_a_shell_and_leaves_its_inputs_out() -> None:
    [command] = [rest for word, rest in instructions(CASES["debian"], "wheels") if word == "RUN"]
    mounts, _, words = command.partition("[")
    assert mounts.split() == [
        "--mount=type=bind,source=build,target=/build",
        "--mount=type=bind,source=wheels,target=/wheels",
    ]
    assert words.startswith('"/usr/bin/python3.11", ')
    assert not [word for word, _ in instructions(CASES["debian"], "wheels") if word in ("COPY", "ADD")]


def test_the_sources_are_compiled_where_they_lie_by_the_python_that_will_load_them() -> None:
    stage = instructions(CASES["debian"], "bytecode")
    assert stage[:2] == [("FROM", "sources AS bytecode"), ("USER", "0:0")]
    [(word, command)] = stage[2:]
    mounts, _, words = command.partition("[")
    assert (word, mounts.strip()) == ("RUN", "--mount=type=bind,source=build,target=/build")
    assert words.startswith('"/usr/bin/python3.11", ')
    assert words.endswith('"/build/workbench/image/compile_sources.py", "/", "/out", "1700000000"]')


def test_no_frontend_is_fetched_and_no_variable_is_open() -> None:
    for text in CASES.values():
        assert "syntax=" not in text
        assert not re.search(r"(?<!\\)\$", text)
        assert "ARG" not in text


@pytest.mark.parametrize("base", ["", "a b", "x\nRUN evil", "$HOME", 'a"b', "ä"])
def test_a_base_that_would_be_more_than_a_word_is_refused(base: str) -> None:
    with pytest.raises(UsageError, match="cannot stand in a Dockerfile"):
        rendered(base)


def test_values_are_quoted_so_that_docker_reads_them_back() -> None:
    runtime = {**oci.runtime_config({"name": "x", "python": "3.11", "device": "cpu", "port": 1}, MODEL)}
    runtime["Env"] = ['A=a "b" $C \\ # d']
    assert r'ENV A="a \"b\" \$C \\ # d"' in render(Parameters(DEBIAN, "/usr/bin/python3.11", 0, runtime))
    runtime["Env"] = ["A=x\nRUN evil"]
    with pytest.raises(UsageError, match="cannot stand in a Dockerfile"):
        render(Parameters(DEBIAN, "/usr/bin/python3.11", 0, runtime))
