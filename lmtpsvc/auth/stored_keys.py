"""
What is kept of passwords: a file with a line for each user, as PostgreSQL writes them.

``ann:SCRAM-SHA-256$15000:SALT$STOREDKEY:SERVERKEY``, the last three in Base64.  Nobody can log in
with what stands there, but whoever reads it can try passwords.  scramp does the arithmetic.
"""

from __future__ import annotations

import os
import re
from base64 import b64encode
from binascii import Error, a2b_base64
from collections.abc import Iterator, Mapping
from hashlib import sha256
from hmac import compare_digest, digest
from typing import Final

from scramp import ScramException, ScramMechanism

from ..session.sasl import StoredKeys

#: For new passwords; RFC 7677 §4 asks for 4096 at least.
ITERATIONS: Final = 15_000
SALT_OCTETS: Final = 16
MAX_SALT_OCTETS: Final = 56
MIN_ITERATIONS: Final = 4096
#: Half a second of a processor, which each attempt costs both sides.
MAX_ITERATIONS: Final = 500_000

_mechanism: Final = ScramMechanism("SCRAM-SHA-256")
_line: Final = re.compile(
    r"([^:]+):SCRAM-SHA-256\$([0-9]{1,9}):([^$:]+)\$([^$:]+):([^$:]+)"
).fullmatch


def make_keys(password: str, iterations: int = ITERATIONS, salt: bytes | None = None) -> StoredKeys:
    """
    What to keep of *password*.

    Raises:
        ValueError: It cannot be one (RFC 4013): a control character is in it, for example.
    """
    try:
        made = _mechanism.make_auth_info(password, iterations, salt or os.urandom(SALT_OCTETS))
    except ScramException as error:
        raise ValueError(f"not a password: {error}") from error
    return StoredKeys(*made)


def is_password(password: str, keys: StoredKeys) -> bool:
    """
    Whether *keys* were made of *password*.  It takes as long as it takes to make them: not in the
    reactor thread.
    """
    try:
        tried = make_keys(password, keys.iterations, keys.salt)
    except ValueError:
        return False
    return compare_digest(tried.stored_key, keys.stored_key) and keys.is_known


def format_line(user: str, keys: StoredKeys) -> str:
    """
    The line of *user*, without its end.
    """
    salt, stored, server = (
        b64encode(each).decode() for each in (keys.salt, keys.stored_key, keys.server_key)
    )
    return f"{user}:SCRAM-SHA-256${keys.iterations}:{salt}${stored}:{server}"


class KeysFile:
    """
    The file *path*, read again when it has changed.

    Raises:
        ValueError: A line is wrong; the text says which.
        OSError: It cannot be read.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen: tuple[int, ...] = ()
        self._users: Mapping[str, StoredKeys] = {}
        self._secret = b""
        self._looks: list[tuple[int, int]] = []
        self._read()

    def find(self, user: str) -> StoredKeys:
        """
        The keys of *user*; if there is no such user, some that nobody has the password for, the same
        each time.

        Raises:
            ValueError, OSError: As when it was made.
        """
        self._read()
        keys = self._users.get(user)
        if keys is not None:
            return keys
        # Who does not know the file cannot tell these from others: they look like somebody's.
        made = digest(self._secret, user.encode(), "sha512")
        salt_octets, iterations = self._looks[int.from_bytes(made[-4:]) % len(self._looks)]
        return StoredKeys(made[:salt_octets], made[:32], made[:32], iterations, is_known=False)

    def _read(self) -> None:
        found = os.stat(self._path)
        seen = found.st_ino, found.st_size, found.st_mtime_ns
        if seen == self._seen:
            return
        with open(self._path, "rb") as file:
            octets = file.read()
        users = dict(parse(octets.decode("utf-8", "replace")))
        self._users, self._secret, self._seen = users, sha256(octets).digest(), seen
        looks = [(len(each.salt), each.iterations) for each in users.values()]
        self._looks = looks or [(SALT_OCTETS, ITERATIONS)]


def parse(text: str) -> Iterator[tuple[str, StoredKeys]]:
    """
    The users and keys in *text*, the contents of a file.  Empty lines, and those that begin with a
    number sign, are left out.

    Raises:
        ValueError: A line is none; or a user is there twice.
    """
    known: set[str] = set()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        user, keys = _parse_line(line, number)
        if user in known:
            raise ValueError(f"line {number}: {user} is there twice")
        known.add(user)
        yield user, keys


def _parse_line(line: str, number: int) -> tuple[str, StoredKeys]:
    match = _line(line)
    wrong = f"line {number}: expected user:SCRAM-SHA-256$…, as lmtpsvc passwd writes it"
    if match is None:
        raise ValueError(wrong)
    user, iterations = match[1], int(match[2])
    try:
        salt, stored, server = (a2b_base64(match[each], strict_mode=True) for each in (3, 4, 5))
    except (Error, ValueError):
        raise ValueError(wrong) from None
    if not len(stored) == len(server) == sha256().digest_size or len(salt) > MAX_SALT_OCTETS:
        raise ValueError(wrong)
    if not MIN_ITERATIONS <= iterations <= MAX_ITERATIONS:
        raise ValueError(
            f"line {number}: {iterations} iterations; at least {MIN_ITERATIONS} and at most"
            f" {MAX_ITERATIONS} will do"
        )
    return user, StoredKeys(salt, stored, server, iterations)
