"""What a model refuses in a document: the place and a sentence, never pydantic's words, never a secret."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from connector._model import KeyPath, MistakeError, Model, kind_of
from connector.config._document import Document, Value, value_at
from connector.config._profiles import ProfileSync
from connector.config._wording import dotted, listing, nearest, quoted, suggestion
from connector.errors import Problem

_M = TypeVar("_M", bound=Model)

_NOT_YET: Mapping[type[Model], Mapping[str, tuple[str, ...]]] = {
    ProfileSync: {
        "on_removed": ("erase",),
    },
}
"""What the contract names and a later version brings: values of a key."""

_SECRETIVE = ("batch", "alerts", "warehouses", "state")
"""Sections whose unknown keys are not echoed: a secret may have slipped into the place of a name."""

_KINDS = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "tuple_type": "a list",
    "list_type": "a list",
}
"""What must stand there, by pydantic's type of error."""

_BOUNDS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


_RULES = {
    "missing": "missing; add it",
    "too_short": "must not be empty; write at least one",
    "string_too_short": "must not be empty; write it or remove the key",
    "too_long": "at most {max_length} are allowed; remove the rest",
}


class _Refusal(NamedTuple):
    """One error of pydantic, in the terms of the file: the way to the value, and what stands there."""

    rule: str
    path: KeyPath
    got: Value
    context: Mapping[str, Any]
    at_key: bool
    labels: tuple[str | int, ...]
    """Of its way those steps that are pydantic's own: the branch of a union among them."""

    @property
    def choices(self) -> list[str]:
        """The allowed words, where only some are."""
        return re.findall(r"'([^']*)'", str(self.context.get("expected", "")))


def parsed(model: type[_M], document: Document, *, root: Path, given: Mapping[str, Value] | None = None) -> _M | None:
    """The document as a model; None where it is refused, and its problems say why.

    Args:
        model: What the file must hold.
        document: The file; its list of problems grows.
        root: The project folder, for files named in the document.
        given: Values that the document may leave out.
    """
    if () in document.unknown or not isinstance(document.value, dict):
        return None
    value: Value = {**(given or {}), **document.value}
    try:
        return model.model_validate_json(json.dumps(value), strict=True, context={"root": root})
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
    for refusal in _told(model, [_refusal(detail, value) for detail in details]):
        if not any(refusal.path[: len(path)] == path for path in document.unknown):
            document.problems.append(_problem(model, refusal, document))
    return None


def _told(model: type[Model], refusals: list[_Refusal]) -> list[_Refusal]:
    """Without what follows from another mistake: keys missing as misspelt."""
    meant = {
        (*each.path[:-1], nearest(str(each.path[-1]), _keys(model, each)))
        for each in refusals
        if each.rule == "extra_forbidden"
    }
    return [each for each in refusals if each.rule != "missing" or each.path not in meant]


def _refusal(detail: ErrorDetails, value: Value) -> _Refusal:
    rule, context, loc = detail["type"], detail.get("ctx", {}), detail["loc"]
    path, labels = _written(loc, value)
    if rule == "missing":
        path = (*path, loc[-1])
    elif rule in ("union_tag_invalid", "union_tag_not_found"):
        path = (*path, "type")
        rule = "missing" if value_at(value, path) is None else "literal_error"
        context = {"expected": context.get("expected_tags", "")}
    elif isinstance(mistake := context.get("error"), MistakeError):
        path = (*path, *mistake.path)
    at_key = rule == "extra_forbidden" or loc[-1:] == ("[key]",)
    return _Refusal(rule, path, value_at(value, path), context, at_key, labels)


def _written(loc: KeyPath, value: Value) -> tuple[KeyPath, KeyPath]:
    """The location, and apart from it pydantic's own labels: a union's branch, `[key]`, a short form's long one."""
    path: list[str | int] = []
    labels: list[str | int] = []
    for step in loc:
        if (isinstance(value, dict) and step in value) or (isinstance(value, list) and isinstance(step, int)):
            value = value_at(value, (step,))
            path.append(step)
        else:
            labels.append(step)
    return tuple(path), tuple(labels)


def _problem(model: type[Model], refusal: _Refusal, document: Document) -> Problem:
    path = refusal.path
    place = document.place(path, key=refusal.at_key)
    if refusal.rule == "missing":
        place = document.place(path[:-1], key=True)
    sentence = _not_yet(model, refusal)
    if sentence is None and refusal.rule == "extra_forbidden":
        path, sentence = path[:-1], _unknown_key(model, refusal)
    where = f"{dotted(path)}: " if path else ""
    return Problem(document.file, *place, where + (sentence or _sentence(model, refusal)))


def _not_yet(model: type[Model], refusal: _Refusal) -> str | None:
    for pattern, values in _NOT_YET.get(model, {}).items():
        if not _matches(pattern, refusal.path):
            continue
        if refusal.got in values:
            return f"{quoted(str(refusal.got))} is not available yet; use {listing(refusal.choices)}"
        if kind_of(refusal.got) in values:
            return f"{kind_of(refusal.got)} is not available yet; write {_KINDS[refusal.rule]}" + _meaning(
                model, refusal
            )
    return None


def _matches(pattern: str, path: KeyPath) -> bool:
    steps = pattern.split(".")
    return len(steps) == len(path) and all(step in ("*", key) for step, key in zip(steps, path, strict=True))


def _unknown_key(model: type[Model], refusal: _Refusal) -> str:
    key, allowed = refusal.path[-1], _keys(model, refusal)
    near = suggestion(str(key), allowed)
    shown = "unknown key" if refusal.path[0] in _SECRETIVE and not near else f"unknown key {quoted(str(key))}"
    return f"{shown}{near or ';'} allowed here: {', '.join(allowed)}"


def _sentence(model: type[Model], refusal: _Refusal) -> str:
    match refusal.rule:
        case "value_error":
            return str(refusal.context["error"])
        case "literal_error":
            return _choice(model, refusal)
        case rule if rule in _KINDS:
            quotes = "; put it in quotes" if rule == "string_type" and isinstance(refusal.got, int | float) else ""
            return f"must be {_KINDS[rule]}, got {kind_of(refusal.got)}{quotes}"
        case rule if rule in _BOUNDS:
            words, name = _BOUNDS[rule]
            got = f", got {refusal.got}" if isinstance(refusal.got, int | float) else ""
            return f"must be {words} {refusal.context[name]:g}{got}"
        case rule:
            said = _RULES.get(rule, "not allowed here").format_map(refusal.context)
            return said if rule == "too_long" else said + _meaning(model, refusal)


def _choice(model: type[Model], refusal: _Refusal) -> str:
    got = refusal.got
    if not isinstance(got, str):
        return f"must be {listing(refusal.choices)}, got {kind_of(got)}"
    later = (words for pattern, words in _NOT_YET.get(model, {}).items() if _matches(pattern, refusal.path))
    near = suggestion(got, [*refusal.choices, *(word for words in later for word in words)])
    return f"must be {listing(refusal.choices)}, got {quoted(got)}{near}"


def _meaning(model: type[Model], refusal: _Refusal) -> str:
    """What the key means, in brackets, where its model says so."""
    if not refusal.path:
        return ""
    key = str(refusal.path[-1])
    owners = map(_fields, _owners(model, refusal))
    fields = [fields[key] for fields in owners if key in fields]
    words = [word for field in fields for word in get_args(field.annotation) if get_origin(field.annotation) is Literal]
    text = next((field.description for field in fields if field.description), listing(words) if words else "")
    return f" ({text})" if text else ""


def _keys(model: type[Model], refusal: _Refusal) -> list[str]:
    """The keys that may stand where the refused one does."""
    return sorted({name for owner in _owners(model, refusal) for name in _fields(owner)})


def _fields(owner: type[Model]) -> dict[str, FieldInfo]:
    """The model's fields by their keys in YAML."""
    return {field.alias or name: field for name, field in owner.model_fields.items()}


def _owners(model: type[Model], refusal: _Refusal) -> list[type[Model]]:
    """The models of the mapping that the refused key is in; of a union told apart by `type` the one meant."""
    types: list[Any] = [model]
    for step in refusal.path[:-1]:
        types = [inner for each in types for inner in _inside(each, step)]
    owners = [each for each in types if isinstance(each, type) and issubclass(each, Model)]
    return [owner for owner in owners if _tag(owner) in refusal.labels] or owners


def _tag(model: type[Model]) -> str | None:
    field = model.model_fields.get("type")
    return next(iter(get_args(field.annotation)), None) if field else None


def _inside(annotation: Any, step: str | int) -> Iterator[Any]:  # noqa: ANN401 - an annotation can be anything
    if isinstance(annotation, type) and issubclass(annotation, Model):
        if field := _fields(annotation).get(str(step)):
            yield from _alternatives(field.annotation)
    elif get_origin(annotation) is dict:
        yield from _alternatives(get_args(annotation)[1])


def _alternatives(annotation: Any) -> Iterator[Any]:  # noqa: ANN401 - an annotation can be anything
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for member in get_args(annotation):
            yield from _alternatives(member)
    else:
        yield annotation
