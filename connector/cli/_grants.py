"""What `connector check --grants` prints: the rights that syncs need of each warehouse, from the YAML alone."""

from collections.abc import Iterable, Sequence

from connector.config import ExportSync, ProfileSync, Project, Sync
from connector.warehouses._base import Needs


def granted(project: Project, syncs: Sequence[Sync]) -> dict[str, list[str]]:
    """The statements of each warehouse of these syncs, by its name, in the order of `connector.yaml`.

    Raises:
        WarehouseError: A table's name is malformed.
    """
    found = {}
    for name, settings in project.settings.warehouses.items():
        if here := [sync for sync in syncs if sync.warehouse == name]:
            found[name] = settings.grants(needed(here))
    return found


def needed(syncs: Iterable[Sync]) -> Needs:
    """What these syncs do in their warehouse. Tables of exports that `respect_opt_out` reads are the project's own."""
    exports = [sync for sync in syncs if isinstance(sync, ExportSync)]
    sending = [sync for sync in syncs if not isinstance(sync, ExportSync)]
    return Needs(
        tables=tuple(dict.fromkeys(sync.source.table for sync in sending if sync.source.table)),
        queries=tuple(sync.name for sync in sending if not sync.source.table),
        targets=tuple(dict.fromkeys(sync.table for sync in exports)),
        compares=any(isinstance(sync, ProfileSync) and sync.engine == "warehouse" for sync in sending),
    )
