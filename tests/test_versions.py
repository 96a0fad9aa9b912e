"""Version ranges, compared with what ``packaging`` says of the same ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from lmflow_core.plugins.versions import core_requirement, satisfies

releases = st.lists(st.integers(0, 12), min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts)))
longer_releases = releases.filter(lambda text: "." in text)
clauses = st.one_of(
    st.tuples(st.sampled_from([">=", "<=", ">", "<", "==", "!="]), releases).map("".join),
    st.tuples(st.just("~="), longer_releases).map("".join),
    st.tuples(st.sampled_from(["==", "!="]), releases, st.just(".*")).map("".join),
)


@given(version=releases, range_=st.lists(clauses, max_size=3).map(",".join))
def test_ranges_of_releases_mean_what_they_mean_to_packaging(version: str, range_: str) -> None:
    assert satisfies(version, range_) is SpecifierSet(range_).contains(version)


@pytest.mark.parametrize(
    ("version", "range_", "expected"),
    [
        ("0.1.0", "", True),
        ("0.1.0", ">= 0.1 , < 0.2", True),
        ("0.2.0", ">=0.1,<0.2", False),
        ("1.0", "~=1.0.0", True),
        ("0.10.0", ">=0.9", True),
        # A pre-release of the core counts as its release.
        ("0.2.0rc1", ">=0.2", True),
        ("0.2.0.dev3", "<0.2", False),
        # Bounds at a pre-release are bounds at its release.
        ("0.2.0", ">=0.2.0rc1,<0.3.dev0", True),
        ("0.3.0", ">=0.2.0rc1,<0.3.dev0", False),
        ("0.1.9", ">=0.2a1", False),
        # What cannot be read is not met.
        ("0.1.0", "==0.1.0rc1", False),
        ("0.1.0", "===0.1.0", False),
        ("0.1.0", ">=0.1.*", False),
        ("0.1.0", "newest", False),
    ],
)
def test_ranges_by_hand(version: str, range_: str, expected: bool) -> None:
    assert satisfies(version, range_) is expected


@pytest.mark.parametrize(
    ("requirements", "expected"),
    [
        ([], None),
        (["click>=8", "lmflow-lora>=0.1"], None),
        (["click>=8", "lmflow-core>=0.1,<0.2"], ">=0.1,<0.2"),
        (["lmflow-core"], ""),
        (["lmflow-core (>=0.1, <0.2)"], ">=0.1,<0.2"),
        (["LMFlow.Core ~= 0.1"], "~=0.1"),
        (["lmflow__core==0.1.*"], "==0.1.*"),
        (["lmflow-core[testing]>=0.1"], ">=0.1"),
        (["lmflow-core>=0.1; python_version >= '3.11'"], ">=0.1"),
        (["lmflow-core-extras>=9", "lmflow-corex>=9", "lmflow-core.x>=9"], None),
        (["lmflow-core[testing]>=9; extra=='tests'", "lmflow-core>=0.1"], ">=0.1"),
        (["lmflow-core>=9; python_version > '3' and extra == 'tests'"], None),
        (["lmflow-core @ file:///somewhere/core.whl"], None),
    ],
)
def test_the_range_asked_of_the_core_is_found(requirements: list[str], expected: str | None) -> None:
    assert core_requirement(requirements) == expected
