import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, help="play the simulated scenario of this seed alone (tests/simulation)")
