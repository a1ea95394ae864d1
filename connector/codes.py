"""Every code that an answer, an alert or a metadata entry may carry: what it means, and what to do about it."""

from typing import Literal, NamedTuple

ReasonCode = Literal[
    "drift", "held", "invalid", "closing", "outage", "pending", "quarantined", "rejected", "too_old", "unanswered",
    "unsent", "untrusted",
]  # fmt: skip
"""Why a run is not green although no error ended it."""


class Meaning(NamedTuple):
    """What a code says, in one sentence, and what to do."""

    sentence: str
    remedy: str


OUTCOMES = {
    "green": Meaning("All that was due was delivered, or loaded.", "Nothing."),
    "incomplete": Meaning(
        "Something stayed back: refused, invalid, held, in doubt or not sent.",
        "Read the reasons, each has a code of its own; what can go by itself goes with the next run.",
    ),
    "guarded": Meaning(
        "A guard stopped a mass change before its first request; nothing was sent.",
        'Look at the plan; if the change is meant, run once with --allow-mass-change "reason".',
    ),
    "busy": Meaning("Another run of this sync is under way.", "Wait for it; its message names host and process."),
    "failed": Meaning("An error ended it; what was acknowledged before is kept.", "Follow the error's own remedy."),
}
"""How a run ends: `outcome` in its answer."""

ERRORS = {
    "usage": Meaning("The command, an option or a name given to it is wrong.", "Correct the call."),
    "configuration": Meaning(
        "The YAML or the environment is wrong; every mistake is named with file, line and column.",
        "Correct the files; `connector validate` reads them without a network.",
    ),
    "warehouse": Meaning(
        "The warehouse cannot be reached, opened, read or written, or lacks a table or column.",
        "Mend it there and run again; `connector check` tries everything that a run needs.",
    ),
    "state": Meaning(
        "The state cannot be used: locked, damaged, full, of another project or version, or an adoption is owed.",
        "Follow the remedy: restore it, or decide between `run --resend` and `adopt`.",
    ),
    "api": Meaning(
        "Batch refuses every request: key, project, route, or a redirect. Nothing more was sent.",
        "Mend what the message names and run again: it goes on where it stopped.",
    ),
    "export": Meaning(
        "Batch's export failed, or what it brought is not whole; nothing of it was loaded.",
        "Run again: another export is asked for.",
    ),
    "cancelled": Meaning(
        "The run was told to stop; chunks in flight were settled.", "Run again: it goes on where it stopped."
    ),
    "killed": Meaning(
        "The run died; a later one took over what it had delivered.",
        "Nothing; what was in flight is due, and shown as waiting until `delivery.quiet` is over.",
    ),
    "error": Meaning("An error of the connector's own.", "Report it, and run again: it goes on where it stopped."),
}
"""What ended a run: `error.code` in its answer, beside guarded, busy and pending."""

REASONS: dict[ReasonCode, Meaning] = {
    "unsent": Meaning(
        "Rows were planned and not sent, or nobody knows whether they arrived.", "Run again: they stay due."
    ),
    "rejected": Meaning(
        "Batch refused more rows, wholly or in part, than tolerance.rejected allows.",
        "See `connector rejects SYNC`; mend the rows, they go with the value of the day.",
    ),
    "invalid": Meaning(
        "More rows than tolerance.invalid allows break a rule, or have a value that does.",
        "See `connector rejects SYNC`; mend them in the warehouse, or raise the tolerance.",
    ),
    "held": Meaning(
        "Events wait for a decision: too old for Batch, or sent without an answer.",
        "Decide with --retry-held or --discard-held; see `connector rejects SYNC`.",
    ),
    "closing": Meaning(
        "Batch takes the oldest event that was not sent for a while only: 24 hours from its time.",
        "Decide, or run again, before the time that is named.",
    ),
    "too_old": Meaning(
        "Events became too old for Batch while they waited to be sent.",
        "They are held; run more often, or set late: restamp.",
    ),
    "outage": Meaning(
        "No request succeeded for longer than delivery.give_up_after.",
        "Look whether Batch can be reached, and run again.",
    ),
    "unanswered": Meaning(
        "A chunk, or several in a row, got no answer that tells whether it was applied.",
        "Run again later: profiles are due by themselves, events are held where on_unknown says so.",
    ),
    "untrusted": Meaning(
        "Several answers in a row look like success, in words that cannot be trusted.",
        "Look for a proxy between the connector and Batch; the rows are due.",
    ),
    "pending": Meaning(
        "Batch has not made the export yet, or does not answer.", "Run again: it goes on with the same export."
    ),
    "quarantined": Meaning(
        "Lines of an export are no rows; the others were loaded.", "See `connector rejects SYNC` for their places."
    ),
    "drift": Meaning(
        "Batch lost profiles, or holds attributes otherwise than they were delivered.",
        "Look at by_attribute; `connector reconcile SYNC --heal` makes them due.",
    ),
}
"""Why a run is incomplete: `codes` in its answer, in the order of `reasons`."""

CODES: dict[str, Meaning] = OUTCOMES | ERRORS | {str(code): meaning for code, meaning in REASONS.items()}
