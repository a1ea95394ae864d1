"""What only Snowflake has: ways to log in, its names, types and sessions, and its errors in our words."""

import json
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import polars as pl
import pytest
import snowflake.connector as driver
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from connector.errors import ConfigError, WarehouseError
from connector.warehouses import _snowflake, _snowflake_errors, _snowflake_stamp
from connector.warehouses._base import RECORD_BATCH_ROWS, Keys, Reader, Relation
from connector.warehouses.snowflake import Snowflake
from tests.emulators.snowflake_bench import SnowflakeBench, pytest_with_client_4

SECRET = "s3cret-hunter2"
LONG, LONGER = "9007199254740993.17", "123456789012345678.91"
"""More digits than a float has, and than 64 bits have."""


@pytest.fixture
def bench(tmp_path: Path) -> SnowflakeBench:
    return SnowflakeBench(tmp_path)


@pytest.fixture
def reader(bench: SnowflakeBench, tmp_path: Path) -> Iterator[Reader]:
    with bench.settings.open(tmp_path) as reader:
        yield reader


@pytest.fixture(scope="module")
def key() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(SECRET.encode()))


def _secret_files(root: Path, key: bytes) -> None:
    for name, content in {"secret": SECRET.encode(), "wrong": b"other", "key.p8": key, "bad.p8": b"no key"}.items():
        (root / name).write_bytes(content)
        (root / name).chmod(0o600)


def _account(bench: SnowflakeBench, **changed: object) -> Snowflake:
    """The bench's account without its password, and with what is given."""
    given = bench.settings.model_dump(exclude_none=True, by_alias=True)
    return Snowflake.model_validate({**{name: value for name, value in given.items() if name != "password"}, **changed})


WAYS: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "password": ({"password": {"file": "secret"}}, {"LOGIN_NAME": "tester"}),
    "key": (
        {"private_key_file": "key.p8", "private_key_passphrase": {"file": "secret"}},
        {"LOGIN_NAME": "tester", "AUTHENTICATOR": "SNOWFLAKE_JWT"},
    ),
    "token": (
        {"token": {"file": "secret"}, "authenticator": "programmatic_access_token"},
        {"LOGIN_NAME": "tester", "AUTHENTICATOR": "PROGRAMMATIC_ACCESS_TOKEN"},
    ),
    "OAuth": ({"token": {"file": "secret"}, "authenticator": "oauth"}, {"AUTHENTICATOR": "OAUTH"}),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_to_log_in_reaches_the_wire(bench: SnowflakeBench, tmp_path: Path, key: bytes, way: str) -> None:
    """What the driver sends is what the settings say, with the role and the virtual warehouse."""
    _secret_files(tmp_path, key)
    settings, sent = WAYS[way]
    with _account(bench, role="READER", warehouse="SMALL", **settings).open(tmp_path) as reader:
        reader.now()
    (login,) = (entry for entry in bench.diary() if "login" in entry)
    assert {name: login["login"].get(name) for name in sent} == sent
    assert {name: login["query"].get(name) for name in ("roleName", "warehouse", "schemaName")} == {
        "roleName": "READER",
        "warehouse": "SMALL",
        "schemaName": "PUBLIC",
    }


@pytest.fixture
def connections(bench: SnowflakeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connections.toml where the driver looks for it."""
    (tmp_path / "connections.toml").write_text(
        f'[prod]\naccount = "test"\nuser = "from_file"\npassword = "{SECRET}"\nhost = "127.0.0.1"\n'
        f'port = {bench.port}\nprotocol = "http"\ndatabase = "{bench.database}"\nschema = "OTHER"\n'
        '[prod.session_parameters]\nQUERY_TAG = "from the file"\nTIMEZONE = "Asia/Tokyo"\n'
    )
    (tmp_path / "connections.toml").chmod(0o600)
    monkeypatch.setenv("SNOWFLAKE_HOME", str(tmp_path))


CODE = """
import sys
from decimal import Decimal
from pathlib import Path
from connector.warehouses.snowflake import Snowflake
with Snowflake(type="snowflake", connection_name=sys.argv[1], schema="PUBLIC").open(Path(".")) as reader:
    print(reader.now().tzinfo)
"""


@pytest.mark.usefixtures("connections")
def test_a_connection_of_the_driver_s_own_file_serves(bench: SnowflakeBench) -> None:
    """A named connection logs in, ours adds the schema, and its session is ours all the same."""
    program = f"import sys; sys.path = {sys.path!r}\n{CODE}"  # version 4 looks for the file when it is imported
    done = subprocess.run([sys.executable, "-c", program, "prod"], check=False, capture_output=True, text=True)
    assert done.stdout == "UTC\n", done.stderr
    (login,) = (entry for entry in bench.diary() if "login" in entry)
    assert login["login"]["LOGIN_NAME"] == "from_file"
    assert login["query"]["schemaName"] == "PUBLIC"
    assert login["login"]["SESSION_PARAMETERS"]["TIMEZONE"] == "UTC"
    assert "batch-warehouse-connector" in login["login"]["SESSION_PARAMETERS"]["QUERY_TAG"]


@pytest.mark.usefixtures("connections")
def test_a_connection_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A typing error in the connection's name is an error of ours."""
    with (
        pytest.raises(WarehouseError, match=r"Snowflake 'prd' cannot be logged in to: .*prd"),
        Snowflake(type="snowflake", connection_name="prd").open(tmp_path),
    ):
        pass


REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "wrong passphrase": ({"private_key_file": "key.p8", "private_key_passphrase": {"file": "wrong"}}, "check"),
    "no passphrase": ({"private_key_file": "key.p8"}, "check"),
    "no key": ({"private_key_file": "bad.p8"}, "check"),
    "no file": ({"private_key_file": "none.p8"}, r"none\.p8 cannot be read: No such file.*relative to the project"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_key_that_does_not_open_is_told(bench: SnowflakeBench, tmp_path: Path, key: bytes, case: str) -> None:
    """A wrong file or passphrase is one sentence, and shows neither."""
    _secret_files(tmp_path, key)
    settings, words = REFUSED[case]
    with pytest.raises(WarehouseError, match=words) as raised, _account(bench, **settings).open(tmp_path):
        pass
    assert SECRET not in str(raised.value)
    assert bench.diary() == []


def test_a_secret_that_is_not_there_is_told(bench: SnowflakeBench, tmp_path: Path) -> None:
    """Nobody is asked for a login without a password."""
    with (
        pytest.raises(ConfigError, match="secret file 'none' cannot be read"),
        _account(bench, password={"file": "none"}).open(tmp_path),
    ):
        pass


def test_a_refused_login_is_told(bench: SnowflakeBench, tmp_path: Path) -> None:
    """Snowflake's own sentence reaches the reader, and the password does not."""
    bench.fail("login")
    (tmp_path / "secret").write_text(SECRET)
    with (
        pytest.raises(
            WarehouseError, match=r"'test' cannot be logged in to: .*Incorrect username or password"
        ) as raised,
        _account(bench, password={"file": "secret"}).open(tmp_path),
    ):
        pass
    assert SECRET not in repr(raised.value)
    assert raised.value.__suppress_context__


def test_a_login_s_refusal_that_quotes_a_secret_is_masked() -> None:
    """Whatever the driver says: a secret that we gave it does not come back in a message."""
    error = driver.DatabaseError(f"token {SECRET} is not valid", errno=250001)
    assert SECRET not in str(_snowflake_errors.no_login(error, {"account": "a", "token": SECRET}))


def test_a_session_says_who_reads_and_for_whom(bench: SnowflakeBench, tmp_path: Path) -> None:
    """Each statement's tag names the sync and the run; times are UTC, and a statement ends after its time."""
    slow = _account(bench, password={"file": "password"}, statement_timeout="2h")
    with slow.open(tmp_path, tags={"sync": "customers", "run": "r1"}) as reader:
        reader.now()
    (login,) = (entry["login"] for entry in bench.diary() if "login" in entry)
    session = login["SESSION_PARAMETERS"]
    tag = {"app": "batch-warehouse-connector", "sync": "customers", "run": "r1"}
    assert json.loads(session["QUERY_TAG"]) == tag
    assert session["TIMEZONE"] == "UTC"
    assert int(session["STATEMENT_TIMEOUT_IN_SECONDS"]) == 7200
    assert str(session["ABORT_DETACHED_QUERY"]).lower() == "true"
    assert str(session["QUOTED_IDENTIFIERS_IGNORE_CASE"]).lower() == "false"
    assert str(session["STRICT_JSON_OUTPUT"]).lower() == "true"
    assert str(login["CLIENT_ENVIRONMENT"]["APPLICATION"]) == _snowflake.APPLICATION


def test_a_read_is_one_statement_and_ends_with_the_session(bench: SnowflakeBench, tmp_path: Path) -> None:
    """The virtual warehouse computes once, describing does not wake it, and nothing is left open."""
    bench.create("t", {"id": "integer"}, [(1,)])
    before = len(bench.diary())
    with bench.settings.open(tmp_path) as reader:
        reader.columns(Relation("t"))
        list(reader.read(Relation("t"), ["id"], Keys("id", ["1"])))
    seen = bench.diary()[before:]
    (computed,) = (entry["sql"] for entry in seen if "sql" in entry and not entry["describe"])
    assert computed.startswith('SELECT "id" AS "id" FROM "T" WHERE "id" IN (')
    assert "logout" in seen[-1]


@pytest.mark.parametrize("failure", [None, "session"])
def test_a_session_is_closed_whatever_happened(bench: SnowflakeBench, tmp_path: Path, failure: str | None) -> None:
    """A read left half way, or a session that ended under it, leaves no session behind, and no second error."""
    with bench.settings.open(tmp_path) as reader:
        next(reader.read(Relation(query=bench.series), ["i"]))
        if failure:
            bench.fail(failure)
            with pytest.raises(
                WarehouseError, match=r"the clock cannot be read: the connection broke off \(code 390104\)"
            ):
                reader.now()
    assert "logout" in bench.diary()[-1]


@pytest.mark.parametrize("failure", ["chunk", "short"])
def test_a_chunk_that_does_not_come_whole_ends_the_read(bench: SnowflakeBench, tmp_path: Path, failure: str) -> None:
    """A part of the rows is never taken for all of them."""
    bench.fail(failure)
    with bench.settings.open(tmp_path) as reader:
        frames = reader.read(Relation(query=bench.series), ["i"])
        with pytest.raises(WarehouseError, match=r"the query cannot be read: .*run again"):
            list(frames)


def test_a_number_is_right_in_every_chunk(bench: SnowflakeBench, reader: Reader) -> None:
    """Chunks whose numbers have other widths than the first one's come out whole, with decimals and without."""
    query = (
        "SELECT SEQ4() AS i, CAST(SEQ4() * 1000 AS NUMBER(18,0)) AS j, CAST(SEQ4() / 4 AS NUMBER(12,2)) AS d"
        " FROM TABLE(GENERATOR(ROWCOUNT => 70000))"
    )
    frame = pl.concat(reader.read(Relation(query=query), ["i", "j", "d"]))
    assert frame.schema == {"i": pl.Decimal(38, 0), "j": pl.Int64, "d": pl.Decimal(12, 2)}
    assert frame.select(pl.sum("i", "j", "d").cast(pl.Int64)).row(0) == (2449965000, 2449965000000, 612491250)


TYPES: list[tuple[str, Any, Any, bool]] = [
    ("CAST(5 AS NUMBER(38,0))", pl.Decimal(38, 0), 5, False),
    ("PARSE_JSON('{\"a\": [1, null]}')", pl.String, '{"a":[1,null]}', True),
    ("CAST(PARSE_JSON('[1, null]') AS ARRAY)", pl.String, "[1,null]", True),
    ("OBJECT_CONSTRUCT('a', 1)", pl.String, '{"a":1}', True),
    (f"CAST('{LONG}' AS NUMBER(18,2))", pl.Decimal(18, 2), Decimal(LONG), False),
    (f"CAST('{LONGER}' AS NUMBER(20,2))", pl.Decimal(20, 2), Decimal(LONGER), False),
    ("CAST(1.5 AS FLOAT)", pl.Float64, 1.5, False),
]


@pytest.mark.parametrize(("value", "dtype", "read", "is_json"), TYPES, ids=[row[0] for row in TYPES])
def test_a_type_of_snowflake_becomes_a_plain_one(
    reader: Reader, value: str, dtype: Any, read: Any, is_json: bool
) -> None:
    """Semi-structured values come as JSON, integers of 38 digits as decimals, nulls as nulls."""
    relation = Relation(query=f"SELECT {value} AS v UNION ALL SELECT NULL")
    (column,) = reader.columns(relation)
    assert (column.dtype, column.json) == (dtype, is_json)
    values = pl.concat(reader.read(relation, ["v"]))["v"].to_list()
    found = [value and json.loads(value) if is_json else value for value in values]
    assert sorted(found, key=str) == sorted([json.loads(read) if is_json else read, None], key=str)


@pytest.mark.parametrize("value", ["TO_BINARY('00', 'HEX')", "CAST('03:04:05' AS TIME)"])
def test_a_type_that_cannot_be_read_is_announced(reader: Reader, value: str) -> None:
    """Such a column is listed, hinders no other, and is refused by name when it is asked for."""
    relation = Relation(query=f"SELECT 1 AS a, {value} AS v")
    assert [column.dtype for column in reader.columns(relation)][1] == pl.Object
    assert pl.concat(reader.read(relation, ["a"])).rows() == [(1,)]
    with pytest.raises(WarehouseError, match=r"column 'v' of the query cannot be read as (BINARY|TIME).*cast it"):
        reader.read(relation, ["v"])


def test_frames_are_cut_and_joined_to_record_batches() -> None:
    """Whatever the size of chunks: no frame is longer than a record batch, and only the last is shorter."""
    rows = pl.DataFrame({"i": pl.Series(range(3 * RECORD_BATCH_ROWS + 7))})
    for sizes in ([0, 1, 2 * RECORD_BATCH_ROWS, 5, 0, RECORD_BATCH_ROWS + 1], [RECORD_BATCH_ROWS] * 4, [7] * 30_000):
        starts = [sum(sizes[:n]) for n in range(len(sizes))] if len(sizes) < 10 else range(0, rows.height, 7)
        chunks = (rows.slice(start, size) for start, size in zip(starts, sizes, strict=False))
        frames = list(_snowflake._resliced(chunks))
        assert [frame.height for frame in frames] == [RECORD_BATCH_ROWS] * 3 + [7]
        assert pl.concat(frames).equals(rows)


def test_years_beyond_those_of_nanoseconds_are_read(reader: Reader) -> None:
    """The customary far future and the beginning of time do not overflow."""
    stamps = ["9999-12-31 23:59:59.999999", "0001-01-01 00:00:00", "2026-01-01 00:00:00.123456"]
    query = " UNION ALL ".join(f"SELECT CAST('{stamp}' AS TIMESTAMP_NTZ) AS at" for stamp in stamps)
    read = pl.concat(reader.read(Relation(query=query), ["AT"]))["AT"].cast(pl.String).to_list()
    assert sorted(stamp[:19] for stamp in read) == sorted(stamp[:19] for stamp in stamps)


def test_names_match_without_case_unless_two_differ_only_in_it(bench: SnowflakeBench, reader: Reader) -> None:
    """`id` means ID where there is no other, the exact one where there are two, and neither is guessed at."""
    bench.create("t", {"ID": "integer", "Name": "text"}, [(1, "x")])
    (frame,) = reader.read(Relation("t"), ["id", "NAME"], Keys("Id", ["1"]))
    assert frame.to_dicts() == [{"id": 1, "NAME": "x"}]
    fields = [_snowflake.sql.field(_snowflake.sql.Described(name, 2, None, None)) for name in ("ID", "id")]
    assert _snowflake._field(Relation("t"), fields, "id").name == "id"
    with pytest.raises(WarehouseError, match="table 't' has the columns 'ID' and 'id'; write the one that is meant"):
        _snowflake._field(Relation("t"), fields, "Id")


def test_a_table_of_another_database_is_listed_with_it(bench: SnowflakeBench, tmp_path: Path, reader: Reader) -> None:
    """A typing error in a name of three parts is looked for where it points."""
    other = SnowflakeBench(tmp_path)
    other.create("customers", {"id": "integer"}, [])
    asked = f"{other.database.lower()}.public.custmers"
    with pytest.raises(WarehouseError, match=f"did you mean '{other.database.lower()}.public.customers'"):
        reader.columns(Relation(asked))
    with pytest.raises(WarehouseError, match=r"no table 'nowhere\.public\.t' in Snowflake that the role may read"):
        reader.columns(Relation("nowhere.public.t"))


def _error(text: str, errno: int, state: str | None) -> driver.Error:
    return driver.ProgrammingError(text, errno=errno, sqlstate=state)


ERRORS = [
    (
        _error("SQL compilation error:\nerror line 1 at position 7\ninvalid identifier 'X'", 904, "42000"),
        "SQL compilation error: error line 1 at position 7 invalid identifier 'X'; correct `source`",
    ),
    (
        _error("SQL access control error:\nInsufficient privileges", 3001, "42501"),
        "privileges; grant the role the right",
    ),
    (_error("No active warehouse selected in the current session.", 606, "57P03"), "session; set `warehouse`"),
    (
        _error("Statement reached its timeout of 3600 second(s)", 630, "57014"),
        "raise the warehouse's `statement_timeout`",
    ),
    (_error("This session does not have a current database.", 90105, "22000"), "database; set `database` and `schema`"),
    (
        _error(f"Numeric value '{SECRET}' is not recognized", 100038, "22018"),
        "(code 100038, SQL state 22018); run it in",
    ),
    (_error(f"JavaScript: {SECRET}", 100132, "P0000"), "a value cannot be computed (code 100132, SQL state P0000)"),
    (_error(f"GET https://bucket/chunk?sig={SECRET}", 250003, None), "the connection broke off (code 250003); look"),
    (_error(f"GET https://bucket/chunk?sig={SECRET}", 255005, "n/a"), "the connection broke off (code 255005); look"),
    (
        ConnectionResetError(f"https://bucket/chunk?sig={SECRET}"),
        "the connection broke off (ConnectionResetError); look",
    ),
    (
        pl.exceptions.InvalidOperationError(f"conversion failed for {SECRET}"),
        "not those announced (InvalidOperationError)",
    ),
]


@pytest.mark.parametrize(("error", "words"), ERRORS, ids=lambda value: value if isinstance(value, str) else "")
def test_an_error_is_told_by_its_class_and_state(error: Exception, words: str) -> None:
    """Snowflake's sentence is repeated where it is about SQL; what may quote a row or a signed address is not."""
    with pytest.raises(WarehouseError) as raised, _snowflake_errors.translated("the query cannot be read"):
        raise error
    assert words in str(raised.value)
    assert str(raised.value).startswith("the query cannot be read: ")
    assert SECRET not in str(raised.value)
    assert raised.value.__suppress_context__


def test_settings_load_without_the_driver() -> None:
    """Validating a file must not wait for the driver and Arrow to load."""
    code = "import connector.config, sys; print({'snowflake', 'snowflake.connector', 'pyarrow'} & set(sys.modules))"
    program = f"import sys; sys.path = {sys.path!r}\n{code}"
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


@pytest.mark.skipif(driver.__version__.startswith("4."), reason="this is that run")
@pytest.mark.parametrize(
    "file", ["test_warehouses.py", "test_snowflake.py", "test_loading.py", "test_snowflake_loading.py"]
)
def test_the_driver_s_version_4_does_the_same(file: str) -> None:
    """The contract and what is Snowflake's own hold on both major versions: users' environments have either."""
    command = pytest_with_client_4(
        "-q", "-k", "snowflake", "-p", "no:cacheprovider", str(Path(__file__).with_name(file))
    )
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


def test_a_stamp_reads_no_table(bench: SnowflakeBench, tmp_path: Path) -> None:
    """What is asked needs no virtual warehouse: a description, what is shown, and a function of the table's full name."""
    bench.create("customers", {"custom_id": "text"}, [("a",)])
    with bench.settings.open(tmp_path) as reader:
        assert reader.stamp(Relation(table="customers"))
        assert [entry["sql"] for entry in bench.diary() if "sql" in entry][-3:] == [
            'SELECT * FROM "CUSTOMERS"',
            "SHOW TABLES LIKE 'CUSTOMERS' IN SCHEMA \"PUBLIC\"",
            f'SELECT SYSTEM$LAST_CHANGE_COMMIT_TIME(\'"{bench.database}"."PUBLIC"."CUSTOMERS"\')',
        ]
        assert [entry["describe"] for entry in bench.diary() if "sql" in entry][-3] is True


def test_a_server_that_refuses_to_tell_has_no_stamp(bench: SnowflakeBench, reader: Reader) -> None:
    """A function that is not there, or not for this table, is no error: the table is read."""
    bench.create("customers", {"custom_id": "text"}, [("a",)])
    bench.fail("untold")
    assert reader.stamp(Relation(table="customers")) is None


def test_a_session_that_is_gone_is_no_answer(bench: SnowflakeBench, reader: Reader) -> None:
    """Where nothing can be asked, the operator hears of it."""
    bench.create("customers", {"custom_id": "text"}, [("a",)])
    bench.fail("SHOW")
    with pytest.raises(WarehouseError, match="table 'customers' cannot be read"):
        reader.stamp(Relation(table="customers"))


class Shown(NamedTuple):
    """A cursor that shows tables, and knows when they were written to."""

    tables: list[dict[str, Any]]
    changed: int | None = 1661920053987000000

    def execute(self, _statement: str) -> "Shown":
        return self

    @property
    def description(self) -> list[Any]:
        return [SimpleNamespace(name=name) for name in self.tables[0]]

    def fetchall(self) -> list[tuple[Any, ...]]:
        return [tuple(table.values()) for table in self.tables]

    def fetchone(self) -> tuple[int | None]:
        return (self.changed,)


PLAIN = {
    "created_on": "2026-01-01", "name": "T", "kind": "TABLE", "database_name": "D", "schema_name": "S", "rows": 3, "bytes": 1024,
    "is_external": "N", "is_dynamic": "N", "is_hybrid": "N", "is_iceberg": "N", "is_event": "N",
}  # fmt: skip
"""A table as https://docs.snowflake.com/en/sql-reference/sql/show-tables shows it."""


def _shown(**changed: Any) -> str | None:
    shown = Shown([{**PLAIN, **{name: value for name, value in changed.items() if name in PLAIN}}])
    return _snowflake_stamp.taken(shown._replace(changed=changed.get("changed", shown.changed)), "d.s.t", [])


@pytest.mark.parametrize(
    "change", [{"created_on": "2026-01-02"}, {"rows": 4}, {"bytes": 2048}, {"changed": 1661920118648000000}]
)
def test_another_table_of_the_name_has_another_stamp(change: dict[str, Any]) -> None:
    """A table that was dropped and made again, cloned over or swapped brings its own time of creation."""
    assert _shown(**change) not in (None, _shown())


@pytest.mark.parametrize("change", [{"kind": "TEMPORARY"}, {"is_external": "Y"}, {"is_dynamic": "Y"}, {"is_hybrid": "Y"},
    {"is_iceberg": "Y"}, {"name": "TT"}, {"changed": None}])  # fmt: skip
def test_what_is_no_plain_table_has_no_stamp(change: dict[str, Any]) -> None:
    """Its rows may change without a statement that writes to it."""
    assert _shown(**change) is None
    assert _shown(kind="TRANSIENT")
