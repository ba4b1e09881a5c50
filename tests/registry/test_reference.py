"""Names of images, as Docker and as layouts write them."""

from __future__ import annotations

import pytest

from workbench.errors import UsageError
from workbench.registry.reference import LayoutReference, Reference, check_destination, parse, parse_layout

DIGEST = f"sha256:{'a' * 64}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("registry.example.com/team/digits:1.4", Reference("registry.example.com", "team/digits", "1.4")),
        ("registry.example.com:5000/digits", Reference("registry.example.com:5000", "digits")),
        ("localhost/digits:1", Reference("localhost", "digits", "1")),
        ("[::1]:5000/a/b:1", Reference("[::1]:5000", "a/b", "1")),
        (f"127.0.0.1:5000/a@{DIGEST}", Reference("127.0.0.1:5000", "a", None, DIGEST)),
        (f"host.example/a:1@{DIGEST}", Reference("host.example", "a", "1", DIGEST)),
        ("python:3.11-slim", Reference("docker.io", "library/python", "3.11-slim")),
        ("team/digits", Reference("docker.io", "team/digits")),
        ("index.docker.io/python", Reference("docker.io", "library/python")),
        ("HOST/a", Reference("HOST", "a")),
    ],
)
def test_a_name_means_what_it_means_to_docker(text: str, expected: Reference) -> None:
    assert parse(text) == expected


def test_docker_hub_answers_under_another_name() -> None:
    assert parse("python").endpoint == "registry-1.docker.io"
    assert parse("python").name == "docker.io/library/python"
    assert parse("r.example/a").endpoint == "r.example"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "r.example/",
        "r.example/Team/a",
        "r.example/a:",
        "r.example/a:b c",
        "r.example/a@sha256:1",
        "r.example/a//b",
        "http://r.example/a",
        "-r.example/a",
        "r.example:port/a",
        "r.example/a?b",
        "user:pw@r.example/a",
        "r..example/a",
    ],
)
def test_what_is_no_name_is_refused_with_what_would_be(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert caught.value.cure


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("oci:a/b", LayoutReference("a/b")),
        ("oci:/srv/x:team/digits:1", LayoutReference("/srv/x", "team/digits:1")),
        (f"oci:a@{DIGEST}", LayoutReference("a", None, DIGEST)),
        (f"oci:a:1@{DIGEST}", LayoutReference("a", "1", DIGEST)),
    ],
)
def test_a_layout_is_a_folder_a_tag_and_a_digest(text: str, expected: LayoutReference) -> None:
    assert parse_layout(text) == expected


@pytest.mark.parametrize("text", ["oci:", "oci::1", "oci:a:-", "oci:a@sha256:12"])
def test_what_is_no_layout_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_layout(text)


@pytest.mark.parametrize("to", ["oci:x", "oci:x:1", "r.example/a", "r.example:5000/a/b:1", "docker.io/team/a:1"])
def test_layouts_and_registries_can_be_pushed_to(to: str) -> None:
    check_destination(to)


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("team/digits", "which registry"),
        ("digits", "which registry"),
        (f"r.example/a@{DIGEST}", "digest"),
        (f"oci:a@{DIGEST}", "digest"),
        ("docker://r.example/a", "address"),
    ],
)
def test_a_push_needs_a_registry_and_makes_its_digest_itself(to: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_destination(to)
