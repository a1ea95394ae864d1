"""What `workspace.yaml` loads: the project of `CONNECTOR_PROJECT`, else `./connector.yaml`, else the example."""

import dagster as dg

from assets.factory import build_project_defs
from connector.config import Project, find_project, load_project
from connector.errors import ConfigError


@dg.definitions
def defs() -> dg.Definitions:
    """Every sync of the project.

    Raises:
        DagsterInvalidDefinitionError: The YAML is wrong; names every mistake of every file.
    """
    return build_project_defs(current_project())


def current_project() -> Project:
    """The project whose assets these are.

    Raises:
        DagsterInvalidDefinitionError: The YAML is wrong; names every mistake of every file.
    """
    try:
        return load_project(find_project())
    except ConfigError as error:
        mistakes = "\n".join(str(problem) for problem in error.problems)
        raise dg.DagsterInvalidDefinitionError(mistakes or str(error)) from None
