"""
The forward backend: LMTP in, LMTP or SMTP out.

Recipients with the same destination share a transaction there, and each reply travels back the moment
it arrives: a slow node keeps nobody waiting but its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, BinaryIO, Final

from attrs import evolve
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ..client import Delivery, Dialect, Outcome, Stage, address
from ..envelope import UNKNOWN_HOST, Address, Mailbox, Recipient, Sender
from ..errors import DeliveryError, refusal
from ..interfaces import Capabilities, IBackend, IMessage, ITellsWhere
from ..outgoing.destination import destination
from ..replies import (
    BAD_MAILBOX,
    CANNOT_LOOK_UP,
    INTERNAL_ERROR,
    LOOP,
    NEEDS_TLS,
    OUT_OF_TIME,
    STORE_UNREACHABLE,
    PassedOn,
    Reply,
)
from ..response_codes import MAILDATA, read
from .forward_breaker import Breaker
from .forward_referral import Referral, referral_in
from .forward_servers import Servers
from .forward_settings import ForwardSettings, field_in
from .forward_text import is_in_a_loop, passed_on
from .forward_wishes import policy, wishes_for_all, wishes_for_recipient

_log = Logger()

_UNREADABLE: Final = "{id}: the message cannot be read: {error}"

#: A recipient is referred on so many times at most; who goes on is in a loop.
MOST_REFERRALS: Final = 3
#: Proxies that may stand behind us, if nobody says how many (as Dovecot's do).
USUAL_TTL: Final = 5
#: Of the time that there is, the last seconds are for the way back.
MARGIN_SECONDS: Final = 5.0
#: What is on its way when the service stops has so long to arrive.  Whoever waits for the answer has
#: been waited for already.
STOP_SECONDS: Final = 20.0

_is_name = re.compile(r"[!-~]{1,253}").fullmatch
#: What tells that nobody was there.
_NOT_REACHED: Final = (Stage.CONNECT, Stage.GREETING)


class _Passenger(Deferred[Any]):
    """
    The result for one mailbox; to cancel it means to leave, if the message has not.
    """

    def __init__(self, mailbox: Mailbox, recipient: Recipient) -> None:
        super().__init__()
        self.mailbox, self.recipient = mailbox, recipient
        #: Where it has been, or is about to be.
        self.been: tuple[str, ...] = ()
        self.errand: _Errand | None = None
        self.has_left = False

    def cancel(self) -> None:
        self.has_left = True
        if self.errand is not None:
            self.errand.call_off()


class _Errand:
    """
    Some passengers on their way to one destination.
    """

    def __init__(self, passengers: Sequence[_Passenger]) -> None:
        self._passengers = passengers
        self.delivery: Delivery | None = None

    def call_off(self) -> None:
        """
        Turn back, if nobody is left and the message has not arrived.
        """
        if self.delivery is not None and all(each.has_left for each in self._passengers):
            self.delivery.cancel()


@implementer(IBackend, ITellsWhere)
class ForwardBackend(Service):
    """
    Gives mail to other servers.
    """

    def __init__(self, settings: ForwardSettings, reactor: Any) -> None:
        self._settings, self._reactor = settings, reactor
        self.capabilities = Capabilities(binary=settings.binary)
        self._seconds = IReactorTime(reactor).seconds
        self._servers = Servers(settings, reactor)
        # What is on its way.
        self._sent: set[Delivery] = set()

    def stopService(self) -> Deferred[Any]:
        """
        Fires when what is on its way has arrived, or had a while for it, and all connections are
        closed.
        """
        super().stopService()
        closed = self._servers.close()
        late = IReactorTime(self._reactor).callLater(STOP_SECONDS, self._give_up)

        def stopped(result: object) -> object:
            if late.active():
                late.cancel()
            return result

        return closed.addBoth(stopped)

    def _give_up(self) -> None:
        """
        Wait for no answer any more; who has asked for them has mostly gone before.
        """
        for each in tuple(self._sent):
            each.give_up(OUT_OF_TIME)

    def verify(self, mailbox: Mailbox) -> None:
        """
        Refuse a *mailbox* that has no destination, or one that is down.
        """
        where = self._destination(mailbox)
        _recipient(mailbox)
        if self._servers.breaker(where).is_refusing:
            raise refusal(STORE_UNREACHABLE)

    def where(self, mailbox: Mailbox) -> str:
        return self._destination(mailbox)

    def deliver(self, message: IMessage, mailboxes: Sequence[Mailbox]) -> list[Deferred[Any]]:
        """
        Send *message* to the destination of each mailbox; those that share one share a transaction.
        """
        passengers: list[_Passenger] = []
        going: dict[str, list[_Passenger]] = {}
        wrong = _wrong_with(message)
        for mailbox in mailboxes:
            passenger = _Passenger(mailbox, Recipient(_UNKNOWN))
            passengers.append(passenger)
            try:
                if wrong is not None:
                    raise refusal(wrong)
                passenger.recipient = _recipient(mailbox)
                if wishes := wishes_for_recipient(message, mailbox):
                    passenger.recipient = evolve(passenger.recipient, parameters=wishes)
                going.setdefault(self._destination(mailbox), []).append(passenger)
            except DeliveryError as error:
                passenger.errback(error)
        dialect = self._settings.dialect
        groups = [(Referral(where, dialect), group) for where, group in going.items()]
        if self._settings.maildata and message.is_for_all and len(groups) > 1:
            self._send_sharing(message, groups)
        else:
            for to, group in groups:
                self._send(message, to, group)
        return list(passengers)

    def _send_sharing(
        self, message: IMessage, groups: list[tuple[Referral, list[_Passenger]]]
    ) -> None:
        """
        Send to the first; to the others once it has said where its copy lies, or will not say.
        """
        (first, passengers), *others = groups
        left = [others]

        def go_on(token: str | None) -> None:
            for to, group in left.pop() if left else []:
                if token is not None:
                    for each in group:
                        wishes = {**each.recipient.parameters, MAILDATA: token}
                        each.recipient = evolve(each.recipient, parameters=wishes)
                self._send(message, to, group)

        def heard(outcome: Outcome) -> Outcome:
            tokens = [code.value for code in outcome.codes if code.name == MAILDATA]
            if tokens and outcome.is_success:
                go_on(tokens[0])
            return outcome

        delivery = self._send(message, first, passengers)
        if delivery is None:
            go_on(None)
            return
        for each in delivery.outcomes:
            each.addCallback(heard)
        delivery.as_deferred().addCallback(lambda _: go_on(None))

    def _send(
        self, message: IMessage, to: Referral, passengers: list[_Passenger]
    ) -> Delivery | None:
        """
        Send *message* to one destination; None if there is nothing to wait for.
        """
        passengers = [each for each in passengers if not _has_ended(each)]
        left = message.deadline - self._seconds() - MARGIN_SECONDS
        breaker = self._servers.breaker(to.destination)
        refused: Reply | None = None
        if left <= 0:
            refused = OUT_OF_TIME
        elif not breaker.may_try():
            refused = STORE_UNREACHABLE
        if refused is not None or not passengers:
            for each in passengers:
                each.errback(refusal(refused or OUT_OF_TIME))
            return None
        try:
            text, size = passed_on(message)
        except OSError as error:
            _log.error(_UNREADABLE, id=message.id, error=error)
            for each in passengers:
                each.errback(refusal(INTERNAL_ERROR))
            return None
        errand = _Errand(passengers)
        try:
            delivery = self._servers.client(
                to, policy(message, to.destination, self._settings.tls)
            ).send(
                self._sender(message),
                [each.recipient for each in passengers],
                text,
                body=message.envelope.sender.parameters.get("BODY"),
                size=size,
                seconds=left,
                smtputf8=message.envelope.sender.smtputf8,
                xclient=self._introduction(message, left),
            )
        except ValueError as error:
            text.close()
            _log.error(
                "{id}: cannot be sent to {where}: {error}",
                id=message.id,
                where=to.destination,
                error=error,
            )
            for each in passengers:
                each.errback(refusal(INTERNAL_ERROR))
            return None
        errand.delivery = delivery
        self._sent.add(delivery)
        for each, outcome in zip(passengers, delivery.outcomes, strict=True):
            each.errand = errand
            each.been = (*each.been, to.destination)
            outcome.addCallback(self._arrived, each, message, to.dialect)
        arrived = delivery.as_deferred().addCallback(partial(self._is_over, delivery))
        arrived.addCallback(partial(self._look_back, message, to.destination, breaker, text))
        arrived.addErrback(lambda failure: _log.failure("a defect in forwarding", failure))
        return delivery

    def _arrived(
        self, outcome: Outcome, passenger: _Passenger, message: IMessage, dialect: Dialect
    ) -> Outcome:
        """
        Tell *passenger* what has become of it, or send it on.
        """
        if outcome.is_success:
            passenger.callback(
                list(outcome.codes) or None
                if dialect is Dialect.LMTP
                else PassedOn(outcome.reply, _server(outcome), outcome.codes)
            )
            return outcome
        if outcome.stage is Stage.STARTTLS and message.envelope.sender.requires_tls:
            passenger.errback(refusal(NEEDS_TLS))
            return outcome
        there = referral_in(outcome) if self._settings.referrals else None
        if there is None:
            codes, text = read(outcome.reply.text)
            reply = outcome.reply
            passenger.errback(refusal(Reply(reply.code, text, reply.status, codes)))
        elif there.destination in passenger.been or len(passenger.been) > MOST_REFERRALS:
            _log.error(
                "{id}: {mailbox} is referred from {been} to {there}, and so on",
                id=message.id,
                mailbox=str(passenger.mailbox),
                been=", ".join(passenger.been),
                there=there.destination,
            )
            passenger.errback(refusal(STORE_UNREACHABLE))
        else:
            if there.user:
                passenger.recipient = _renamed(passenger.recipient, there.user)
            self._send(message, there, [passenger])
        return outcome

    def _is_over(self, delivery: Delivery, outcomes: list[Outcome]) -> list[Outcome]:
        self._sent.discard(delivery)
        return outcomes

    def _look_back(
        self,
        message: IMessage,
        where: str,
        breaker: Breaker,
        text: BinaryIO,
        outcomes: Iterable[Outcome],
    ) -> None:
        """
        All have arrived: learn whether anybody was there.
        """
        text.close()
        for outcome in outcomes:
            if outcome.heard is None and outcome.stage in _NOT_REACHED:
                if breaker.not_reached():
                    _log.error(
                        "{where} is down: mail for it is refused, and it is tried again every"
                        " {retry:g} seconds",
                        where=where,
                        retry=self._settings.retry,
                    )
                _log.info(
                    "{id}: {where}: {reply} {detail}",
                    id=message.id,
                    where=where,
                    reply=str(outcome.reply),
                    detail=outcome.detail,
                )
                return
        if breaker.reached():
            _log.info("{where} is up again", where=where)

    def _sender(self, message: IMessage) -> Sender:
        """
        Who sends it, with what we want to know of a server that trusts us.
        """
        settings = self._settings
        parameters = wishes_for_all(message, self._seconds())
        if settings.maildata and message.is_for_all:
            parameters["XRESPCODES"] = MAILDATA
        elif settings.referrals:
            parameters["XRESPCODES"] = True
        if settings.login is not None:
            # RFC 4954 §5: who wrote the message is not who has logged in.
            parameters["AUTH"] = "<>"
        return Sender(message.envelope.sender.address, parameters)

    def _introduction(self, message: IMessage, left: float) -> Mapping[str, str | None] | None:
        """
        Who our client is, and how long it waits, for a server that lets us say it.
        """
        if not self._settings.xclient:
            return None
        client = message.envelope.client
        ttl = USUAL_TTL if client.ttl is None else client.ttl - 1
        said: dict[str, str | None] = {
            "ADDR": client.host if client.host != "local" else None,
            "PORT": None if client.port is None else str(client.port),
            "HELO": client.name or None,
            "PROTO": client.protocol,
            "LOGIN": client.login or None,
            "SESSION": client.session or message.id,
            "TTL": str(ttl),
            "TIMEOUT": str(int(left)),
        }
        known = {name: value for name, value in said.items() if value is not None}
        # It is somebody, and not we: said so that the server does not take it for us.
        return {**known, "ADDR": None} if client.host == UNKNOWN_HOST else known

    def _destination(self, mailbox: Mailbox) -> str:
        """
        Where mail for *mailbox* goes.

        Raises:
            TemporaryFailure: The directory does not say on which node it is.
        """
        settings = self._settings
        if not settings.has_fields:
            return settings.destination
        values = {"node": mailbox.attributes.get("node", ""), "domain": mailbox.domain}

        def fill(found: re.Match[str]) -> str:
            value = values[found[1]]
            if not value:
                _log.error(
                    "{mailbox}: its {field} is not known", mailbox=str(mailbox), field=found[1]
                )
                raise refusal(CANNOT_LOOK_UP)
            return value

        where = field_in.sub(fill, settings.destination)
        try:
            destination(self._reactor, where)
        except ValueError as error:
            _log.error("{mailbox}: {error}", mailbox=str(mailbox), error=error)
            raise refusal(CANNOT_LOOK_UP) from error
        return where


#: Stands for a recipient that is refused before it has an address.
_UNKNOWN: Final = Address("postmaster", "")


def _wrong_with(message: IMessage) -> Reply | None:
    """
    Why *message* cannot be passed on to anybody.
    """
    try:
        return LOOP if is_in_a_loop(message) else None
    except OSError as error:
        _log.error(_UNREADABLE, id=message.id, error=error)
        return INTERNAL_ERROR


def _recipient(mailbox: Mailbox) -> Recipient:
    """
    Whom the mail is for, as an address.

    Raises:
        PermanentFailure: It cannot be one.
    """
    user = f"{mailbox.user}+{mailbox.detail}" if mailbox.detail else mailbox.user
    said = Address(user, mailbox.domain)
    try:
        return Recipient(address(str(said)))
    except ValueError as error:
        raise refusal(BAD_MAILBOX) from error


def _renamed(recipient: Recipient, user: str) -> Recipient:
    """
    *recipient* under the name that a referral has for it.
    """
    try:
        return evolve(
            recipient,
            address=address(user if "@" in user else f"{user}@{recipient.address.domain}"),
        )
    except ValueError:
        return recipient


def _server(outcome: Outcome) -> str:
    """
    What the next server calls itself, if that is a name.
    """
    return outcome.server if _is_name(outcome.server) else ""


def _has_ended(passenger: _Passenger) -> bool:
    if passenger.called:
        return True
    if passenger.has_left:
        passenger.errback(refusal(OUT_OF_TIME))
        return True
    return False
