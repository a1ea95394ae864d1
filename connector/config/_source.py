"""Where a sync's rows come from, and how the recent ones are told from the old."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationInfo, model_validator

from connector._model import MistakeError, Model
from connector.config._scalars import BoundedDuration, PositiveDuration, Text, Zone, short_form
from connector.config._yaml import LARGEST_FILE
from connector.warehouses._base import Relation

_WAYS = ("table", "query", "query_file")


class Source(Model):
    """The rows to sync: a table, a query, or a file that holds a query."""

    table: Text | None = Field(default=None, description="a table or view: name, schema.name or database.schema.name")
    query: Text | None = Field(default=None, description="one SELECT")
    query_file: Text | None = Field(
        default=None, description="a file that holds one SELECT; relative to the project folder"
    )
    timezone: Zone = Field(default="UTC", description="the zone of timestamps that have none")
    _file_text: str | None = PrivateAttr(default=None)

    @property
    def relation(self) -> Relation:
        """What to read; a query file's text is the one of the time when the project was loaded."""
        return Relation(table=self.table) if self.table else Relation(query=self._file_text or self.query)

    @model_validator(mode="after")
    def _exactly_one(self, info: ValidationInfo) -> Self:
        given = [way for way in _WAYS if getattr(self, way) is not None]
        if len(given) != 1:
            got = " and ".join(given) or "none"
            raise MistakeError(f"needs exactly one of table, query or query_file, got {got}; keep one")
        if self.query_file is not None:
            self._file_text = _query_text(Path((info.context or {}).get("root", "")) / self.query_file)
        return self


def _query_text(path: Path) -> str:
    try:
        if not path.is_file():
            raise MistakeError(
                "no such file in the project folder; check the path, which is relative to it", "query_file"
            )
        if path.stat().st_size > LARGEST_FILE:
            raise MistakeError("the file is larger than 256 kB; make it a view in the warehouse", "query_file")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise MistakeError(
            f"the file cannot be read ({type(error).__name__}); check its permissions", "query_file"
        ) from None
    except UnicodeDecodeError:
        raise MistakeError("the file is not UTF-8 text; save it as UTF-8", "query_file") from None
    if not text.strip():
        raise MistakeError("the file is empty; write one SELECT into it", "query_file")
    return text


class Cursor(Model):
    """A column that tells when a row last changed, or the warehouse's own record of what was written."""

    column: Text | None = Field(default=None, description="a timestamp or date column")
    feed: Literal["changes"] | None = Field(
        default=None, description="changes: in place of a column what Snowflake or BigQuery recorded as written"
    )
    overlap: BoundedDuration = Field(default=timedelta(minutes=15), description="read again before the last run's end")
    lag: BoundedDuration = Field(default=timedelta(0), description="left for the next run: rows younger than this")
    reach: PositiveDuration = Field(
        default=timedelta(hours=23),
        description="with a feed: after a longer pause the whole source is read; warehouses keep a day of it or more",
    )

    @model_validator(mode="after")
    def _column_or_feed(self) -> Self:
        if (self.column is None) == (self.feed is None):
            raise MistakeError("needs exactly one of column or feed; keep one")
        if self.column and "reach" in self.model_fields_set:
            raise MistakeError("belongs to a feed; remove it", "reach")
        return self


CursorOrColumn = Annotated[
    Cursor, BeforeValidator(short_form("column", "a column's name"), json_schema_input_type=Cursor | Text)
]
"""A cursor, or its column's name alone."""
