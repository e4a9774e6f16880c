"""
Internationalised domains: ``bücher.example`` and ``xn--bcher-kva.example`` are one (RFC 5890 §2.3.2).

Addresses keep the form in which they were said.  What is compared, looked up or made part of a path
is the form that DNS has, A-labels: one domain, one mailbox.  A domain in ASCII is that already, and
costs nothing.
"""

from __future__ import annotations

from functools import lru_cache
from unicodedata import normalize

import idna


def ascii_domain(domain: str) -> str:
    """
    *domain*, its labels that are not ASCII as A-labels.

    One that IDNA does not know (☃.example) stays as it is, in lower case and NFC.
    """
    return domain if domain.isascii() else _to_ascii(domain)


def unicode_domain(domain: str) -> str:
    """
    *domain*, its A-labels as U-labels, as far as they are good ones.
    """
    return _to_unicode(domain) if "xn--" in domain else domain


def with_ascii_domain(address: str) -> str:
    """
    *address*, ``local@domain`` or anything else, with the former's domain as `ascii_domain`.
    """
    if address.isascii():
        return address
    local, at, domain = address.rpartition("@")
    return f"{local}{at}{ascii_domain(domain)}"


@lru_cache(maxsize=1024)
def _to_ascii(domain: str) -> str:
    composed = normalize("NFC", domain.lower())
    # Nothing is mapped, such as full width to ASCII (RFC 5895): that is for what people type, and an
    # address that only looks like another is another.
    try:
        return ".".join(map(_a_label, composed.split(".")))
    except idna.IDNAError:
        return composed


def _a_label(label: str) -> str:
    return label if label.isascii() else idna.alabel(label).decode()


@lru_cache(maxsize=1024)
def _to_unicode(domain: str) -> str:
    said = ".".join(map(_u_label, domain.split(".")))
    return said if ascii_domain(said) == domain else domain


def _u_label(label: str) -> str:
    if not label.startswith("xn--"):
        return label
    try:
        return idna.ulabel(label)
    except idna.IDNAError:
        return label
