from pathlib import Path

import pytest

from connector._model import EnvSecret
from connector.config import load_project
from connector.warehouses.snowflake import Snowflake
from tests.config.conftest import MAIN, SECRET, Write, the_problem

PASSWORD = "password: {env: SNOWFLAKE_PASSWORD}"
ACCOUNT = "account: my-account, user: loader"

WHOLE = """
  by_file: {type: snowflake, connection_name: prod, role: READER, warehouse: WH, database: D, schema: S}
  by_password: {type: snowflake, account: my-account, user: loader, password: {env: SNOWFLAKE_PASSWORD}}
  by_key: {type: snowflake, account: a, user: u, private_key_file: k.p8, private_key_passphrase: {file: pass}}
  by_token: {type: snowflake, account: a, user: u, token: {file: t}, authenticator: programmatic_access_token}
  by_oauth: {type: snowflake, account: a, token: {env: T}, authenticator: oauth}
  by_cloud: {type: snowflake, account: a, workload_identity_provider: AWS}
  by_oidc: {type: snowflake, account: a, workload_identity_provider: OIDC, token: {file: t}}
  here: {type: snowflake, account: a, user: u, password: {env: P}, host: 127.0.0.1, port: 8080, protocol: http}
  slow: {type: snowflake, connection_name: prod, statement_timeout: 2h}
"""

BROKEN = {
    "no way in": ("⟪snow: {}", "needs connection_name, or account and a way to log in"),
    "no credentials": (
        f"⟪snow: {{{ACCOUNT}}}",
        "needs exactly one of password, private_key_file, token, workload_identity_provider, got none",
    ),
    "two credentials": (
        f"⟪snow: {{{ACCOUNT}, {PASSWORD}, private_key_file: k}}",
        "got password and private_key_file; keep one",
    ),
    "literal password": (
        f"snow: {{{ACCOUNT}, password: ⟪{SECRET}}}",
        "snow.password: must be {env: NAME} or {file: PATH}, got text; a secret never stands in the file",
    ),
    "literal token": (
        f"snow: {{{ACCOUNT}, token: ⟪{SECRET}, authenticator: oauth}}",
        "snow.token: must be {env: NAME} or {file: PATH}",
    ),
    "secret for a key": (
        f"snow: {{connection_name: c, ⟪{SECRET}: x}}",
        "snow: unknown key; allowed here: account, auth",
    ),
    "account twice": (
        "snow: {connection_name: c, account: ⟪a}",
        "snow.account: the connection of connections.toml gives account; keep one of the two",
    ),
    "host twice": ("snow: {connection_name: c, host: ⟪h}", "the connection of connections.toml gives host"),
    "address for an account": (
        f"snow: {{account: ⟪https://a.snowflakecomputing.com, user: u, {PASSWORD}}}",
        "snow.account: must be the account's identifier, such as myorg-myaccount",
    ),
    "no user": (f"⟪snow: {{account: a, {PASSWORD}}}", "snow: needs user"),
    "token of no kind": (f"⟪snow: {{{ACCOUNT}, token: {{env: T}}}}", "token and authenticator (oauth or"),
    "authenticator without token": (f"⟪snow: {{{ACCOUNT}, {PASSWORD}, authenticator: oauth}}", "need each other"),
    "other authenticator": (
        f"snow: {{{ACCOUNT}, authenticator: ⟪externalbrowser}}",
        "snow.authenticator: must be oauth or programmatic_access_token, got 'externalbrowser'",
    ),
    "identity without token": ("⟪snow: {account: a, workload_identity_provider: OIDC}", "OIDC needs a token"),
    "identity and token": (
        "⟪snow: {account: a, workload_identity_provider: AWS, token: {env: T}, authenticator: oauth}",
        "got token and workload_identity_provider; keep one",
    ),
    "passphrase of nothing": (
        f"snow: {{{ACCOUNT}, {PASSWORD}, ⟪private_key_passphrase: {{env: P}}}}",
        "snow.private_key_passphrase: belongs to a private_key_file; remove it",
    ),
    "plain http": (
        f"snow: {{{ACCOUNT}, {PASSWORD}, host: db.example.com, protocol: ⟪http}}",
        "snow.protocol: must be https; http is for a host on this machine only",
    ),
    "no host for http": (f"snow: {{{ACCOUNT}, {PASSWORD}, protocol: ⟪http}}", "snow.protocol: must be https"),
    "timeout": (
        "snow: {connection_name: c, statement_timeout: ⟪30d}",
        "snow.statement_timeout: must be from 1s to 7d, such as 1h",
    ),
    "port": (f"snow: {{{ACCOUNT}, {PASSWORD}, port: ⟪0}}", "snow.port: must be at least 1, got 0"),
    "misspelt": ("snow: {connection_name: c, ⟪shema: s}", "unknown key 'shema'; did you mean 'schema'?"),
    "another type's key": ("snow: {connection_name: c, ⟪path: s}", "unknown key; allowed here: account, authenticator"),
}


def test_each_way_to_log_in_is_understood(write: Write) -> None:
    """What the README shows is what the file may hold."""
    warehouses = load_project(write({"connector.yaml": MAIN + WHOLE})).settings.warehouses
    assert set(warehouses) == {"local", *(line.split(":")[0].strip() for line in WHOLE.strip().splitlines())}
    by_file, by_password = warehouses["by_file"], warehouses["by_password"]
    assert isinstance(by_file, Snowflake)
    assert isinstance(by_password, Snowflake)
    assert by_file.schema_ == "S"
    assert by_file.kind() == "snowflake"
    assert by_password.password == EnvSecret(env="SNOWFLAKE_PASSWORD")


@pytest.mark.parametrize("case", BROKEN)
def test_what_does_not_go_together_is_told_at_its_place(case: str, tmp_path: Path) -> None:
    """A mistake in a Snowflake account is one problem at its place, with what is allowed, and shows no secret."""
    text, words = BROKEN[case]
    message = the_problem(
        tmp_path, "connector.yaml", f"{MAIN}  {text}\n".replace("snow: {", "snow: {type: snowflake, ")
    )
    assert words in message
    assert message.startswith("warehouses.snow")
