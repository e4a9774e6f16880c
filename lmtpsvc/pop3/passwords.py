"""
Passwords in a file, but not as they are typed: for `twisted.cred.checkers.FilePasswordDB`.

``python -m lmtpsvc.pop3.passwords ann@example.org`` asks for a password and prints the line.
"""

from __future__ import annotations

import os
import sys
from base64 import b64decode, b64encode
from binascii import Error
from getpass import getpass
from hashlib import scrypt
from hmac import compare_digest
from typing import Final

#: 16 MiB and some tens of milliseconds a try (RFC 7914 §2).
_COST: Final = {"n": 2**14, "r": 8, "p": 1}
_NAME: Final = b"{scrypt}"


def stored(password: bytes, salt: bytes | None = None) -> bytes:
    """
    What stands in the file for *password*.
    """
    salt = os.urandom(16) if salt is None else salt
    return _NAME + b64encode(salt) + b"$" + b64encode(scrypt(password, salt=salt, **_COST))


def scrypted(user: bytes, password: bytes, known: bytes) -> bytes:
    """
    *known*, which stands in the file, if *password* is right, else something else: give this as
    *hash* to a ``FilePasswordDB``.
    """
    # Not empty, as the password of a line that somebody has not finished is.
    wrong = known + b"!"
    salt, dollar, _ = known.removeprefix(_NAME).partition(b"$")
    try:
        right = stored(password, b64decode(salt, validate=True))
    except Error:
        return wrong
    if not known.startswith(_NAME) or not dollar or not compare_digest(right, known):
        return wrong
    return right


if __name__ == "__main__":
    [_, name] = sys.argv
    typed = getpass(f"Password of {name}: ").encode()
    sys.stdout.write(f"{name}:{stored(typed).decode()}\n")
