"""The warehouses that can be read: a new one adds its file, and its name to this union."""

from typing import Annotated

from pydantic import Field

from connector.warehouses.bigquery import BigQuery
from connector.warehouses.duckdb import DuckDB
from connector.warehouses.snowflake import Snowflake

Warehouse = Annotated[DuckDB | Snowflake | BigQuery, Field(discriminator="type")]
"""The settings of any warehouse, told apart by `type`."""

__all__ = ["Warehouse"]
