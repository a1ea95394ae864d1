"""What the files of a project say of each other: names and assets that two claim, and what one needs of another."""

from datetime import timedelta

from connector.config._document import Document
from connector.config._exports import ExportSync
from connector.config._kinds import Outbound, Sync
from connector.config._profiles import ProfileSync
from connector.config._settings import ProjectSettings
from connector.config._wording import listing, quoted, suggestion
from connector.rules import CONSENT
from connector.warehouses import Warehouse
from connector.warehouses.bigquery import BigQuery
from connector.warehouses.duckdb import DuckDB

PROJECT_FILE = "connector.yaml"

YOUNGEST_CHANGE = timedelta(minutes=10)
LONGEST_CHANGES = timedelta(days=1)
"""How old a change is before BigQuery's CHANGES tells of it, and of how long a time one call tells.
Source: https://cloud.google.com/bigquery/docs/change-history"""


def check_name(document: Document, names: dict[str, str], name: object) -> None:
    """No two files hold a sync of one name; `names` says which file has which."""
    if () in document.unknown or not isinstance(name, str):
        return
    other = names.setdefault(name, document.file)
    if other != document.file:
        message = f"name: {other} already holds the sync {quoted(name)}; give one of them another name"
        document.refuse(document.place(("name",)), message)


def check_claims(document: Document, claims: dict[str, str], sync: Sync) -> None:
    """No two files are one asset or one job in Dagster; `claims` says which file has which."""
    for claim, key in _claims(sync).items():
        other = claims.setdefault(claim, document.file)
        if other != document.file:
            said = f"{key}: this would be {claim} of Dagster, which {other} is already"
            remedy = "give one of them another name" + " or table" * claim.startswith("the asset")
            message = f"{said}; {remedy}"
            document.refuse(document.place((key,)), message)


def _claims(sync: Sync) -> dict[str, str]:
    """What the sync is called in Dagster, and the key of its file that says so."""
    if isinstance(sync, ExportSync):
        table = "/".join(sync.table.lower().split(".")[-2:])  # two that differ in case are one table
        return {f"the asset {table}": "table", f"the job {sync.name}_job": "name"}
    found = {f"the asset batch/{sync.name}": "name", f"the job {sync.name}_job": "name"}
    if isinstance(sync, ProfileSync) and sync.reconcile:
        found[f"the job {sync.name}_reconcile_job"] = "name"
    return found


def check_opt_outs(document: Document, sync: Sync, syncs: dict[str, Sync]) -> None:
    """Who respects opt-outs sends consent, and an export tells of each that is sent."""
    if not isinstance(sync, ProfileSync) or not sync.respect_opt_out or document.problems:
        return
    exports = [export for export in syncs.values() if isinstance(export, ExportSync)]
    sent = [name for name in CONSENT if sync.attributes is None or name in sync.attributes]
    untold = [name for name in sent if not any(export.tells_of(name) for export in exports)]
    if not sent:
        said = f"the sync sends neither {listing(CONSENT, 'nor')}; remove it"
    elif untold and (sync.attributes is not None or untold == sent):
        said = f"no sync of kind export tells of {listing(untold, 'and')}; add one of reachability"
    else:
        return
    document.refuse(document.place(("respect_opt_out",)), f"respect_opt_out: {said}")


def check_feed(document: Document, sync: Sync, settings: ProjectSettings | None) -> None:
    """What a feed needs: a table of a warehouse that records its changes, and bounds that this one takes."""
    if settings and not isinstance(sync, ExportSync) and not document.problems:
        key, said = _wrong_feed(sync, settings.warehouses[sync.warehouse])
        if said:
            document.refuse(document.place(("cursor", key)), f"cursor.{key}: {said}")


def _wrong_feed(sync: Outbound, warehouse: Warehouse) -> tuple[str, str]:
    """The key that does not fit and what to do about it; nothing where all does, or there is no feed."""
    cursor = sync.cursor
    if not cursor or not cursor.feed:
        return "", ""
    of_keys = isinstance(warehouse, BigQuery) and isinstance(sync, ProfileSync)
    checks = (
        (isinstance(warehouse, DuckDB), "feed", "a DuckDB file records no changes; name a column instead"),
        (sync.source.table is None, "feed", "of tables alone it is known what was written; read one, or name a column"),
        (sync.engine == "warehouse", "feed", "needs engine: local; with engine: warehouse name a column"),
        (of_keys and cursor.lag < YOUNGEST_CHANGE, "lag", "BigQuery tells changes 10 minutes old; write 10m or more"),
        (of_keys and cursor.reach > LONGEST_CHANGES, "reach", "BigQuery tells changes of one day; write 1d or less"),
        (cursor.lag >= cursor.reach, "reach", "must be longer than cursor.lag, else all is read at each run"),
    )
    return next(((key, said) for wrong, key, said in checks if wrong), ("", ""))


def check_warehouse(document: Document, main: Document) -> None:
    """The sync's warehouse is one of the project's; said even where the rest of either file is wrong."""
    known, name = main.at(("warehouses",)), document.at(("warehouse",))
    if ("warehouses",) in main.unknown or not isinstance(known, dict) or not isinstance(name, str):
        return
    if known and name and name not in known:
        near = suggestion(name, known) or ";"
        message = f"warehouse: {PROJECT_FILE} has no {quoted(name)}{near} it has {listing(known, 'and')}"
        document.refuse(document.place(("warehouse",)), message)
