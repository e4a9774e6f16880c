"""
Names for ``twistd``, and nothing else.
"""

from lmtpsvc.plugins import BackendPlugin
from tickets.backend import Tickets

tickets = BackendPlugin("tickets", Tickets)
