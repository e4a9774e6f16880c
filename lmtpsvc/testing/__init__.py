"""
What tests are written with: of a backend, messages without a server, and the contract; of an
application that sends mail, a server that keeps it.

`BackendContract` and `CrashContract` are tests to be inherited.
"""

from .contract import BackendContract
from .crash import CrashContract
from .message import MemoryMessage, envelope
from .postbox import BlockingPostbox, Hold, Mail, Postbox

__all__ = [
    "BackendContract",
    "BlockingPostbox",
    "CrashContract",
    "Hold",
    "Mail",
    "MemoryMessage",
    "Postbox",
    "envelope",
]
