"""
What a plugin author needs to test a backend: messages without a server, and the contract.

`BackendContract` and `CrashContract` are tests to be inherited.
"""

from .contract import BackendContract
from .crash import CrashContract
from .message import MemoryMessage, envelope

__all__ = ["BackendContract", "CrashContract", "MemoryMessage", "envelope"]
