"""Signed links to files, which expire by the simulator's clock."""

from typing import NamedTuple
from urllib.parse import quote

from connector.simulator.files import ExportFile
from connector.simulator.ids import made_hex


class Link(NamedTuple):
    """A link that was given out; `ends` by the simulator's clock."""

    file: ExportFile
    signature: str
    ends: float


class Links:
    """Every link that was given out for the files of one project."""

    def __init__(self, project: str) -> None:
        self._project = project
        self._links: dict[str, Link] = {}

    def give(self, file: ExportFile, root: str, ends: float) -> str:
        """A new address of the file at the host `root`; the token repeats where a simulation repeats itself."""
        token = made_hex(self._project, "token", len(self._links), file.id, ends)
        link = self._links[token] = Link(file, made_hex(token, "signature"), ends)
        name = quote(f"{file.id}.json{'.gz' if file.gzip else ''}", safe="")
        return f"{root}/simulator/files/{token}/{name}?signature={link.signature}"

    def __contains__(self, token: str) -> bool:
        return token in self._links

    def follow(self, token: str, signature: str, clock: float) -> ExportFile | None:
        """The file, or None where nobody signed this link, it expired, or the file is gone."""
        link = self._links.get(token)
        good = link is not None and link.signature == signature and clock < link.ends and link.file.path.exists()
        return link.file if link and good else None

    def clear(self) -> None:
        """Forget them all."""
        self._links.clear()
