"""Broken files. A `⟪` in a text marks the place that the problem must name; the file is written without it."""

import re
from pathlib import Path

import pytest

from tests.config.conftest import MAIN, SECRET, SYNC, Write, problems_of, the_problem


def sync(extra: str) -> str:
    return SYNC + extra


BROKEN_SYNCS = {
    "tab": (sync("guard:\n⟪\tmin_rows: 1\n"), "a tab stands here; YAML wants spaces"),
    "open quote": (sync("key: ⟪'custom_id\n"), "what opens here, a quote or a bracket, is never closed; close it"),
    "open bracket": (sync("dagster: ⟪{owners: []\n"), "never closed; close it"),
    "two colons": (sync("key: custom⟪: id\n"), "a second ': ' on this line; put the value in quotes"),
    "no colon": (sync("key\n⟪guard: {}\n"), "a key without its ':'; write 'key: value'"),
    "list that ends the file": (sync("dagster: [\n⟪"), "the YAML breaks off here"),
    "broken list": (sync("dagster: {owners: [a ⟪}\n"), "the YAML breaks off here"),
    "duplicate key": (sync("key: a\n⟪key: b\n"), "the key 'key' stands twice, first in line 4; keep one"),
    "nested duplicate": (sync("guard: {min_rows: 1, ⟪min_rows: 2}\n"), "'min_rows' stands twice, first in line 4"),
    "anchor": (sync("key: ⟪&id custom_id\n"), "an anchor ('&') is not available here; write each value out"),
    "alias": (sync("key: ⟪*id\n"), "an alias ('*') is not available here; write the value out"),
    "merge key": (sync("guard: {⟪<<: {min_rows: 1}}\n"), "a merge key ('<<') is not available here"),
    "tag": (sync("key: ⟪!!str custom_id\n"), "a tag ('!') is not available here; remove it"),
    "python tag": (sync("dagster: ⟪!!python/object:os.system {}\n"), "a tag ('!') is not available here"),
    "directive": ("⟪%YAML 1.1\n---\n" + SYNC, "a '%' line is not available here; remove it"),
    "second document": (sync("⟪---\nkind: profiles\n"), "one file holds one, remove this '---'"),
    "a list": ("⟪- kind: profiles\n", "the file must hold a mapping: lines of 'key: value'"),
    "a word": ("⟪profiles\n", "the file must hold a mapping"),
    "empty": ("⟪", "the file is empty; write its keys or remove it"),
    "comments only": ("⟪# nothing yet\n", "the file is empty"),
    "control character": (sync("key: 'a⟪\x07b'\n"), "a control character stands here; remove it"),
    "half a character": (sync('key: ⟪"\\ud800"\n'), "half a surrogate pair is no character"),
    "beyond Unicode": (sync('⟪key: "\\U99999999"\n'), "the YAML breaks off here"),
    "brackets as a key": (sync("⟪[a]: b\n"), "a key must be a plain name"),
    "too deep": (sync("dagster: " + "[" * 19 + "⟪[" + "]" * 20 + "\n"), "more than 20 levels inside each other"),
    "unknown key": (sync("⟪atributes: {a: b}\n"), "unknown key 'atributes'; did you mean 'attributes'?"),
    "upper-case key": (sync("⟪ENDPOINT: auto\n"), "unknown key 'ENDPOINT'; did you mean 'endpoint'?"),
    "unknown key inside": (sync("guard: {⟪max_chnaged: 50%}\n"), "guard: unknown key 'max_chnaged'; did you mean"),
    "unknown key in an attribute": (
        sync("attributes:\n  plan: {column: a, ⟪onnull: keep}\n"),
        "attributes.plan: unknown key 'onnull'; did you mean 'on_null'? allowed here: column, on_null, type, unordered",
    ),
    "misspelt choice": (
        sync("endpoint: ⟪atuo\n"),
        "endpoint: must be auto, update or mass_update, got 'atuo'; did you mean 'auto'?",
    ),
    "choice of an attribute": (
        sync("attributes:\n  plan: {column: a, on_null: ⟪kep}\n"),
        "attributes.plan.on_null: must be clear or keep, got 'kep'; did you mean 'keep'?",
    ),
    "misspelt kind": (
        "kind: ⟪profile\n",
        "kind: must be profiles, events or export, got 'profile'; did you mean 'profiles'?",
    ),
    "misspelt other kind": ("kind: ⟪event\nwarehous: local\n", "got 'event'; did you mean 'events'?"),
    "no kind": (
        "⟪warehouse: local\nevent: order_placed\n",
        "kind: missing; add it (what the sync is about: profiles, events or an export)",
    ),
    "misspelt key of the kind": ("Knd: ⟪events\nid: a\nwarehouse: local\n", "Knd: unknown key; did you mean 'kind'?"),
    "kind as a list": ("⟪kind: [events]\n", "kind: must be profiles, events or export, got a list"),
    "key of events": (sync("⟪late: hold\n"), "unknown key 'late'"),
    "number for text": (sync("key: ⟪5\n"), "key: must be text, got a number; put it in quotes"),
    "text for number": (sync("guard: {min_rows: ⟪'1'}\n"), "guard.min_rows: must be a whole number, got text"),
    "below the bound": (sync("guard: {min_rows: ⟪-1}\n"), "guard.min_rows: must be at least 0, got -1"),
    "yes is text": (sync("schedule: {cron: '* * * * *', enabled: ⟪yes}\n"), "must be true or false, got text"),
    "nothing for a column": (sync("⟪key:\n"), "key: must be text, got nothing"),
    "list for a mapping": (sync("⟪attributes: [email]\n"), "attributes: must be a mapping, got a list"),
    "number for a mapping": (sync("cursor: ⟪5\n"), "cursor: must be a column's name or a mapping, got a number"),
    "duration without a unit": (sync("cursor: {column: a, overlap: ⟪15}\n"), "cursor.overlap: a duration is a whole"),
    "endless duration": (sync("cursor: {column: a, lag: ⟪99999999999d}\n"), "cursor.lag: must be at most 3650d"),
    "long duration": (sync("cursor: {column: a, lag: ⟪3651d}\n"), "cursor.lag: must be at most 3650d"),
    "share over 100": (sync("tolerance: {invalid: ⟪101%}\n"), "tolerance.invalid: a share is a percentage"),
    "full read without a cursor": (sync("full_read_every: ⟪7d\n"), "has no meaning without a cursor"),
    "latest without a cursor": (sync("dedupe: ⟪latest\n"), "dedupe: 'latest' needs a cursor"),
    "latest with a feed": (sync("cursor: {feed: changes}\ndedupe: ⟪latest\n"), "'latest' needs a cursor's column"),
    "column and feed": (sync("⟪cursor: {column: a, feed: changes}\n"), "cursor: needs exactly one of column or feed"),
    "neither column nor feed": (sync("⟪cursor: {lag: 1m}\n"), "cursor: needs exactly one of column or feed"),
    "reach of a column": (sync("cursor: {column: a, reach: ⟪2d}\n"), "cursor.reach: belongs to a feed; remove it"),
    "feed of DuckDB": (sync("cursor: {feed: ⟪changes}\n"), "cursor.feed: a DuckDB file records no changes"),
    "no source": ("⟪kind: profiles\nwarehouse: local\n", "source: missing; add it (the rows: {table"),
    "empty source": ("kind: profiles\nwarehouse: local\n⟪source: {}\n", "exactly one of table, query or query_file"),
    "two sources": (
        "kind: profiles\nwarehouse: local\n⟪source: {table: a, query: select 1}\n",
        "source: needs exactly one of table, query or query_file, got table and query; keep one",
    ),
    "no query file": (
        "kind: profiles\nwarehouse: local\nsource: {query_file: ⟪gone.sql}\n",
        "source.query_file: no such file in the project folder",
    ),
    "a zone that is none": (
        "kind: profiles\nwarehouse: local\nsource: {table: a, timezone: ⟪Europe/Pari}\n",
        "source.timezone: no time zone of the IANA list; did you mean 'Europe/Paris'?",
    ),
    "a zone that is a folder": (
        "kind: profiles\nwarehouse: local\nsource: {table: a, timezone: ⟪Europe}\n",
        "source.timezone: no time zone of the IANA list",
    ),
    "unknown warehouse": (
        "kind: profiles\nwarehouse: ⟪locl\nsource: {table: a}\n",
        "warehouse: connector.yaml has no 'locl'; did you mean 'local'? it has local",
    ),
    "no attributes": (sync("⟪attributes: {}\n"), "attributes: must not be empty; write at least one"),
    "51 attributes": (
        sync("⟪attributes:\n" + "".join(f"  a{number}: b\n" for number in range(51))),
        "attributes: at most 50 are allowed",
    ),
    "upper case": (sync("attributes:\n  ⟪Plan: a\n"), "in lower case only; did you mean 'plan'?"),
    "long name": (sync(f"attributes:\n  ⟪{'a' * 31}: a\n"), "at most 30 characters, got 31; shorten it"),
    "odd name": (sync("attributes:\n  ⟪first-name: a\n"), "1 to 30 lower-case letters, digits and '_'; rename it"),
    "date as a name": (
        sync("attributes:\n  ⟪date(born): a\n"),
        "write the bare name and its type: {column: …, type: date}",
    ),
    "url as a name": (sync("attributes:\n  ⟪url(site): a\n"), "{column: …, type: url}"),
    "unknown native": (sync("attributes:\n  ⟪$email_adress: a\n"), "did you mean '$email_address'? these are: $email"),
    "type of a native": (
        sync("attributes:\n  $language: {column: a, type: ⟪integer}\n"),
        "attributes.$language.type: $language is always of type string; remove the type",
    ),
    "unordered text": (
        sync("attributes:\n  plan: {column: a, type: string, unordered: ⟪true}\n"),
        "attributes.plan.unordered: only arrays can be unordered; remove it",
    ),
    "unordered native": (
        sync("attributes:\n  $region: {column: a, unordered: ⟪true}\n"),
        "only arrays can be unordered",
    ),
    "seconds in cron": (sync("schedule: ⟪'0 * * * * *'\n"), "there are no seconds, remove the first field"),
    "four cron fields": (sync("schedule: ⟪'* * * *'\n"), "a cron text has five fields"),
    "cron nickname": (sync("schedule: ⟪'@daily'\n"), "a cron text has five fields"),
    "cron out of range": (
        sync("schedule: {cron: ⟪'60 * * * *'}\n"),
        "schedule.cron: the minute of the cron text must be 0 to",
    ),
    "cron backwards": (sync("schedule: ⟪'0 20-6 * * *'\n"), "the hour of the cron text must be 0 to 23"),
    "cron name": (sync("schedule: ⟪'0 0 * jna *'\n"), "the month of the cron text must be 1 to 12 or jan to dec"),
    "cron never": (sync("schedule: ⟪'0 0 31 2,4 *'\n"), "names a day that its months never have"),
    "name": (sync("name: ⟪Customers\n"), "name: a sync's name is 1 to 60 lower-case letters, digits and '_'"),
    "owner": (
        sync("dagster: {owners: [team:crm, ⟪crm]}\n"),
        "dagster.owners[1]: an owner is an e-mail address or team:NAME",
    ),
    "engine": (sync("engine: ⟪cloud\n"), "engine: must be local or warehouse, got 'cloud'"),
    "reconcile of the other engine": (
        sync("engine: warehouse\n⟪reconcile: {heal: true}\n"),
        "reconcile: needs engine: local; what the warehouse keeps cannot be compared with Batch yet",
    ),
    "tag value": (sync("dagster: {tags: {tier: ⟪'very important'}}\n"), "dagster.tags.tier: a tag's value"),
}

LATER = {
    "erase": (sync("on_removed: ⟪erase\n"), "on_removed: 'erase' is not available yet; use ignore or clear"),
}

BROKEN_MAINS = {
    "literal secret": (
        MAIN.replace("{env: BATCH_REST_API_KEY}", f"⟪{SECRET}"),
        "batch.rest_key: must be {env: NAME} or",
    ),
    "secret in brackets": (
        MAIN.replace("rest_key: {env: BATCH_REST_API_KEY}", f"⟪rest_key: [{SECRET}]"),
        "got a list; a secret never stands in the file",
    ),
    "secret as a name": (
        MAIN.replace("rest_key: {env: BATCH_REST_API_KEY}", f"⟪rest_key: {{{SECRET}}}"),
        "batch.rest_key: must be {env: NAME} or {file: PATH}, got a mapping",
    ),
    "secret for a variable": (
        MAIN.replace("{env: BATCH_REST_API_KEY}", f"{{env: ⟪{SECRET}-}}"),
        "batch.rest_key.env: must be the name of an environment variable",
    ),
    "secret for a key": (
        MAIN.replace("batch:\n", f"batch:\n  ⟪{SECRET}: x\n"),
        "batch: unknown key; allowed here: base_url",
    ),
    "secret for a section": (
        f"batch: ⟪{SECRET}\nwarehouses: {{local: {{type: duckdb, path: a}}}}\n",
        "batch: must be a mapping",
    ),
    "literal webhook": (
        MAIN + f"alerts: {{webhook: ⟪https://hooks/{SECRET}}}\n",
        "alerts.webhook: must be {env: NAME}",
    ),
    "no rest key": (
        "⟪" + MAIN.replace("  rest_key: {env: BATCH_REST_API_KEY}\n", ""),
        "batch.rest_key: missing; add it (where the REST API key is kept",
    ),
    "misspelt section": (
        MAIN.replace("warehouses", "⟪warehouse"),
        "unknown key 'warehouse'; did you mean 'warehouses'?",
    ),
    "no warehouse": (MAIN.partition("warehouses")[0] + "⟪warehouses: {}\n", "warehouses: must not be empty"),
    "misspelt type": (
        MAIN.replace("duckdb,", "⟪duckbd,"),
        "warehouses.local.type: must be duckdb, snowflake or bigquery, got 'duckbd'; did you mean 'duckdb'?",
    ),
    "no type": (
        MAIN.replace("local: {type: duckdb, ", "⟪local: {"),
        "warehouses.local.type: missing; add it (duckdb, snowflake or bigquery)",
    ),
    "names that Dagster cannot tell apart": (
        MAIN + "  ⟪a-b: {type: duckdb, path: a}\n  a__b: {type: duckdb, path: a}\n",
        "'a-b' and 'a__b' would be one name in Dagster; rename one of them",
    ),
    "key of another warehouse": (
        MAIN.replace("{type: duckdb,", "{type: duckdb, ⟪project: acme,"),
        "warehouses.local: unknown key; allowed here: path, skip_unchanged, state_schema, type",
    ),
    "name of a warehouse": (MAIN + "  ⟪Big One: {type: duckdb, path: a}\n", "a warehouse's name is 1 to 60 lower-case"),
    "state in another storage": (
        MAIN + "state: {database: {env: URL}, files: ⟪gs://a/b}\n",
        "state.files: must be a folder or s3://BUCKET/PREFIX; other object storages are not available yet",
    ),
    "state in a bucket without a database": (
        MAIN + "state: {files: ⟪s3://bucket/a}\n",
        "state.files: a bucket cannot hold the database too; add `database`, or name a folder",
    ),
    "state in a bucket by its short form": (
        MAIN + "state: ⟪s3://bucket/a\n",
        "a bucket cannot hold the database too; add `database`, or name a folder",
    ),
    "state in a whole bucket": (
        MAIN + "state: {database: {env: URL}, files: ⟪s3://bucket}\n",
        "state.files: must be s3://BUCKET/PREFIX with a prefix of the project's own",
    ),
    "state in a bucket by its keys": (
        MAIN + f"state: {{database: {{env: URL}}, files: ⟪'s3://AKIA:{SECRET}@bucket/a'}}\n",
        "state.files: must be s3://BUCKET/PREFIX without keys, which are read from the environment, a profile or a role",
    ),
    "state in a bucket with keys behind it": (
        MAIN + f"state: {{database: {{env: URL}}, files: ⟪'s3://bucket/a?secret_key={SECRET}'}}\n",
        "state.files: may end in ?region=…, &endpoint_override=HOST:PORT and &scheme=http, and in nothing else",
    ),
    "state in a bucket in clear": (
        MAIN + "state: {database: {env: URL}, files: ⟪'s3://bucket/a?endpoint_override=minio:9000&scheme=http'}\n",
        "state.files: may have scheme=http only with an endpoint_override on this machine",
    ),
    "cache of a folder": (
        MAIN + "state: {files: a, cache: ⟪b}\n",
        "state.cache: has no meaning where the files lie in a folder; remove it",
    ),
    "state URL": (
        MAIN + f"state: ⟪postgresql://u:{SECRET}@h/d\n",
        "state: must be a folder or s3://BUCKET/PREFIX; other object storages are not available yet, and a database",
    ),
    "state URL in the place of its secret": (
        MAIN + f"state: {{database: ⟪postgresql://u:{SECRET}@h/d, files: a}}\n",
        "state.database: must be {env: NAME} or {file: PATH}, got text; a secret never stands in the file",
    ),
    "state without files": (MAIN + "⟪state: {database: {env: URL}}\n", "state.files: missing; add it"),
    "state key": (
        MAIN + f"state: {{files: a, ⟪{SECRET}: a}}\n",
        "state: unknown key; allowed here: cache, database, files, schema",
    ),
    "state schema": (
        MAIN + "state: {database: {env: URL}, files: a, schema: ⟪Batch}\n",
        "state.schema: a schema's name is 1 to 63 lower-case letters, digits and '_', the first no digit; rename it",
    ),
    "state schema of no database": (
        MAIN + "state: {files: a, schema: ⟪eu}\n",
        "state.schema: has no meaning without a database; remove it or add `database`",
    ),
    "state list": (MAIN + "⟪state: [a]\n", "state: must be a folder or a mapping, got a list"),
    "memory": (MAIN + "memory: ⟪1G\n", "memory: must be a whole number and a unit, kB, MB or GB, such as 1GB"),
    "bare memory": (MAIN + "memory: ⟪1000000\n", "memory: must be a whole number and a unit"),
    "too many requests": (MAIN + "delivery: {in_flight: ⟪65}\n", "delivery.in_flight: must be at most 64, got 65"),
    "no time": (MAIN + "delivery: {timeout: ⟪0s}\n", "delivery.timeout: must be longer than 0s"),
}

WAREHOUSES = {
    "⟪bq: {type: bigquery}": "warehouses.bq.project: missing; add it (the id of the project that runs and pays",
    "bq: {type: bigquery, project: acme, ⟪path: a}": "unknown key; allowed here: api_endpoint, credentials_file,",
    "bq: {type: bigquery, project: acme, ⟪locaton: EU}": "unknown key 'locaton'; did you mean 'location'?",
    "bq: {type: bigquery, project: ⟪Acme Inc}": "project: must be a project's id: lower-case letters",
    "bq: {type: bigquery, project: acme, dataset: ⟪acme.marts}": "dataset: must be a dataset's name alone",
    "bq: {type: bigquery, project: acme, location: ⟪'E U'}": "location: must be a location of BigQuery, such as EU",
    "bq: {type: bigquery, project: acme, maximum_bytes_billed: ⟪1000}": "must be a whole number and a unit",
    "bq: {type: bigquery, project: acme, timeout: ⟪7h}": "timeout: must be 1s to 6h",
    "bq: {type: bigquery, project: acme, timeout: ⟪0s}": "timeout: must be 1s to 6h",
    "bq: {type: bigquery, project: acme, impersonate_service_account: ⟪bot}": "must be a service account's e-mail",
    "bq: {type: bigquery, project: acme, api_endpoint: ⟪'http://bigquery.acme.com'}": "must begin with https:// (http://",
    "bq: {type: bigquery, project: acme, api_endpoint: ⟪'https://u:p@acme.com'}": "a host without path, user or query",
    "bq: {type: bigquery, project: acme, api_endpoint: ⟪'https://acme.com/v2'}": "a host without path, user or query",
    "bq: {type: bigquery, project: acme, api_endpoint: ⟪'https://[::1'}": "must be a URL such as",
    "bq: {type: bigquery, project: acme, storage_endpoint: ⟪'https://acme.com'}": "must be host:port, such as",
    "bq: {type: bigquery, project: acme, storage_endpoint: ⟪'localhost:9060'}": "must be on this machine where api_endpoint",
    "bq: {type: bigquery, project: acme, storage_endpoint: ⟪'[::1]:9060'}": "must be on this machine where api_endpoint",
    "bq: {type: bigquery, project: acme, api_endpoint: 'http://localhost:9050', storage_endpoint: ⟪'acme.com:443'}": (
        "must be on this machine where api_endpoint is http://, and only there"
    ),
    "bq: {type: bigquery, project: acme, api_endpoint: 'http://127.0.0.1:9050', credentials_file: ⟪key.json}": (
        "credentials_file: not allowed beside an api_endpoint of http://"
    ),
    "bq: {type: bigquery, project: acme, api_endpoint: 'http://[::1]', impersonate_service_account: ⟪a@b.com}": (
        "impersonate_service_account: not allowed beside an api_endpoint of http://"
    ),
}

BASE_URLS = {
    "http://api.batch.com/2.11": "must begin with https://",
    "https://api.batch.com/2.11/": "must end in the version",
    "https://api.batch.com": "must end in the version",
    "https://api.batch.com/2.11?a=b": "without user, query or spaces",
    f"https://u:{SECRET}@api.batch.com/2.11": "without user, query or spaces",
    "https:///2.11": "must be a host and a path",
    "ftp://localhost/2.11": "must begin with https://",
    "https://[::1/2.11": "must be a URL",
    "https://a:port/2.11": "must be a URL",
}


@pytest.mark.parametrize("case", BROKEN_SYNCS)
def test_a_broken_sync_is_told_at_its_place(case: str, tmp_path: Path) -> None:
    """A mistake in a sync file is one problem, at its line and column, with what is allowed or to be done."""
    text, words = BROKEN_SYNCS[case]
    assert words in the_problem(tmp_path, "syncs/customers.yaml", text)


@pytest.mark.parametrize("case", BROKEN_MAINS)
def test_a_broken_project_file_is_told_at_its_place(case: str, tmp_path: Path) -> None:
    """A mistake in connector.yaml is one problem at its place, and no secret comes out with it."""
    text, words = BROKEN_MAINS[case]
    assert words in the_problem(tmp_path, "connector.yaml", text)


@pytest.mark.parametrize("line", WAREHOUSES)
def test_a_broken_warehouse_is_told_at_its_place(line: str, tmp_path: Path) -> None:
    """A key, a value or a combination that BigQuery cannot be reached with is found without reaching for it."""
    assert WAREHOUSES[line] in the_problem(tmp_path, "connector.yaml", f"{MAIN}  {line}\n")


@pytest.mark.parametrize("case", LATER)
def test_what_comes_later_is_named_as_such(case: str, tmp_path: Path) -> None:
    """A key or value of a later version is not called unknown, and nothing else is said of that file."""
    text, words = LATER[case]
    assert words in the_problem(tmp_path, "syncs/customers.yaml", text)


@pytest.mark.parametrize("url", BASE_URLS)
def test_a_wrong_base_url_is_refused_without_its_text(url: str, tmp_path: Path) -> None:
    """The API is reached by https at a version; a URL with a user or a query is refused and not repeated."""
    message = the_problem(tmp_path, "connector.yaml", MAIN.replace("batch:\n", f"batch:\n  base_url: ⟪'{url}'\n"))
    assert BASE_URLS[url] in message
    assert url not in re.sub(r"such as \S+", "", message)


def test_all_mistakes_of_all_files_come_at_once(write: Write) -> None:
    """One reading tells every mistake of every file, connector.yaml first, then by file and line."""
    root = write(
        {
            "connector.yaml": MAIN + "memory: 1\nstat: a\n",
            "syncs/a.yaml": SYNC + "key: 1\nendpoint: atuo\nkey: 2\n",
            "syncs/b.yml": SYNC,
            "syncs/c.yaml": "kind: [a\n",
            "syncs/d.yaml": SYNC.replace("local", "snow"),
            "syncs/e.yaml": SYNC.replace("profiles", "events")
            + "event: Order\nlate: no\nattributes: {$nope: a, amount: 5}\n",
        }
    )
    assert [(each.file, each.line) for each in problems_of(root)] == [
        ("connector.yaml", 6),
        ("connector.yaml", 7),
        ("syncs/a.yaml", 4),
        ("syncs/a.yaml", 5),
        ("syncs/a.yaml", 6),
        ("syncs/b.yml", 1),
        ("syncs/c.yaml", 1),
        ("syncs/d.yaml", 2),
        ("syncs/e.yaml", 4),
        ("syncs/e.yaml", 5),
        ("syncs/e.yaml", 6),
        ("syncs/e.yaml", 6),
    ]


def test_an_alias_does_not_hide_the_other_mistakes(write: Write) -> None:
    """A refused alias is not told a second time as a wrong value, and the rest of the file is still checked."""
    root = write({"syncs/customers.yaml": SYNC + "key: *a\nendpoint: atuo\n"})
    assert [each.line for each in problems_of(root)] == [4, 5]


def test_two_files_of_one_name_are_refused(write: Write) -> None:
    """Two files with the same sync name are refused at the second, and the message names the first."""
    (problem,) = problems_of(write({"syncs/others.yaml": SYNC + "name: customers\n"}))
    assert problem[:3] == ("syncs/others.yaml", 4, 7)
    assert "syncs/customers.yaml already holds the sync 'customers'" in problem.message


def test_a_stray_yml_file_is_not_passed_over(write: Write) -> None:
    """A file that ends in .yml would silently not be synced, so it is refused."""
    (problem,) = problems_of(write({"syncs/orders.yml": SYNC}))
    assert str(problem) == "syncs/orders.yml:1:1: only files named .yaml are syncs; rename it to orders.yaml"


def test_a_project_without_syncs_is_refused(tmp_path: Path) -> None:
    """A project without one sync file is a mistake, not a project that does nothing."""
    (tmp_path / "connector.yaml").write_text(MAIN, encoding="utf-8")
    (problem,) = problems_of(tmp_path)
    assert "there is no sync; write one file a sync" in problem.message


def test_the_name_of_the_file_must_be_a_name(tmp_path: Path) -> None:
    """A file whose name cannot be the sync's says so, and how to go on."""
    (tmp_path / "syncs").mkdir()
    (tmp_path / "connector.yaml").write_text(MAIN, encoding="utf-8")
    (tmp_path / "syncs/My Customers.yaml").write_text(SYNC, encoding="utf-8")
    (problem,) = problems_of(tmp_path)
    assert problem[:3] == ("syncs/My Customers.yaml", 1, 1)
    assert "rename the file, or write another 'name' into it" in problem.message


def test_a_file_that_is_not_utf8_is_told_at_the_byte(write: Write) -> None:
    """Text in another encoding is refused where its first wrong byte stands."""
    root = write({})
    (root / "syncs/customers.yaml").write_bytes(SYNC.encode() + "key: é\n".encode("latin-1"))
    (problem,) = problems_of(root)
    assert problem[1:] == (4, 6, "this is not UTF-8 text; save the file as UTF-8")


def test_a_large_file_is_not_read(write: Write) -> None:
    """A file over 256 kB is refused before it is parsed."""
    (problem,) = problems_of(write({"syncs/customers.yaml": SYNC + "#" * 256 * 1024}))
    assert "larger than 256 kB" in problem.message


def test_an_alias_bomb_is_harmless(write: Write) -> None:
    """Aliases that would unfold to a billion values are refused one by one."""
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))
    messages = [each.message for each in problems_of(write({"syncs/customers.yaml": bomb}))]
    assert sum(message.startswith("an alias ('*') is not available here") for message in messages) == 81


@pytest.mark.parametrize(("text", "words"), [("", "empty"), (" \n", "empty"), (None, "no such file")])
def test_a_query_file_must_hold_a_query(text: str | None, words: str, write: Write) -> None:
    """An empty or missing query file is found when the project is loaded."""
    files = {"syncs/customers.yaml": SYNC.replace("table: marts.customers", "query_file: customers.sql")}
    root = write(files if text is None else {**files, "customers.sql": text})
    (problem,) = problems_of(root)
    assert problem[:3] == ("syncs/customers.yaml", 3, 22)
    assert words in problem.message
