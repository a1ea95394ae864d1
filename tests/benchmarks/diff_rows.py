"""A warehouse table of invented people as Parquet: 25 columns of every type, some half empty, in no order.

Run: python diff_rows.py FILE ROWS [CHANGED ADDED REMOVED]     (percent; without them the table as it was before)

A row depends on its number alone, so that the table after a change equals the one before wherever it did not change.
"""

import sys
from math import gcd

import duckdb

GROUP = 245_760
"""Rows of a row group: DuckDB writes multiples of 2,048, and a reader that cut them elsewhere would decode them twice."""

_FIRST = [
    start + end for start in ("Ma", "Jo", "Lu", "An", "Ca", "El", "Ni", "So") for end in ("rie", "na", "lia", "dé")
]
_LAST = [start + end for start in ("Mart", "Bern", "Dub", "Thom", "Rich", "Dur", "Ler") for end in ("in", "ard", "ois")]
_DOMAINS = ["gmail.com", "yahoo.fr", "outlook.com", "orange.fr", "free.fr", "example.org", "icloud.com"]
_COUNTRIES = ["FR", "DE", "ES", "IT", "GB", "US", "BE", "NL", "PT", "CH"]
_LANGUAGES = ["fr", "de", "es", "it", "en"]
_TIERS = ["bronze", "silver", "gold", "platinum"]


def write(path: str, rows: int, changed: float = 0, added: float = 0, removed: float = 0) -> None:
    """The table: `removed` percent of the rows gone, `added` new, `changed` with other values in 2 to 5 of 23 columns."""
    first, count = int(rows * removed / 100), rows - int(rows * removed / 100) + int(rows * added / 100)
    stride = next(prime for prime in (982_451_653, 1_000_003, 101) if gcd(prime, count) == 1) if changed else 1
    connection = duckdb.connect()
    connection.execute("create macro h(a, b) as (hash(a, b) >> 1)::bigint, (a, b, c) as (hash(a, b, c) >> 1)::bigint")
    connection.execute("set memory_limit = '4GB'; set preserve_insertion_order = false; set threads = 2")
    share = int(changed * 1000)
    connection.execute(f"""copy (
        with numbers as (select ((x * {stride}) % {count} + {first})::bigint as i from range({count}) t(x)),
        v as (select i, (h(i, 99) % 100000 < {share})::int as c, (h(i, 99) % 100000 < {share} and h(i, 98) % 4 = 0)::int as c4,
            {_FIRST}[1 + h(i, 1) % {len(_FIRST)}] as fn, {_LAST}[1 + h(i, 2) % {len(_LAST)}] as ln from numbers)
        select 'usr_' || printf('%016x', h(i, 7)) as custom_id,
            lower(fn) || '.' || lower(ln) || i || '@' || {_DOMAINS}[1 + h(i, 3) % {len(_DOMAINS)}] as email,
            fn as first_name, ln as last_name,
            {_null(40, 30, "'+336' || lpad((h(i, 4) % 100000000)::varchar, 8, '0')")} as phone,
            {_null(41, 10, "'City_' || (h(i, 5, c4) % 5000)")} as city,
            {_COUNTRIES}[1 + h(i, 6) % 10] as country, {_LANGUAGES}[1 + h(i, 8) % 5] as language,
            {_TIERS}[1 + h(i, 9, c4) % 4] as loyalty_tier,
            {_null(42, 20, "'category_' || (h(i, 10) % 300)")} as favorite_category,
            {_null(43, 60, "'campaign-2026-' || (h(i, 11) % 2000)")} as last_campaign,
            (18 + h(i, 12) % 70)::integer as age, h(i, 13, c) % 10000 as visits, (h(i, 14) % 200)::integer as orders,
            h(i, 15, c) % 1000000 as points, round((h(i, 16, c4) % 10000000) / 100.0, 2)::double as ltv,
            {_null(44, 10, "(h(i, 17) % 1000000) / 997.0")}::double as avg_basket,
            ((h(i, 18) % 100) / 100.0)::double as discount_rate, h(i, 19) % 10 = 0 as is_vip,
            {_null(45, 5, "h(i, 20, c4) % 2 = 0")} as email_optin,
            {_null(46, 25, "date '1940-01-01' + (h(i, 21) % 25000)::integer")} as birth_date,
            timestamp '2018-01-01' + to_microseconds((h(i, 22) % 200000000) * 1000000 + h(i, 23) % 1000000) as created_at,
            {_null(47, 30, "timestamp '2024-01-01' + to_seconds(h(i, 24) % 60000000)")} as last_order_at,
            timestamp '2026-01-01' + to_seconds(h(i, 25, c) % 20000000 + c * 20000000) as updated_at,
            (['tag_' || (h(i, 26) % 200), 'tag_' || (h(i, 27) % 200), 'tag_' || (h(i, 28, c4) % 200),
              'tag_' || (h(i, 29) % 200)])[1:(h(i, 30) % 5)::integer] as tags
        from v) to '{path}' (format parquet, compression zstd, row_group_size {GROUP})""")


def _null(salt: int, percent: int, value: str) -> str:
    return f"case when h(i, {salt}) % 100 >= {percent} then {value} end"


if __name__ == "__main__":
    write(sys.argv[1], int(sys.argv[2]), *map(float, sys.argv[3:]))
