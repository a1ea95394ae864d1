"""The version of a sync's code: what Dagster compares to tell that an asset is out of date."""

import hashlib
import json

from connector.config._exports import ExportSync
from connector.config._kinds import Sync


def code_version(sync: Sync) -> str:
    """16 hexadecimal digits that change with what the sync does, not with its schedule or looks."""
    parts = sync.model_dump(mode="json", exclude={"schedule", "dagster"})
    if not isinstance(sync, ExportSync):
        parts["query"] = sync.source.relation.query
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
