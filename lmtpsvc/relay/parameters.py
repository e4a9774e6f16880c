"""
ESMTP parameters as the queue keeps them: JSON, and back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ..envelope import NO_PARAMETERS, DeliverBy, OriginalRecipient, ValidSince


def dump(parameters: Mapping[str, Any]) -> str:
    """
    *parameters* of a Sender or Recipient as JSON.  Those that only concern one conversation, and
    SIZE, which is counted, are left out.
    """
    kept = {name: value for name, value in parameters.items() if name not in _OF_ONE_CONVERSATION}
    return json.dumps(kept, default=_plain, sort_keys=True) if kept else ""


def load(text: str) -> Mapping[str, Any]:
    """
    What `dump` has made of them.
    """
    if not text:
        return NO_PARAMETERS
    parameters = json.loads(text)
    return {
        name: _READ[name](value) if name in _READ else value for name, value in parameters.items()
    }


_OF_ONE_CONVERSATION = frozenset({"SIZE", "AUTH", "XRESPCODES", "MAILDATA", "PRDR"})


def _plain(value: object) -> object:
    match value:
        case frozenset():
            return sorted(value)
        case OriginalRecipient():
            return [value.type, value.address]
        case DeliverBy():
            return [value.seconds, value.is_returned, value.is_traced]
        case ValidSince():
            return [value.moment.isoformat(), value.otherwise]
    raise TypeError(f"a parameter that the queue cannot keep: {value!r}")


_READ: Mapping[str, Any] = {
    "NOTIFY": frozenset,
    "ORCPT": lambda said: OriginalRecipient(*said),
    "BY": lambda said: DeliverBy(*said),
    "RRVS": lambda said: ValidSince(datetime.fromisoformat(said[0]), said[1]),
}
