"""The rules that a value can break, each with its limit and where that comes from.

Every rule is one boolean expression; a broken one withholds the value and says why. Sources of the limits:

* text 1-300, URL 1-2,048, arrays 1-25 items of text 1-300: Batch's update page and SDK validators
* custom ID up to 512: the API specification as third parties ported it (the SDKs take 1,024)
* native attributes: the patterns of Batch's mobile and web SDKs; text length counts UTF-16 units, as those do
* events: 20 attributes an object, three levels of objects, `$label` 200, `$tags` 10 of 64: the SDKs; 25 kB, 24 hours,
  15 events an operation: Batch's update page as third parties read it
"""

from typing import Literal, NamedTuple
from zoneinfo import available_timezones

import polars as pl

AttributeType = Literal["string", "integer", "float", "boolean", "date", "url", "array"]

EventAttributeType = Literal["string", "integer", "float", "boolean", "date", "url", "array", "object"]
"""Those of profiles, and `object`: an object, or an array of objects, which only events take."""

TEXT_MAX = 300
URL_MAX = 2048
ARRAY_MAX = 25
EMAIL_MAX = 256
LABEL_MAX = 200
TAGS_MAX = 10
TAG_MAX = 64
OBJECT_ATTRIBUTES_MAX = 20
OBJECT_DEPTH_MAX = 3
CUSTOM_ID_MAX = 512
RESERVED_IDS = (
    "undefined", "null", "nil", "(null)", "[object object]", "true", "false", "nan", "infinity", "-infinity",
)  # fmt: skip

_VISIBLE = r"[^\s\x1c-\x1f]"  # the separators count as white space in Unicode and Python, though not in Rust's \s
_ASTRAL = r"[\x{10000}-\x{10FFFF}]"
_URL = r"\A[A-Za-z][A-Za-z0-9+.\-]*://(?:[^\s/?#@]*@)?[^\s/?#@:][^\s/?#]*[^\s]*\z"


class Rule(NamedTuple):
    """A reason in words, and the expression that is true where a value breaks the rule; null counts as kept.

    The reason is an expression (String) where it differs from row to row. `unseen` is True where the value does not
    show it: what was given became null, or text like any other.
    """

    reason: str | pl.Expr
    broken: pl.Expr
    unseen: bool = False


class Typed(NamedTuple):
    """A value as it will be sent (null: no value) and the rules to hold it against, in order of precedence."""

    value: pl.Expr
    rules: tuple[Rule, ...]


def key_rules(given: pl.Expr, key: pl.Expr) -> tuple[Rule, ...]:
    """The rules of a custom ID: the column as it is `given`, and the `key` as text."""
    return (
        Rule("the key is null", given.is_null()),
        Rule("the key is blank", _blank(key)),
        Rule("the key has a line break", key.str.contains(r"[\r\n]")),
        Rule(f"the key is longer than {CUSTOM_ID_MAX} characters", _longer(key, CUSTOM_ID_MAX)),
        Rule("the key is a reserved word", _short(key).str.to_lowercase().is_in(list(RESERVED_IDS))),
    )


def text_rules(text: pl.Expr) -> tuple[Rule, ...]:
    """The rules of text that is not empty."""
    return (
        Rule("only white space", _blank(text)),
        Rule(f"longer than {TEXT_MAX} characters", _longer(text, TEXT_MAX)),
    )


def url_rules(text: pl.Expr) -> tuple[Rule, ...]:
    """The rules of a URL."""
    return (
        Rule("not a URL with a scheme and a host", ~text.str.contains(_URL)),
        Rule(f"a URL longer than {URL_MAX} characters", _longer(text, URL_MAX)),
    )


def finite_rule(number: pl.Expr) -> Rule:
    """NaN and infinities are no JSON: an encoder would turn them into null, and null erases."""
    return Rule("not a finite number (NaN or infinite)", ~number.is_finite())


def item_rules(value: pl.Expr) -> tuple[Rule, ...]:
    """The rules of an array of text, one by one; of a field inside objects, whose reason needs the way to it."""
    null, *others = (Rule(reason, value.list.eval(broken).list.any()) for reason, broken in _broken_items())
    return (null, Rule(f"more than {ARRAY_MAX} items", value.list.len() > ARRAY_MAX), *others)


def items_rule(value: pl.Expr) -> tuple[Rule]:
    """The same rules as one, as most arrays break none: their items are then looked at once."""
    rules = item_rules(value)
    any_item = value.list.eval(pl.any_horizontal(rule for _, rule in _broken_items())).list.any()
    reason = pl.coalesce(*(pl.when(rule.broken).then(pl.lit(rule.reason)) for rule in rules))
    return (Rule(reason, (value.list.len() > ARRAY_MAX) | any_item),)


def _broken_items() -> tuple[tuple[str, pl.Expr], ...]:
    item = pl.element()
    return (
        ("an item is null", item.is_null()),
        ("an item is empty or only white space", _blank(item)),
        (f"an item is longer than {TEXT_MAX} characters", _longer(item, TEXT_MAX)),
    )


NATIVE_TYPES: dict[str, AttributeType] = {
    "$email_address": "string",
    "$email_marketing": "string",
    "$phone_number": "string",
    "$sms_marketing": "string",
    "$language": "string",
    "$region": "string",
    "$timezone": "string",
    "$topic_preferences": "array",
}
"""The writable native attributes and their only type."""

CONSENT = ("$email_marketing", "$sms_marketing")
"""Attributes that people change at Batch themselves, by an unsubscribe link or a STOP message."""


def native_rules(name: str, value: pl.Expr) -> tuple[Rule, ...]:
    """The further rules of a native attribute's value; none for custom attributes."""
    rules = []
    if name == "$email_address":
        rules.append(Rule(f"an e-mail address longer than {EMAIL_MAX} characters", _longer(value, EMAIL_MAX)))
    if name == "$timezone":
        rules.append(Rule("not an IANA time zone", ~value.is_in(sorted(available_timezones()))))
    if name == "$topic_preferences":
        topics = value.list.eval(pl.element().str.contains(r"\A[a-z0-9_]+\z"))
        rules.append(Rule("a topic has other characters than a-z, 0-9 and _", ~topics.list.all()))
    if name in _NATIVE_FORMS:
        form, reason = _NATIVE_FORMS[name]
        rules.append(Rule(reason, ~value.str.contains(form)))
    return tuple(rules)


_NATIVE_FORMS = {
    "$email_address": (r"\A[^@\s\x1c-\x1f]+@[A-Za-z0-9.\-]+\.[A-Za-z0-9]+\z", "not an e-mail address"),
    "$phone_number": (r"\A\+[0-9]{1,15}\z", "not a phone number in E.164 form (+ and up to 15 digits)"),
    "$email_marketing": (r"\A(?:subscribed|unsubscribed)\z", "neither subscribed nor unsubscribed"),
    "$sms_marketing": (r"\A(?:subscribed|unsubscribed)\z", "neither subscribed nor unsubscribed"),
    "$language": (r"\A[a-z]{2}\z", "not a language code of two lower-case letters (ISO 639)"),
    "$region": (r"\A[A-Z]{2}\z", "not a region code of two upper-case letters (ISO 3166)"),
}


def _blank(text: pl.Expr) -> pl.Expr:
    """True where nothing of `text` can be seen; only text whose first byte is not visible ASCII is searched."""
    return ~pl.when(~_begins_visibly(text)).then(text).str.contains(_VISIBLE)


def _begins_visibly(text: pl.Expr) -> pl.Expr:
    return (text >= "!") & (text < "\x7f")  # in bytes: several times quicker than a pattern


def _short(key: pl.Expr) -> pl.Expr:
    """The key where it is short enough for a reserved word, in whatever case; else null."""
    return pl.when(key.str.len_chars() <= max(map(len, RESERVED_IDS))).then(key)


def _longer(text: pl.Expr, limit: int) -> pl.Expr:
    """True where `text` has more than `limit` UTF-16 units; only text that may be too long is counted."""
    # Bytes of UTF-8 are never fewer than UTF-16 units, so short text needs no look inside.
    suspect = pl.when(text.str.len_bytes() > limit).then(text)
    return suspect.str.len_chars() + suspect.str.count_matches(_ASTRAL) > limit
