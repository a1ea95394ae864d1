"""The fault register holds what it says: every fault once, and tests that are there and run."""

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.fault_register import AREAS, Fault, share

TESTS = Path(__file__).parent
FAULTS = [fault for area in AREAS for fault in area.faults]
LOOSE = ("skip", "xfail", "benchmark", "flaky")


@cache
def _defined(file: str) -> dict[str, str]:
    """The decorators of each test of a file, by its name: `test` or `Class::test`."""
    found = {}
    tree = ast.parse((TESTS / file).read_text())
    groups = [(node.name + "::", node.body) for node in tree.body if isinstance(node, ast.ClassDef)]
    for prefix, body in [("", tree.body), *groups]:
        for node in body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found[prefix + node.name] = " ".join(map(ast.unparse, node.decorator_list))
    return found


def test_every_fault_stands_there_once() -> None:
    """Numbers are for good: 1 to 127, in their order."""
    assert [fault.number for fault in FAULTS] == list(range(1, 128))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"F{fault.number:03}")
def test_a_fault_has_tests_that_run_or_a_reason(fault: Fault) -> None:
    """Who renames, moves or switches off a test learns which fault it stood for."""
    assert bool(fault.tests) != bool(fault.why)
    assert len(set(fault.tests)) == len(fault.tests)
    for test in fault.tests:
        file, _, name = test.partition("::")
        assert (TESTS / file).exists(), test
        assert name in _defined(file), test
        assert not any(mark in _defined(file)[name] for mark in LOOSE), test


def test_nine_in_ten_are_covered() -> None:
    """What a run meets on its way, exports and configuration apart, and all in all."""
    assert share(AREAS[:6]) >= 0.9
    assert share(AREAS) >= 0.9


def test_what_is_not_covered_is_few_and_known() -> None:
    """A fault loses its tests by a decision only, which is taken here."""
    assert {fault.number for fault in FAULTS if not fault.tests} == {20, 33, 43, 116}
