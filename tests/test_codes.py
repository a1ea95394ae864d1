"""The codes that answers carry: none without a meaning, and the same ones in the documentation."""

import json
from pathlib import Path
from typing import get_args

import pytest

from connector import codes
from connector.errors import ConnectorError
from connector.report import EXIT_STATUS
from tests.world import World

PAGE = Path(codes.__file__).with_suffix(".md")


def test_every_code_has_a_meaning_and_stands_once() -> None:
    """Errors, outcomes and reasons alike; what one means does not depend on where it stands."""
    errors = {ConnectorError.code} | {error.code for error in ConnectorError.__subclasses__()}
    assert codes.REASONS.keys() == set(get_args(codes.ReasonCode))
    assert codes.OUTCOMES.keys() == EXIT_STATUS.keys()
    assert codes.CODES.keys() == errors | {"killed"} | codes.REASONS.keys() | codes.OUTCOMES.keys()
    assert len(codes.CODES) == len(codes.OUTCOMES) + len(codes.ERRORS) + len(codes.REASONS)


def test_the_page_says_what_the_command_says() -> None:
    """A row a code, word for word."""
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert {row[0].strip("`"): tuple(row[1:]) for row in rows} == codes.CODES


def test_an_answer_carries_the_codes_of_its_reasons(tmp_path: Path) -> None:
    """One for each sentence, in their order, for a run that is incomplete and for one that failed."""
    world = World(tmp_path / "project")
    world.sync(attributes="{visits: visits, born: {column: born, type: date}}")
    world.sql("create table customers as select 'c' || i as custom_id, i as visits, 'x' as born from range(5) t(i)")
    report = world.run()
    assert (report.outcome, report.codes, len(report.reasons)) == ("incomplete", ("invalid",), 1)
    assert json.loads(json.dumps(report.to_dict()))["codes"] == ["invalid"]
    world.sync(attributes="{visits: gone}")
    assert world.run().codes == ("warehouse",)


@pytest.mark.parametrize("code", codes.CODES)
def test_a_remedy_is_a_sentence_of_its_own(code: str) -> None:
    """What to do is never left open."""
    meaning = codes.CODES[code]
    assert meaning.sentence.endswith(".")
    assert meaning.remedy.endswith(".")
