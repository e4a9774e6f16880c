from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks.__main__ import main
from benchmarks.growth import SERIES
from benchmarks.page import put
from benchmarks.runs import Idle, Limit, Results, Run
from benchmarks.tables import number, overview, render

MARKS = ("results", "growth", "other disk")


def run(server: str, point: str, rate: int, cpu: float = 1.0) -> Run:
    """
    A second with so many messages.
    """
    return Run(
        *(server, point, rate, rate, 4096, 1.0, cpu, 20.0, 15.0),
        half=0.002,
        late=0.1,
    )


@pytest.fixture
def results() -> Results:
    """
    What a short evening brings.
    """
    return Results(
        machine="a machine",
        table=[
            *(run("dovecot", "b", rate, cpu=2.0) for rate in (90, 100, 400)),
            *(run("lmtpsvc", "b", rate) for rate in (500, 600, 100)),
        ],
        limits=[Limit("b", 5000.0, 10_000.0)],
        idle=[Idle("dovecot", 500, 1200.0), Idle("lmtpsvc", 500, 6.0)],
        growth={"sessions": [run("dovecot", "1", 300), run("dovecot", "1000", 100)]},
    )


class TestTables:
    def test_overview(self, results: Results) -> None:
        """
        Medians, beside what the disk allows, and as times the first server's.
        """
        *_, line = overview(results).splitlines()

        assert (
            line == "| b: 4 KB, 10 sessions | 5,000 (50.00) | 10,000 (100.00) | 100 (1.00)"
            " | 500 (5.00) |"
        )

    def test_details(self, results: Results) -> None:
        """
        Rates, from least to most, latencies, processor and memory.
        """
        assert (
            "| lmtpsvc | 500 | 500 | 5.00 | 100 to 600 | 2.00 | 100 | 1.00 | 2.00 | 0.10 | 20.0 |"
            " 1.00 |\n"
        ) in render(results)

    def test_idle(self, results: Results) -> None:
        """
        What an idle connection costs stands in the table.
        """
        assert "| lmtpsvc | 500 | 6.0 | 0.005 |" in render(results)

    def test_growth(self, results: Results) -> None:
        """
        A line for each point.
        """
        assert "| 1,000 | 100 | 10,000 | 15.0 |" in render(results)

    def test_alone(self, results: Results) -> None:
        """
        Without Dovecot, the first server is the measure; without a disk, it is left out.
        """
        results.table = [run("lmtpsvc", "b", 500)]
        results.limits = []

        assert overview(results).splitlines()[-1] == "| b: 4 KB, 10 sessions | 500 (1.00) |"

    @pytest.mark.parametrize(
        ("value", "shown"), [(12345.6, "12,346"), (99.94, "99.9"), (1.234, "1.23"), (0.0, "0.00")]
    )
    def test_number(self, value: float, shown: str) -> None:
        """
        Digits that mean something.
        """
        assert shown == number(value)


class TestResults:
    def test_file(self, results: Results, tmp_path: Path) -> None:
        """
        What was written is what is read.
        """
        path = tmp_path / "there" / "results.json"

        results.save(path)

        assert results == Results.load(path)

    @pytest.mark.parametrize("text", ["", "[]", '{"table": [{}]}'])
    def test_broken(self, text: str, tmp_path: Path) -> None:
        """
        A file with something else is told of.
        """
        path = tmp_path / "results.json"
        path.write_text(text)

        with pytest.raises(ValueError, match="results"):
            Results.load(path)


class TestPictures:
    @pytest.mark.parametrize("name", SERIES)
    def test_draw(self, name: str, tmp_path: Path) -> None:
        """
        A picture for each series, small.
        """
        text = self.drawn(name, tmp_path / "1.svg")

        assert ET.fromstring(text).tag.endswith("svg")
        assert ">lmtpsvc<" in text
        assert len(text) < 80_000

    def test_again(self, tmp_path: Path) -> None:
        """
        From the same results comes the same picture.
        """
        name = "messages"

        assert self.drawn(name, tmp_path / "1.svg") == self.drawn(name, tmp_path / "2.svg")

    def drawn(self, name: str, path: Path) -> str:
        """
        The picture of a series.
        """
        pictures = pytest.importorskip("benchmarks.pictures")
        runs = [
            run(server, str(point), rate)
            for server in ("dovecot", "lmtpsvc")
            for point in SERIES[name].points
            for rate in (100, 200)
        ]
        pictures.draw(name, runs, path)
        return path.read_text()


class TestPage:
    def test_put(self, results: Results, tmp_path: Path) -> None:
        """
        Table and growth each have their place; the rest of the page stays.
        """
        page = tmp_path / "docs" / "page.md"
        page.parent.mkdir()
        marks = "".join(f"<!-- {mark} -->\n<!-- end of {mark} -->\n" for mark in MARKS)
        page.write_text(f"Above\n{marks}Below\n")
        grown = Results(growth=results.growth)
        results.growth = {}

        for each in (results, grown, results):
            put(each, page, tmp_path / "docs" / "pictures")
        put(results, page, tmp_path, brief=True)

        text = page.read_text()
        assert text.count("| lmtpsvc | 500 | 6.0 | 0.005 |") == 1
        assert text.count("![sessions](pictures/sessions.svg)") == 1
        assert text.startswith("Above\n<!-- results -->\na machine\n")
        assert text.endswith("|\n<!-- end of other disk -->\nBelow\n")

    def test_no_marks(self, results: Results, tmp_path: Path) -> None:
        """
        A page without marks is left alone.
        """
        (tmp_path / "page.md").write_text("Above\n")

        with pytest.raises(ValueError, match="<!-- results -->"):
            put(results, tmp_path / "page.md", tmp_path)

        assert (tmp_path / "page.md").read_text() == "Above\n"


class TestMain:
    def test_again(
        self, results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """
        Tables are made again without measuring.
        """
        results.growth = {}
        path = tmp_path / "results.json"
        results.save(path)

        assert main(["--again", "--results", str(path)]) == 0
        assert capsys.readouterr().out == render(results) + "\n"

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--servers", "nobody"], "no server 'nobody'; there are"),
            (["--servers", "lmtpsvc", "--only", "z"], "no 'z' here; there are a, b"),
            (["--servers", "lmtpsvc", "--growth", "--only", "a"], "there are sessions, recipients"),
            (["--add", "mine=run"], "expected NAME=COMMAND with {port}"),
            (["--beside", "/proc"], "/proc is no checkout"),
            (["--servers", "lmtpsvc", "--where", "/proc/none"], "/proc/none is no directory"),
        ],
    )
    def test_mistakes(
        self, words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """
        A mistake is told in one line, before anything is measured.
        """
        assert main(["--results", str(tmp_path / "none.json"), *words]) == 1

        assert said in capsys.readouterr().err
        assert not (tmp_path / "none.json").exists()
