"""
The rules of RFC 5321 §4.1.2 and §4.1.3 that LMTP needs, as regular expressions on str.

Each name is the rule's name in the RFC.  Where we differ, a comment says why.  Text that is not
ASCII must pass `is_printable` besides: regular expressions do not know what a character is for.

A line may be thousands of octets long and comes from a stranger, so no rule may backtrack in more
than one way: what is repeated never begins with what may stand before it.
"""

# ruff: noqa: N816 - the names are the RFC's.

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address

# RFC 6531 §3.3 adds UTF8-non-ascii to atext, qtextSMTP and esmtp-value, and U-label to sub-domain.
# The C1 controls and the no-break space stay out.  A class says what is not in it, since one that goes
# up to U+10FFFF is slow to compile: those of this file would take a sixth of each start.
not_text = r"\x00-\x1f\x7f-\xa0"

# RFC 5322 §3.2.3
atext = rf'[^ "(),.:;<>@\[\\\]{not_text}]'
Dot_string = rf"{atext}+(?:\.{atext}+)*"

# Printable only, so no CR, LF or NUL reaches the name of a mailbox.
qtextSMTP = rf'[^"\\{not_text}]'
quoted_pairSMTP = r"\\[ -~]"
Quoted_content = rf"{qtextSMTP}*(?:{quoted_pairSMTP}{qtextSMTP}*)*"

# The RFC has no underscore here.  Hosts and sender domains with one are out there, and a message
# that has come as far as LMTP is not helped by a lesson in grammar.
Let_dig = rf"[^ -/:-@\[-^`{{-~{not_text}]"
sub_domain = rf"{Let_dig}+(?:-+{Let_dig}+)*"
Domain = rf"{sub_domain}(?:\.{sub_domain})*"

# RFC 5321 §4.1.3; `is_ip_literal` looks inside.
dcontent = r"[!-Z^-~]"
address_literal = rf"\[{dcontent}+\]"

# RFC 5321 §4.1.1.3 and appendix C: a source route is accepted, and dropped.
At_domain = rf"@{Domain}"
A_d_l = rf"{At_domain}(?:,{At_domain})*"

# The groups: local part, or what stands between its quotes; domain, or address literal.
Mailbox = rf'(?:({Dot_string})|"({Quoted_content})")@(?:({Domain})|({address_literal}))'
Path = rf"(?:{A_d_l}:)?{Mailbox}"

# RFC 5321 §4.1.2: the groups are esmtp-keyword and esmtp-value.
esmtp_keyword = r"[A-Za-z0-9][A-Za-z0-9-]*"
esmtp_value = rf"[^ ={not_text}]+"

#: RFC 5321 §4.5.3.1.1 says 64 octets, and asks for no limit where that can be.  VERP and
#: SRS senders are longer as a rule.  What no file name or column could hold is refused.
MAX_LOCAL_PART = 256

#: RFC 5321 §4.5.3.1.2, in octets.
MAX_DOMAIN = 255

match_path = re.compile(Path).fullmatch
match_domain = re.compile(Domain).fullmatch
match_keyword = re.compile(esmtp_keyword).fullmatch
match_value = re.compile(esmtp_value).fullmatch

_undo_quoted_pair = re.compile(r"\\(.)").sub


def is_printable(text: str) -> bool:
    """
    Whether *text* has no control, formatting, private or unassigned character, and no white space
    but SP.

    Among the formatting characters are those that turn the direction of writing, with which one
    address can be made to look like another.  The two joiners are allowed: Persian and the scripts
    of India need them (RFC 5892 appendix A).
    """
    return text.replace("\u200c", "").replace("\u200d", "").isprintable()


def unquote(content: str) -> str:
    """
    What the *content* of a Quoted-string means (RFC 5321 §4.1.2).
    """
    return _undo_quoted_pair(r"\1", content) if "\\" in content else content


def is_ip_literal(literal: str) -> bool:
    """
    Whether ``[...]`` holds an IPv4 or IPv6 address that exists (RFC 5321 §4.1.3).

    A General-address-literal has a tag that is registered, and ``IPv6`` is the only one.  To take
    another would be to take ``[2001:db8::1]`` for one with the tag 2001.
    """
    inside = literal[1:-1]
    try:
        if inside[:5].upper() != "IPV6:":
            IPv4Address(inside)
        elif "%" in inside:
            # A zone (fe80::1%eth0) is no part of the RFC's IPv6-addr, and means nothing elsewhere.
            return False
        else:
            IPv6Address(inside[5:])
    except AddressValueError:
        return False
    return True
