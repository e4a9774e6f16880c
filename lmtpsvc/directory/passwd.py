"""
``passwd``: system users, as getpwnam(3) knows them.

The name service switch may ask a server across the network, so that it is asked in a thread, and
its answers are kept for a short time.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Sequence
from pwd import struct_passwd

from attrs import evolve
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.plugin import IPlugin
from zope.interface import implementer

from ..domains import ascii_domain
from ..envelope import Mailbox
from ..errors import refusal
from ..in_thread import InThread, in_pool_of
from ..interfaces import IDirectory, IDirectoryFactory
from ..quantities import seconds
from ..replies import CANNOT_LOOK_UP, NO_SUCH_USER
from . import nss

#: How long an answer is kept, "no such user" as well, if nothing else is said.
CACHE_SECONDS = 10.0
#: How many are kept: a stranger who tries names does not fill the memory.
MAX_CACHED = 10_000

#: As in /etc/login.defs: system users are below, nobody is above.
MIN_UID = 1000
MAX_UID = 60_000

# The names that useradd(8) makes, those with capitals and dots too, and long ones for LDAP.  All
# else never reaches the name service: modules there have their own ideas of "@", "\" or "/".
_is_name = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}").fullmatch


@implementer(IDirectory)
class PasswdDirectory:
    """
    System users with a uid from *min_uid* to *max_uid*, in *domains* or, if that is empty, in all.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        in_thread: InThread,
        min_uid: int = MIN_UID,
        max_uid: int = MAX_UID,
        domains: Collection[str] = (),
        look_up: Callable[[str], struct_passwd | None] = nss.look_up,
        cache_seconds: float = CACHE_SECONDS,
    ) -> None:
        self._clock, self._in_thread, self._look_up = clock, in_thread, look_up
        self._min_uid, self._max_uid = min_uid, max_uid
        self._cache_seconds = cache_seconds
        self._domains = frozenset(ascii_domain(domain.lower()) for domain in domains)
        # The oldest come first, and all are kept equally long.
        self._cache: dict[str, tuple[float, struct_passwd | None]] = {}

    def resolve(self, mailbox: Mailbox) -> Awaitable[Sequence[Mailbox]] | Sequence[Mailbox]:
        if self._domains and ascii_domain(mailbox.domain.lower()) not in self._domains:
            raise refusal(NO_SUCH_USER)
        if _is_name(mailbox.user) is None:
            raise refusal(NO_SUCH_USER)
        until, user = self._cache.get(mailbox.user, (0.0, None))
        if until > self._clock.seconds():
            return self._at_home(mailbox, user)
        return self._ask(mailbox)

    async def _ask(self, mailbox: Mailbox) -> Sequence[Mailbox]:
        name = mailbox.user
        try:
            user = await self._in_thread(lambda: self._look_up(name))
        except OSError as error:
            self._log.error("cannot look up {user}: {reason}", user=name, reason=str(error))
            raise refusal(CANNOT_LOOK_UP) from error
        if user is not None and not self._min_uid <= user.pw_uid <= self._max_uid:
            self._log.info(
                "{user} gets no mail: uid {uid} is not within {min_uid} to {max_uid}",
                user=name,
                uid=user.pw_uid,
                min_uid=self._min_uid,
                max_uid=self._max_uid,
            )
            user = None
        self._remember(name, user)
        return self._at_home(mailbox, user)

    def _remember(self, name: str, user: struct_passwd | None) -> None:
        if not self._cache_seconds:
            return
        now = self._clock.seconds()
        self._cache.pop(name, None)
        self._cache[name] = (now + self._cache_seconds, user)
        for oldest, (until, _) in list(self._cache.items())[:2]:
            if until <= now or len(self._cache) > MAX_CACHED:
                del self._cache[oldest]

    def _at_home(self, mailbox: Mailbox, user: struct_passwd | None) -> Sequence[Mailbox]:
        if user is None:
            raise refusal(NO_SUCH_USER)
        return [
            evolve(
                mailbox,
                user=user.pw_name,
                home=user.pw_dir or None,
                uid=user.pw_uid,
                gid=user.pw_gid,
            )
        ]


@implementer(IPlugin, IDirectoryFactory)
class PasswdFactory:
    """
    ``passwd``, with options.
    """

    name = "passwd"
    synopsis = "passwd[:min_uid=1000][:max_uid=60000][:domain=example.org,example.net][:cache=10]"
    help = """
        System users: those in /etc/passwd, and those of LDAP and the like that the name service
        switch (/etc/nsswitch.conf) knows.

        min_uid, max_uid: whoever has a smaller or larger uid gets no mail, so that root, the users
        of services, and nobody get none.  LDAP users may need a larger max_uid.

        domain: the domains whose users these are, with commas between them; any domain if it is
        not given.

        cache: how long an answer is kept, "no such user" as well; 0 for not at all.
    """

    def build(self, reactor: object, *words: str, **options: str) -> IDirectory:
        if words or set(options) - {"min_uid", "max_uid", "domain", "cache"}:
            raise ValueError(f"expected {self.synopsis}")
        min_uid = _uid("min_uid", options.get("min_uid", str(MIN_UID)))
        max_uid = _uid("max_uid", options.get("max_uid", str(MAX_UID)))
        if min_uid > max_uid:
            raise ValueError(f"min_uid={min_uid} is larger than max_uid={max_uid}")
        domains = [domain.strip() for domain in options.get("domain", "").split(",")]
        if "domain" in options and not all(domains):
            raise ValueError("domain= has an empty name; write domain=example.org,example.net")
        return PasswdDirectory(
            IReactorTime(reactor),
            in_pool_of(reactor),
            min_uid,
            max_uid,
            domains if "domain" in options else (),
            cache_seconds=_cache(options.get("cache", f"{CACHE_SECONDS:g}")),
        )


def _cache(value: str) -> float:
    if value == "0":
        return 0.0
    try:
        return seconds(value)
    except ValueError as error:
        raise ValueError(f"cache: {error}") from None


def _uid(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise ValueError(f"{name}={value} is not a number")
    return int(value)
