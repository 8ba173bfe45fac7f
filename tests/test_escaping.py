"""Text from untrusted sources is harmless in spreadsheets, web pages, Markdown and terminals."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from experiments.comparison.columns import frame
from experiments.comparison.files import FORMS, write_csv
from experiments.comparison.regressions import read_earlier
from experiments.system.errors import UserError, reporting_user_errors
from experiments.system.escaping import escape_control, from_spreadsheet_text, markdown_text, spreadsheet_text
from experiments.system.progress import CONSOLE, print_whole, say, warn
from tests.rows import row

FORMULAS = (
    "=1+1", "=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(1+1)", "\t=1+1", "\n=1+1", "＝1+1",
    '=HYPERLINK("http://evil","x")', "'=1+1", "''@x",
)  # fmt: skip
openpyxl = pytest.importorskip("openpyxl")
TERMINAL = "\x1b]0;owned\x07 \x1b[2J \x9b31m \r\b \u202eevil"


def table(name: str) -> pd.DataFrame:
    return frame([row("none", model="m"), row(name, model=name, accuracy_change=-0.5, seed=3)])


@pytest.mark.parametrize("text", FORMULAS)
def test_csv_cell_is_never_a_formula(tmp_path: Path, text: str) -> None:
    write_csv(table(text), tmp_path / "table.csv")
    cells = pd.read_csv(tmp_path / "table.csv", dtype=str, keep_default_na=False)
    assert cells["strategy"][1] == f"'{text}"


def test_numbers_stay_numbers(tmp_path: Path) -> None:
    write_csv(table("qat"), tmp_path / "table.csv")
    assert pd.read_csv(tmp_path / "table.csv")["accuracy_change"][1] == -0.5
    assert [spreadsheet_text(text) for text in ("-1", "+2.5", "-1e-3", "-.5")] == ["-1", "+2.5", "-1e-3", "-.5"]


@given(st.text(), st.sampled_from(["", "'", "''", "=", "'=", "-", "@"]))
def test_csv_escaping_is_reversible(text: str, beginning: str) -> None:
    assert from_spreadsheet_text(spreadsheet_text(beginning + text)) == escape_control(beginning + text)


@pytest.mark.parametrize("text", FORMULAS)
def test_names_of_an_earlier_comparison_are_unescaped(tmp_path: Path, text: str) -> None:
    write_csv(table(text), tmp_path / "table.csv")
    read = read_earlier(tmp_path / "table.csv")
    assert read["strategy"][1] == text


def test_a_name_does_not_end_a_row(tmp_path: Path) -> None:
    write_csv(table('a\rb\r\n=1+1,2\n"x'), tmp_path / "table.csv")
    assert len(read_earlier(tmp_path / "table.csv")) == 2


def test_csv_headings_are_never_formulas(tmp_path: Path) -> None:
    write_csv(pd.DataFrame({"=a.b": ["x"]}), tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text().startswith("'=a.b")


@pytest.mark.parametrize("form", ["html", "latex", "markdown"])
def test_no_file_controls_a_terminal_or_reverses_text(tmp_path: Path, form: str) -> None:
    FORMS[form].write(table(TERMINAL), tmp_path / "table")
    text = (tmp_path / "table").read_text()
    assert escape_control(text) == text
    assert "owned" in text


@pytest.mark.parametrize("text", [*FORMULAS[:5], FORMULAS[-3], "#REF!", "http://evil", TERMINAL])
def test_spreadsheet_cell_is_text(tmp_path: Path, text: str) -> None:
    FORMS["excel"].write(table(text), tmp_path / "table.xlsx")
    sheet = openpyxl.load_workbook(tmp_path / "table.xlsx").active
    assert sheet is not None
    cell = sheet["A3"]
    assert (cell.data_type, cell.value, cell.hyperlink) == ("s", escape_control(text), None)
    assert isinstance(sheet["F3"].value, int)


HTML = "<script>alert(1)</script><img src=x onerror=alert(1)>"


def test_html_shows_text(tmp_path: Path) -> None:
    FORMS["html"].write(table(HTML), tmp_path / "table.html")
    assert "<script" not in (tmp_path / "table.html").read_text()
    broken = frame([row("none"), row("qat", verified="false", broken_promise=HTML)])
    FORMS["html"].write(broken, tmp_path / "table.html")
    assert "<script" not in (tmp_path / "table.html").read_text()


def test_latex_shows_text(tmp_path: Path) -> None:
    FORMS["latex"].write(table(r"\input{/etc/passwd} $x$ \write18{ls}"), tmp_path / "table.tex")
    text = (tmp_path / "table.tex").read_text()
    assert not any(command in text for command in (r"\input{", r"\write18{", "$x$"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ptq_int8 [1.0, 2.0] a*b (x)", "ptq_int8 [1.0, 2.0] a*b (x)"),
        ("[x](javascript:alert(1))", r"[x]\(javascript:alert(1))"),
        ("![x](http://evil/x.png)", r"![x]\(http:\//evil/x.png)"),
        ("[x][y]", r"[x]\[y]"),
        ("[x]: http://evil", r"[x]\: http:\//evil"),
        ("see [low, high]: both", "see [low, high]: both"),
        ("<b>x</b>", "&lt;b>x&lt;/b>"),
        ("&lt;b&gt;", "&amp;lt;b&amp;gt;"),
        ("`x`", r"\`x\`"),
        (r"\](x)", r"\\]\(x)"),
        ("www.evil.com me@evil.com qat@5", r"www\.evil.com me&#64;evil.com qat@5"),
        ("a\n\n# b\r\n| c", "a # b | c"),
    ],
)
def test_markdown_shows_text(text: str, shown: str) -> None:
    assert markdown_text(text) == shown


def test_markdown_table_has_one_line_per_run(tmp_path: Path) -> None:
    broken = row("a\n| b | [x](http://evil)", verified="false", broken_promise="</p><img src=x>\n# x")
    FORMS["markdown"].write(frame([row("none"), broken]), tmp_path / "table.md")
    text = (tmp_path / "table.md").read_text()
    assert len([line for line in text.splitlines() if line.startswith("|")]) == 4
    assert not any(live in text for live in ("](", "<img", "\n#", "http://"))


@pytest.mark.parametrize("print_text", [say, CONSOLE.print])
def test_names_cannot_control_the_terminal(
    print_text: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(print_text)
    monkeypatch.setattr(CONSOLE, "_file", None)
    print_text(f"strategy {TERMINAL}")
    out = capsys.readouterr().out
    assert "\\x1b]0;owned" in out
    assert not any(sign in out for sign in "\x1b\x07\x9b\b\r\u202e")


def test_messages_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    warn(TERMINAL)
    with pytest.raises(SystemExit), reporting_user_errors():
        raise UserError(f"--sweep: Known: {TERMINAL}")
    err = capsys.readouterr().err
    assert "\\x1b]0;owned" in err
    assert not any(sign in err for sign in "\x1b\x07\x9b\b\r\u202e")


def test_names_are_not_markup_in_tables(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    name = "[link=http://evil]x[/link] [red]y[/] :skull:"
    monkeypatch.setattr(CONSOLE, "_file", None)
    picture = Table("[bold]file")
    picture.add_row(name)
    print_whole(picture, CONSOLE)
    out = capsys.readouterr().out
    assert name in out
    assert "[bold]file" in out


@pytest.mark.parametrize("mark", ["\u061c", "\u200e", "\u200f", "\u202e", "\u2066", "\u2069"])
def test_no_mark_changes_the_direction_of_text(mark: str) -> None:
    assert escape_control(f"a{mark}b") == f"a\\u{ord(mark):04x}b"
