"""The Dagster face of the connector: every sync of the project is an asset."""
