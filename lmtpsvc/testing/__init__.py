"""
What a plugin author needs to test a backend: messages without a server, and the contract.
"""

from .contract import BackendContract
from .message import MemoryMessage, envelope

__all__ = ["BackendContract", "MemoryMessage", "envelope"]
