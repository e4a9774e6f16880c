"""
Numbers as operators write them: ``64M``, ``5m``; and back.
"""

from __future__ import annotations

import re

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

_OCTETS = {"": 1, "K": KIB, "M": MIB, "G": GIB}
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}

_octets = re.compile(r"([0-9]+)([KMG]?)", re.IGNORECASE | re.ASCII).fullmatch
_seconds = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)", re.ASCII).fullmatch


def octets(text: str) -> int:
    """
    Read a number of octets: ``4096``, ``256K``, ``64M`` or ``1G``.

    Raises:
        ValueError: It is none, or zero.
    """
    match = _octets(text)
    number = int(match[1]) * _OCTETS[match[2].upper()] if match else 0
    if number < 1:
        raise ValueError(f"{text!r} is not a number of octets; write 4096, 256K, 64M or 1G")
    return number


def count(text: str) -> int:
    """
    Read a number of things, at least one.

    Raises:
        ValueError: It is none.
    """
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ValueError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def seconds(text: str) -> float:
    """
    Read a time: ``300``, ``90s``, ``5m``, ``1h`` or ``5d``.

    Raises:
        ValueError: It is none, or zero.
    """
    match = _seconds(text)
    number = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if number <= 0:
        raise ValueError(f"{text!r} is not a time; write 300, 90s, 5m or 1h")
    return number


def shown(value: float) -> str:
    """
    A number of octets, things or seconds in the shortest form that is read back as the same.
    """
    if isinstance(value, int):
        for letter, unit in (("G", GIB), ("M", MIB), ("K", KIB)):
            if value >= 64 * KIB and value % unit == 0:
                return f"{value // unit}{letter}"
    return f"{value:.15g}"
