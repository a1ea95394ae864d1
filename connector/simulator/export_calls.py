"""The calls about exports of one project, and those for their files."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from connector.simulator.answers import Answer, denied, failure, faulty, of, too_many
from connector.simulator.calls import Call
from connector.simulator.content import Content, Fetch, content
from connector.simulator.export_lines import export_lines
from connector.simulator.export_rules import read_export
from connector.simulator.exports import Exports, Now, Twist
from connector.simulator.faults import Fault, FaultQueue
from connector.simulator.limits import LIST_PAGE, LIST_PAGE_MOST, VERSION, ExportEndpoint, Settings, TokenBucket
from connector.simulator.links import Links
from connector.simulator.rules import MalformedError
from connector.simulator.store import Store
from connector.simulator.tally import Log

_DONE = {"export": 202, "view": 200, "list": 200, "download": 307}
_NO_FAULT = Fault()


class Ask(NamedTuple):
    """A call about exports: the host that it came to, the API's version, the query and the body."""

    root: str
    version: str
    query: Mapping[str, str]
    body: bytes = b""

    @property
    def base(self) -> str:
        """The address of the API with its version."""
        return f"{self.root}/{self.version}"


class ExportDesk:
    """Answers everything about the exports of one project; one caller at a time."""

    def __init__(self, store: Store, faults: FaultQueue, log: Log) -> None:
        self._store = store
        self._faults = faults
        self._log = log
        self._exports = Exports(store.project)
        self._links = Links(store.project)

    def configure(self, settings: Settings, clock: float) -> None:
        """Enforce these from now on, with a full bucket."""
        self._settings = settings
        self._bucket = TokenBucket(settings.other_rate, clock) if settings.other_rate else None

    def ask(self, endpoint: ExportEndpoint, ask: Ask, now: Now) -> Answer:
        """The answer to an authenticated call, after its effect."""
        self._exports.expire(now.wall)
        answer = self._asked(endpoint, ask, now, self._faults.take(Call([]), endpoint))
        self._log.count(endpoint, answer.status, now.clock)
        return answer

    def fetch(self, asked: Fetch, now: Now) -> Content | Answer:
        """What the file's host gives for a link."""
        self._log.tally.file_requests += 1
        self._log.tally.credentials_leaked += asked.leaking
        fault = self._faults.take(Call([]), "file") or _NO_FAULT
        # A link is signed for one method.
        if asked.method != "GET" or fault.expired:
            return replace(denied("Request has expired"), delay=fault.delay)
        if fault.status is not None or fault.body is not None:
            return faulty(fault, Answer(200, ""))
        file = self._links.follow(asked.token, asked.signature, now.clock)
        if file is None:
            return replace(denied("the signature is wrong, or the request has expired"), delay=fault.delay)
        if fault.changed:
            file.change()
        return content(file, asked, fault)

    def knows(self, token: str) -> bool:
        """Whether a link of this project has this token."""
        return token in self._links

    def all(self, now: Now) -> list[dict[str, Any]]:
        """Every export, the oldest first, as `exports/view` shows it; addresses lack their host."""
        self._exports.expire(now.wall)
        return [export.as_json(now.clock, f"/{VERSION}") for export in self._exports.all()]

    def release(self) -> None:
        """Let go of exports that are stuck."""
        self._exports.release()

    def clear(self) -> None:
        """Forget every export, and remove the files."""
        self._exports.clear()
        self._links.clear()

    def _asked(self, endpoint: ExportEndpoint, ask: Ask, now: Now, fault: Fault | None) -> Answer:
        if fault is not None and not fault.applies:
            promised = {"id": self._exports.unmade_id(now.wall)} if endpoint == "export" else {}
            return faulty(fault, of(_DONE[endpoint], promised))
        wait = self._bucket.take(1, now.clock) if self._bucket else 0.0
        if wait:
            self._log.tally.throttled += 1
            answer = too_many(wait, told=self._settings.retry_after)
        else:
            answer = self._answered(endpoint, ask, now, fault or _NO_FAULT)
        if fault is None:
            return answer
        return faulty(fault, answer) if answer.status == _DONE[endpoint] else replace(answer, delay=fault.delay)

    def _answered(self, endpoint: ExportEndpoint, ask: Ask, now: Now, fault: Fault) -> Answer:
        try:
            match endpoint:
                case "export":
                    return self._create(ask, now, fault)
                case "view":
                    return self._view(ask, now)
                case "list":
                    return self._list(ask, now)
                case "download":
                    return self._download(ask, now)
        except MalformedError as error:
            return failure(400, str(error))

    def _create(self, ask: Ask, now: Now, fault: Fault) -> Answer:
        wanted = read_export(ask.body, now.wall)
        late = 0.0 if fault.late is None else fault.delay + fault.late
        lines = export_lines(wanted, self._store, self._settings)
        twist = Twist(fault.becomes, fault.lines, late)
        export = self._exports.create(wanted, lines, self._settings, now, twist)
        self._log.tally.exports_created += 1
        return of(_DONE["export"], {"id": export.id})

    def _view(self, ask: Ask, now: Now) -> Answer:
        export = self._exports.get(_id(ask))
        if export is None:
            return failure(404, "no such export")
        return of(_DONE["view"], export.as_json(now.clock, ask.base))

    def _list(self, ask: Ask, now: Now) -> Answer:
        limit = ask.query.get("limit", str(LIST_PAGE))
        if not re.fullmatch(r"[0-9]{1,9}", limit, re.ASCII) or not 1 <= int(limit) <= LIST_PAGE_MOST:
            raise MalformedError(f"limit is not a whole number from 1 to {LIST_PAGE_MOST}")
        found, following = self._exports.page(ask.query.get("from"), int(limit), now.clock)
        page = {
            "exports": [export.as_json(now.clock, ask.base) for export in found],
            "count": len(found),
            "has_more": following is not None,
        }
        return of(_DONE["list"], page if following is None else page | {"next_from": following})

    def _download(self, ask: Ask, now: Now) -> Answer:
        file_id = _id(ask)
        found = self._exports.file(file_id)
        if found is None:
            return failure(404, "no such file")
        export, file = found
        if export.status(now.clock) != "SUCCESS":
            raise MalformedError("the export of this file is not SUCCESS")
        self._log.tally.downloads += 1
        link = self._links.give(file, ask.root, now.clock + self._settings.link_seconds)
        return Answer(_DONE["download"], "", headers={"location": link})


def _id(ask: Ask) -> str:
    if not ask.query.get("id"):
        raise MalformedError("the query parameter id is missing")
    return ask.query["id"]
