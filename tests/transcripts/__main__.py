"""
Ask any LMTP server: ``python -m tests.transcripts --target tcp:127.0.0.1:24``.
"""

# ruff: noqa: T201 - a program says what it finds.

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from .holding import BadReply, Verdict
from .reading import BrokenTranscript, read_folder
from .target import Outcome, Target, ask

HERE = Path(__file__).parent


def main(words: list[str]) -> int:
    """
    Returns the exit status: 0 if the server answers as it is written, by the first digits.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tests.transcripts",
        description="Hold the conversations of tests/transcripts/*.txt with an LMTP server.  It must"
        " know the recipients ann, bob, cat, postmaster and jörg, and not nobody and nobody2; they"
        " get mail.  Conversations that rest on choices of lmtpsvc are left out.",
    )
    parser.add_argument("--target", required=True, help="tcp:HOST:PORT, tcp:[HOST]:PORT, unix:PATH")
    parser.add_argument("--domain", default="example.org", help="the domain of the recipients")
    parser.add_argument("--only", action="append", help="a file, without .txt; may be repeated")
    parser.add_argument(
        "--strict",
        action="store_true",
        help="another code is a failure, too, and enhanced codes count",
    )
    options = parser.parse_args(words)
    try:
        target = Target.parse(options.target, options.domain)
        conversations = read_folder(HERE)
        if options.only:
            conversations = [each for each in conversations if each.group in options.only]
        outcomes = [
            _tell(outcome) for outcome in ask(target, conversations, enhanced=options.strict)
        ]
    except (BadReply, BrokenTranscript, OSError, ValueError) as error:
        print(f"{parser.prog}: {options.target}: {error}", file=sys.stderr)
        return 2
    counts = Counter(outcome.verdict for outcome in outcomes)
    print(
        f"{len(outcomes)} conversations: {counts[Verdict.SAME]} as written,"
        f" {counts[Verdict.OTHER_CODE]} with another code, {counts[Verdict.OTHER]} otherwise,"
        f" {counts[None]} not asked because their extension is not announced"
    )
    bad = counts[Verdict.OTHER] + (counts[Verdict.OTHER_CODE] if options.strict else 0)
    return 1 if bad else 0


def _tell(outcome: Outcome) -> Outcome:
    if outcome.differences and outcome.verdict is not None:
        print(f"{outcome.verdict.value}: {outcome.conversation.name}")
        for difference in outcome.differences:
            print(f"    {difference}")
    return outcome


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
