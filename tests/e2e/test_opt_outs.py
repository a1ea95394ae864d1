"""`respect_opt_out`: who has unsubscribed at Batch is not subscribed again behind their back."""

from pathlib import Path

import httpx
import pytest

from connector.config import load_project
from connector.errors import ConfigError
from connector.report import AnyReport
from connector.sync import Options, run_sync
from tests.world import World

EVERYBODY = ["ada", "bob", "cem"]
REACHABILITY = "kind: export\nwarehouse: local\nexport: reachability\ntable: batch.reachability\n"
ATTRIBUTES = "kind: export\nwarehouse: local\nexport: attributes\nattributes: [{names}]\ntable: batch.consent\n"


class Shop(World):
    """Three people who are all subscribed, by the warehouse and at Batch."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, other_rate=None, export_seconds=0.0)
        self.configure(
            limits="{update: {per_second: 1000000, burst: 1000000, per_call: 200}, other: {per_second: 1000}}"
        )
        self.sql("create table customers (custom_id text, email text, news text, sms text, plan text)")
        for name in EVERYBODY:
            self.sql(
                "insert into customers values (?, ?, 'subscribed', 'subscribed', 'gold')", name, f"{name}@example.org"
            )
        self.respecting()

    def respecting(self, **keys: str) -> None:
        """The sync, with what it sends."""
        sent = "{$email_address: email, $email_marketing: news, plan: plan}"
        guard = "{max_changed: 100%}"
        self.sync(**({"attributes": sent, "respect_opt_out": "true", "guard": guard} | keys))

    def export(self, text: str, name: str = "consent_export") -> None:
        (self.folder / "syncs" / f"{name}.yaml").write_text(text)

    def pull(self, name: str = "consent_export") -> AnyReport:
        return run_sync(load_project(self.folder), name, Options(), transport=httpx.ASGITransport(app=self.api.app))

    def unsubscribe(self, name: str, state: str = "unsubscribed") -> None:
        self.api.alter(name, {"$email_marketing": state})

    def consent(self, name: str) -> object:
        return self.held()[name].get("$email_marketing")


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.mark.parametrize(
    "text", [REACHABILITY, ATTRIBUTES.format(names="$email_marketing")], ids=["events", "snapshot"]
)
def test_whoever_unsubscribed_at_batch_is_not_subscribed_again(shop: Shop, text: str) -> None:
    """Even a run that sends everything again leaves the opt-out alone, says how many, and sends the rest of the row."""
    shop.respecting(respect_opt_out="false")
    assert shop.run().outcome == "green"
    shop.unsubscribe("ada")
    shop.export(text)
    assert shop.pull().outcome == "green"
    shop.respecting()
    shop.sql("update customers set plan = 'silver'")
    report = shop.run(resend=True)
    assert (report.outcome, report.accepted, report.opted_out, report.withheld) == ("green", 3, 1, 0)
    assert [shop.consent(name) for name in EVERYBODY] == ["unsubscribed", "subscribed", "subscribed"]
    assert shop.held()["ada"]["plan"] == "silver"
    assert shop.run().planned == 0


def test_a_change_in_the_warehouse_does_not_subscribe_again_until_batch_does(shop: Shop) -> None:
    """The value stays back run after run, and goes once Batch's own last word is subscribed."""
    shop.sql("update customers set news = 'unsubscribed' where custom_id = 'ada'")
    shop.export(REACHABILITY)
    shop.pull()
    assert shop.run().outcome == "green"
    shop.pull()
    shop.sql("update customers set news = 'subscribed' where custom_id = 'ada'")
    for _ in range(2):
        report = shop.run()
        assert (report.outcome, report.planned, report.opted_out) == ("green", 0, 1)
    shop.unsubscribe("ada", "subscribed")
    shop.pull()
    assert (shop.run().opted_out, shop.consent("ada")) == (0, "subscribed")


def test_an_unsubscription_of_the_warehouse_always_goes(shop: Shop) -> None:
    """Only subscribing is held back."""
    shop.export(REACHABILITY)
    shop.pull()
    shop.run()
    shop.unsubscribe("bob")
    shop.pull()
    shop.sql("update customers set news = 'unsubscribed'")
    assert shop.run().opted_out == 0
    assert {shop.consent(name) for name in EVERYBODY} == {"unsubscribed"}


def test_without_a_loaded_export_nothing_is_sent(shop: Shop) -> None:
    """Not knowing who has unsubscribed is no reason to subscribe them."""
    shop.export(REACHABILITY)
    report = shop.run()
    assert report.outcome == "failed"
    assert report.error
    assert "no export that tells of $email_marketing was loaded yet" in report.error["message"]
    assert shop.sent() == []


@pytest.mark.parametrize(
    ("sent", "exported", "words"),
    [
        (
            "{$email_marketing: news, $sms_marketing: sms}",
            "$email_marketing",
            "no sync of kind export tells of $sms_marketing",
        ),
        (
            "{$email_marketing: news}",
            "plan",
            "no sync of kind export tells of $email_marketing; add one of reachability",
        ),
        ("{plan: plan}", "$email_marketing", "the sync sends neither $email_marketing nor $sms_marketing; remove it"),
    ],
)
def test_an_export_must_tell_of_every_consent_that_is_sent(shop: Shop, sent: str, exported: str, words: str) -> None:
    """An export of e-mail consent says nothing about text messages: the YAML's reading finds that out."""
    shop.respecting(attributes=sent)
    shop.export(ATTRIBUTES.format(names=exported))
    with pytest.raises(ConfigError) as raised:
        load_project(shop.folder)
    (problem,) = raised.value.problems
    assert (problem.file, words in problem.message) == ("syncs/customers.yaml", True)
    assert problem.line > 1


def test_the_later_of_two_words_counts(shop: Shop) -> None:
    """A reachability event that is newer than the loaded snapshot of attributes overrules it."""
    shop.respecting(respect_opt_out="false")
    shop.run()
    shop.export(ATTRIBUTES.format(names="$email_marketing"))
    shop.pull()
    shop.unsubscribe("cem")
    shop.export(REACHABILITY, "reachability")
    shop.pull("reachability")
    shop.respecting()
    assert shop.run(resend=True).opted_out == 1
    assert shop.consent("cem") == "unsubscribed"


def test_a_null_does_not_wipe_an_opt_out(shop: Shop) -> None:
    """At Batch a null resets the subscription: neither a null, nor clearing who left the source, sends one."""
    shop.respecting(respect_opt_out="false")
    shop.run()
    shop.unsubscribe("ada")
    shop.unsubscribe("bob")
    shop.export(REACHABILITY)
    shop.pull()
    shop.respecting(on_removed="clear", guard="{max_changed: 100%, max_removed: 100%}")
    shop.sql("update customers set news = null where custom_id = 'ada'")
    shop.sql("delete from customers where custom_id = 'bob'")
    report = shop.run()
    assert (report.outcome, report.removed, report.opted_out) == ("green", 1, 1)
    assert shop.consent("ada") == shop.consent("bob") == "unsubscribed"
    assert "plan" not in shop.held()["bob"]


@pytest.mark.parametrize("narrow", ["segment: vip\n", "identifiers: [installation_ids]\n"], ids=["segment", "ids"])
def test_an_export_that_does_not_tell_of_everybody_does_not_count(shop: Shop, narrow: str) -> None:
    """Who is not in it may have unsubscribed all the same."""
    shop.export(ATTRIBUTES.format(names="$email_marketing") + narrow)
    with pytest.raises(ConfigError):
        load_project(shop.folder)


def test_a_consent_that_was_not_asked_for_yet_is_not_known(shop: Shop) -> None:
    """The loaded export counts, not what its YAML says by now."""
    shop.respecting(respect_opt_out="false")
    shop.run()
    shop.unsubscribe("ada")
    shop.export(ATTRIBUTES.format(names="plan"))
    shop.pull()
    shop.export(ATTRIBUTES.format(names="plan, $email_marketing"))
    shop.respecting()
    report = shop.run(resend=True)
    assert report.outcome == "failed"
    assert shop.consent("ada") == "unsubscribed"
