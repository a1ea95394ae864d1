"""Ids in Batch's shape: a prefix and 32 characters, the same for the same seed."""

import base64
import hashlib

_ALPHABET = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", b"0123456789abcdefghjkmnpqrstvwxyz")


def made_id(prefix: str, *seed: object) -> str:
    """Such as `export_` and 32 characters of Batch's alphabet."""
    return prefix + base64.b32encode(_digest(seed, 20)).translate(_ALPHABET).decode()


def made_hex(*seed: object) -> str:
    """32 hexadecimal digits."""
    return _digest(seed, 16).hex()


def _digest(seed: tuple[object, ...], size: int) -> bytes:
    return hashlib.blake2b("\n".join(map(str, seed)).encode(), digest_size=size).digest()
