"""
The limits of the service, with their defaults.  Each is an option of the command line.
"""

from __future__ import annotations

from attrs import frozen

KIB = 1024
MIB = 1024 * KIB


@frozen
class Limits:
    """
    What one client may ask for, and for how long.

    The delivery deadline and its grace together stay below the 300 seconds after which the least
    patient clients give up (Postfix waits 600): a reply that comes later makes a duplicate.
    """

    #: Octets of a command line, CRLF included (RFC 5321 §4.5.3.1.4 asks for 512 at least).
    command_line: int = 4096
    #: Octets of a message as the client sends it, announced with SIZE (RFC 1870).
    message_size: int = 64 * MIB
    #: Accepted recipients of a transaction (RFC 5321 §4.5.3.1.8 asks for 100 at least).
    recipients: int = 10_000
    #: Connections at the same time.
    connections: int = 10_000
    #: Refused commands on a connection before 421; refused recipients do not count.
    errors: int = 20
    #: Seconds that a client may say nothing (RFC 5321 §4.5.3.2.7 asks for 300 at least).
    idle_seconds: float = 600.0
    #: Seconds that finding out about one recipient may take.
    lookup_seconds: float = 60.0
    #: Seconds from the end of the text to the moment when open deliveries are cancelled.
    delivery_seconds: float = 240.0
    #: Further seconds for those that had begun to commit.
    grace_seconds: float = 30.0
    #: Seconds that transactions in flight get when the service stops.
    stop_seconds: float = 30.0
    #: Octets of a message that are kept in memory before it goes to a file.
    spool_memory: int = 256 * KIB
