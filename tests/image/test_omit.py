"""What the image leaves out: a list with reasons."""

from __future__ import annotations

import pytest

from workbench.assets import asset
from workbench.image.omit import Omitted, shipped


@pytest.mark.parametrize(
    ("rules", "path", "out"),
    [
        ("usr/share/man", "usr/share/man/man1/a.1", True),
        ("usr/share/man", "usr/share/manual", False),
        ("usr/*/man", "usr/share/man", True),
        ("usr/*/man", "usr/share/x/man", False),
        ("usr/**/*.h", "usr/a/b/c.h", True),
        ("usr/**/*.h", "usr/c.h", True),
        ("usr/**/*.h", "usr/c.html", False),
        ("doc/*/**\n!doc/*/copyright", "doc/a/readme", True),
        ("doc/*/**\n!doc/*/copyright", "doc/a/copyright", False),
        ("doc/*/**\n!doc/*/copyright", "doc/a", False),
        ("a  # why\n", "a", True),
    ],
)
def test_the_last_pattern_that_matches_decides(rules: str, path: str, out: bool) -> None:
    assert Omitted.parse(rules).leaves_out(path) is out


def test_licences_stay() -> None:
    assert not shipped().leaves_out("usr/share/doc/libc6/copyright")
    assert not shipped().leaves_out("opt/wheels/numpy-2.4.6.dist-info/licenses/LICENSE.txt")
    assert shipped().leaves_out("usr/share/doc/libc6/changelog.gz")


def test_every_rule_says_why() -> None:
    rules = [line for line in asset("image/omit.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert rules
    assert [line for line in rules if len(line.partition("#")[2].strip()) < 5] == []
