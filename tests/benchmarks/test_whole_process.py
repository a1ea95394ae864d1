"""Whole processes beside each other: 100,000 rows of 12 attributes from DuckDB to a local sink.

Run: pytest -m benchmark -s
"""

import json
import resource
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

ROWS = 100_000
ROUNDS = 3

SINK = """
import asyncio, sys
async def serve(reader, writer):
    try:
        while head := await reader.readuntil(b"\\r\\n\\r\\n"):
            length = next(int(line[15:]) for line in head.lower().split(b"\\r\\n") if line.startswith(b"content-length:"))
            await reader.readexactly(length)
            writer.write(b'HTTP/1.1 202 Accepted\\r\\nContent-Length: 18\\r\\n\\r\\n{"code":"SUCCESS"}')
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 26)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""

PEER = """
# The script that everybody writes first: fetch, one dict a row, json.dumps, post, next.
import datetime, json, sys, duckdb, httpx
url, path = sys.argv[1:]
connection = duckdb.connect(path, read_only=True)
cursor = connection.execute("select * from customers")
names = [column[0] for column in cursor.description]
with httpx.Client(headers={"Content-Type": "application/json"}) as client:
    while rows := cursor.fetchmany(1000):
        body = [{"identifiers": {"custom_id": row[0]}, "attributes": dict(zip(names[1:], row[1:]))} for row in rows]
        client.post(url, content=json.dumps(body, default=lambda value: value.isoformat() + "Z"))
"""

TABLE = f"""create table customers as select
    'u' || lpad(i::varchar, 8, '0') as custom_id, 'user' || i || '@example.com' as email, 'First' || (i % 5000) as first_name,
    'Last' || (i % 7000) as last_name, ['FR', 'DE', 'ES', 'IT', 'GB'][1 + i % 5] as country,
    ['fr', 'de', 'es', 'it', 'en'][1 + i % 5] as language, (i * 37 % 100000) / 100.0 as ltv, i % 97 as orders,
    i % 11 = 0 as is_vip, ['free', 'basic', 'pro'][1 + i % 3] as plan, i % 1000 as score,
    timestamp '2025-06-01' + to_seconds(i % 8640000) as last_order_at, timestamp '2026-01-01' as updated_at
    from range({ROWS}) t(i)"""


@pytest.fixture
def sink() -> Iterator[str]:
    process = subprocess.Popen([sys.executable, "-c", SINK], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    yield f"http://127.0.0.1:{process.stdout.readline().strip()}/2.11"
    process.kill()
    process.communicate()


def used(command: list[str]) -> tuple[float, float]:
    """CPU seconds (user and system) and peak memory (MB) of a finished command."""
    script = "import json,resource,subprocess,sys;subprocess.run(sys.argv[1:],check=True,stdout=subprocess.DEVNULL);"
    script += (
        "u=resource.getrusage(resource.RUSAGE_CHILDREN);print(json.dumps([u.ru_utime+u.ru_stime,u.ru_maxrss/1024]))"
    )
    seconds, peak = json.loads(
        subprocess.run([sys.executable, "-c", script, *command], check=True, stdout=subprocess.PIPE).stdout
    )
    return seconds, peak


@pytest.mark.benchmark
@pytest.mark.timeout(600)
def test_first_run_beside_the_script_that_everybody_writes_first(tmp_path: Path, sink: str) -> None:
    """Validating, hashing and durable, a first run costs a small multiple of a loop that does none of it (measured: 2.4)."""
    project = tmp_path / "project"
    (project / "syncs").mkdir(parents=True)
    with duckdb.connect(str(project / "warehouse.duckdb")) as connection:
        connection.execute(TABLE)
    (project / "key").write_text("benchmark")
    (project / "syncs" / "customers.yaml").write_text("kind: profiles\nwarehouse: local\nsource: {table: customers}\n")
    (project / "connector.yaml").write_text(
        textwrap.dedent(f"""\
        batch:
          project_key: {{file: key}}
          rest_key: {{file: key}}
          base_url: {sink}
          limits: {{mass_update: {{per_second: 1000000000}}}}
        warehouses:
          local: {{type: duckdb, path: warehouse.duckdb}}
        """)
    )
    (tmp_path / "peer.py").write_text(PEER)
    ours = [sys.executable, "-m", "connector", "--project", str(project), "run", "customers", "--json"]
    peer = [
        sys.executable,
        str(tmp_path / "peer.py"),
        f"{sink}/profiles/mass-update",
        str(project / "warehouse.duckdb"),
    ]
    rows = []
    for _ in range(ROUNDS):  # interleaved, so that a busy machine is busy for both
        shutil.rmtree(project / ".connector", ignore_errors=True)
        rows.append((*used(ours), *used(ours), *used(peer)))
    first, first_peak, unchanged, unchanged_peak, loop, loop_peak = map(min, zip(*rows, strict=True))
    print(f"\n{ROWS:,} rows x 12 attributes, whole process, best of {ROUNDS}, CPU s and peak MB")
    print(f"  connector, first run      {first:5.2f} s  {first_peak:4.0f} MB")
    print(f"  connector, nothing new    {unchanged:5.2f} s  {unchanged_peak:4.0f} MB")
    print(f"  plain loop, every run     {loop:5.2f} s  {loop_peak:4.0f} MB")
    assert first <= loop * 3.5
    assert unchanged <= loop * 2
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss > 0
