"""
The file of users and keys.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lmtpsvc.auth.stored_keys import KeysFile, format_line, is_password, make_keys, parse

from ..rows import each_row

KEYS = make_keys("secret", 4096, b"0123456789abcdef")
LINE = format_line("ann", KEYS)

# `user` with the password `pencil`: the salt of RFC 7677 §3, the line that PostgreSQL has for it.
PENCIL = (
    "user:SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
    "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)


class TestKeys:
    @pytest.mark.parametrize(
        ("password", "right"),
        [("secret", True), ("Secret", False), ("", False), ("sec\0ret", False)],
    )
    def test_password(self, password: str, right: bool) -> None:
        """
        Keys tell their own password from any other.
        """
        assert right == is_password(password, KEYS)

    def test_prepared(self) -> None:
        """
        RFC 4013: the same letters, however they were typed.
        """
        keys = make_keys("I\u00adX\u2168", 4096)

        assert is_password("IXIX", keys)

    def test_of_the_rfc(self) -> None:
        """
        RFC 7677 §3: what the user with the pencil has.
        """
        [(user, keys)] = parse(PENCIL)

        assert "user" == user
        assert is_password("pencil", keys)

    def test_salt(self) -> None:
        """
        Two with the same password do not look alike.
        """
        assert make_keys("x").salt != make_keys("x").salt

    def test_no_password(self) -> None:
        """
        What no client could say is no password.
        """
        with pytest.raises(ValueError, match="not a password"):
            make_keys("a\0b")


class TestParse:
    def test_lines(self) -> None:
        """
        Comments and empty lines are left out, and a name may have a blank in it.
        """
        text = f"# Logins\n\n{LINE}\n{format_line('a b@x', KEYS)}\n"

        assert {"ann": KEYS, "a b@x": KEYS} == dict(parse(text))

    @each_row(
        ("text", "said"),
        [
            ("ann:secret", "line 1: expected user:SCRAM-SHA-256$…, as lmtpsvc passwd writes it"),
            (f"{LINE}\nann", "line 2: expected user:"),
            (f"{LINE}\n{LINE}", "line 2: ann is there twice"),
            (LINE.replace("=", "!"), "line 1: expected user:"),
            (LINE.replace("4096", "4095"), "line 1: 4095 iterations; at least 4096"),
            (LINE.replace("4096", "999999999"), "line 1: 999999999 iterations; at least 4096"),
            (LINE.replace("SHA-256", "SHA-1"), "line 1: expected user:"),
            (LINE[:-20], "line 1: expected user:"),
            ("ann:SCRAM-SHA-256$4096:AAAA$AAAA:AAAA", "line 1: expected user:"),
            (f":{LINE.partition(':')[2]}", "line 1: expected user:"),
        ],
    )
    def test_broken(self, text: str, said: str) -> None:
        """
        A line that is none is told with its number, and what is wrong with it.
        """
        with pytest.raises(ValueError) as raised:
            dict(parse(text))
        assert str(raised.value).startswith(said)


class TestFile:
    def test_found(self, tmp_path: Path) -> None:
        """
        A name in the file has the keys of its line.
        """
        path = tmp_path / "logins"
        path.write_text(LINE)

        assert KEYS == KeysFile(str(path)).find("ann")

    def test_unknown(self, tmp_path: Path) -> None:
        """
        Somebody who does not exist has keys too, the same each time and in each process, of which
        only who knows the file can tell that they are none.
        """
        path = tmp_path / "logins"
        path.write_text(LINE)
        file = KeysFile(str(path))
        bob, eve = file.find("bob"), file.find("eve")

        assert not bob.is_known
        assert bob == file.find("bob") == KeysFile(str(path)).find("bob")
        assert bob.salt != eve.salt
        assert (len(KEYS.salt), KEYS.iterations) == (len(bob.salt), bob.iterations)

    def test_unknown_among_many(self, tmp_path: Path) -> None:
        """
        Nothing about made up keys is as nobody else's are: neither their salt nor their iterations.
        """
        path = tmp_path / "logins"
        looks = [(16, 4096), (32, 15_000), (24, 5000)]
        made = (make_keys("x", iterations, b"s" * octets) for octets, iterations in looks)
        path.write_text("".join(f"{format_line(str(at), keys)}\n" for at, keys in enumerate(made)))
        file = KeysFile(str(path))

        found = [file.find(f"nobody{each}") for each in range(100)]

        assert set(looks) == {(len(each.salt), each.iterations) for each in found}

    def test_empty(self, tmp_path: Path) -> None:
        """
        In an empty file, nobody is known.
        """
        (tmp_path / "logins").touch()

        assert not KeysFile(str(tmp_path / "logins")).find("ann").is_known

    def test_changed(self, tmp_path: Path) -> None:
        """
        A file that has changed is read again.
        """
        path = tmp_path / "logins"
        path.write_text(LINE)
        file = KeysFile(str(path))

        path.write_text(f"{LINE}\n{format_line('bob', KEYS)}\n")

        assert file.find("bob").is_known

    def test_gone(self, tmp_path: Path) -> None:
        """
        Without the file, nobody knows; that is not the same as a wrong password.
        """
        path = tmp_path / "logins"
        path.write_text(LINE)
        file = KeysFile(str(path))
        path.unlink()

        with pytest.raises(FileNotFoundError):
            file.find("ann")

    def test_same_size(self, tmp_path: Path) -> None:
        """
        A file that another has been moved over is another.
        """
        path, other = tmp_path / "logins", tmp_path / "other"
        path.write_text(LINE)
        file = KeysFile(str(path))
        found = path.stat()
        other.write_text(LINE.replace("ann", "bob"))
        os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
        other.rename(path)

        assert file.find("bob").is_known
