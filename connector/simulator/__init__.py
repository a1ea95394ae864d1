"""A local Profile API: Batch's documented rules, limits and answers, and faults on demand.

`Simulator(...).app` is for callers in this process, `serve` for others. It shares no rule with the connector,
so that each checks the other.
"""

from connector.simulator.limits import Rate, Settings
from connector.simulator.server import Served, run_forever, serve
from connector.simulator.simulator import Simulator

__all__ = ["Rate", "Served", "Settings", "Simulator", "run_forever", "serve"]
