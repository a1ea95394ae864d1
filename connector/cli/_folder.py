"""Which project a command is about, said aloud where nobody named one."""

import os
from pathlib import Path

import click

from connector.cli._answer import Call
from connector.config import PROJECT_FILE, PROJECT_VARIABLE, Project, find_project, load_project


def loaded(call: Call) -> Project:
    """The project of this call.

    Raises:
        ConfigError: The YAML is wrong, or there is no project.
        UsageError: The folder that was named is none.
    """
    root = find_project(call.project)
    here = Path.cwd() / PROJECT_FILE
    if call.project is None and not os.environ.get(PROJECT_VARIABLE) and not here.is_file():
        click.echo(f"no {PROJECT_FILE} in this folder: this is about the example project, {root}", err=True)
    return load_project(root)
