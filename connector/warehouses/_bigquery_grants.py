"""The roles that an account of BigQuery needs, as statements: pure text, made without a connection."""

import shlex
from collections.abc import Iterator

from connector.warehouses import _bigquery_sql as sql
from connector.warehouses._grants import Needs, comment
from connector.warehouses.bigquery import BigQuery

_MEMBER, _CALLER = "<member>", "<caller>"


def granted(settings: BigQuery, needs: Needs) -> list[str]:
    """The statements, each ending in a semicolon, and comments; in an order in which they can be run.

    SQL grants no roles on projects (https://cloud.google.com/bigquery/docs/reference/standard-sql/data-control-language):
    these are comments that hold the command.

    Raises:
        WarehouseError: A table's name is malformed, or names no dataset where there is no default.
    """
    account = settings.impersonate_service_account
    member = f"serviceAccount:{account}" if account else _MEMBER
    targets = [sql.table(name, settings.project, settings.dataset) for name in needs.targets]
    tables = [sql.table(name, settings.project, settings.dataset) for name in needs.tables]
    tables = [name for name in dict.fromkeys(tables) if name not in targets]
    own = [name[:2] for name in targets]
    if needs.compares:
        own.append(sql.table(f"{settings.state_schema}.any", settings.project, None)[:2])
    to = f"TO {_literal(member)};"
    location = f" OPTIONS (location = {_literal(settings.location)})" if settings.location else ""
    return [
        *_notes(_MEMBER if member == _MEMBER else _CALLER, views=bool(tables)),
        *(comment(command) for command in _commands(settings.project, member, needs)),
        *(f"GRANT `roles/bigquery.dataViewer` ON TABLE {_name(name)} {to}" for name in tables),
        *_queried(settings, needs, to),
        *(
            statement
            for name in dict.fromkeys(own)
            for statement in (
                f"CREATE SCHEMA IF NOT EXISTS {_name(name)}{location};",
                f"GRANT `roles/bigquery.dataEditor` ON SCHEMA {_name(name)} {to}",
            )
        ),
    ]


def _notes(blank: str, *, views: bool) -> Iterator[str]:
    yield comment(f"fill in {blank}, who signs in: serviceAccount:NAME@PROJECT.iam.gserviceaccount.com or user:E-MAIL")
    if views:
        yield comment("where a source is a view, write ON VIEW in place of ON TABLE, and let it read its own tables")


def _commands(project: str, member: str, needs: Needs) -> Iterator[str]:
    for role in ("jobUser", *(["readSessionUser"] if needs.reads else [])):
        yield (
            f"gcloud projects add-iam-policy-binding {shlex.quote(project)}"
            f" --member {shlex.quote(member)} --role roles/bigquery.{role}"
        )
    if member != _MEMBER:
        account = shlex.quote(member.removeprefix("serviceAccount:"))
        yield (
            f"gcloud iam service-accounts add-iam-policy-binding {account}"
            f" --member {shlex.quote(_CALLER)} --role roles/iam.serviceAccountTokenCreator"
        )


def _queried(settings: BigQuery, needs: Needs, to: str) -> Iterator[str]:
    for sync in needs.queries:
        yield comment(f"sync '{sync}' reads by a query: grant roles/bigquery.dataViewer on what that reads")
    if needs.queries and settings.dataset:
        yield comment("for all of the dataset that the settings name:")
        dataset = _name((settings.project, settings.dataset))
        yield comment(f"GRANT `roles/bigquery.dataViewer` ON SCHEMA {dataset} {to}")


def _name(parts: tuple[str, ...]) -> str:
    return ".".join(map(sql.quoted, parts))


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
