"""Conditions of --where: columns, values, comparisons and arithmetic; nothing is executed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.comparison.columns import frame
from experiments.comparison.condition import meets
from experiments.comparison.gates import decide, requirement
from experiments.comparison.query import matrix, require_column, select_columns, sort_rows
from experiments.system.errors import UserError
from tests.rows import FAILED, row

RUNS = frame(
    [
        row("none", epochs=1, run_id="a", **{"training.optimizer": "a"}),
        row("qat", epochs=5, run_id="b", speedup=3.0, **{"training.optimizer": "b & c"}),
        row("ptq_int8", epochs=20, run_id="c", speedup=2.0, **{"training.optimizer": "b | c"}),
        {**FAILED, "run_id": "d"},
    ]
)


def those(condition: str) -> str:
    return "".join(RUNS[meets(RUNS, condition)]["run_id"])


@pytest.mark.parametrize(
    ("condition", "runs"),
    [
        ("strategy == 'qat'", "b"),
        ('strategy != "qat"', "acd"),
        ("'qat' == strategy", "b"),
        ("epochs >= 5 and epochs < 20", "b"),
        ("1 < epochs <= 20", "bc"),
        ("epochs == 1 & strategy == 'none'", "a"),
        ("strategy == 'none' | strategy == 'qat' and epochs == 5", "ab"),
        ("(epochs > 1) & ~(strategy == 'qat')", "c"),
        ("not strategy == 'none'", "bcd"),
        ("strategy in ['none', 'qat']", "ab"),
        ("strategy in ('none', 'qat')", "ab"),
        ("strategy not in ['none', 'qat']", "cd"),
        ("strategy == ['none', 'qat']", "ab"),
        ("epochs in [1, 20] and status == 'FINISHED'", "ac"),
        ("epochs in [5, -1]", "b"),
        ("strategy == machine", ""),
        ("tflite_bytes / 1000 < 599.7 and speedup * 2 - 1 >= 5", "b"),
        ("epochs % 2 == 1 and epochs ** 2 > 9", "b"),
        ("epochs // 2 == 10", "c"),
        ("speedup > -1", "abc"),
        ("speedup == speedup", "abc"),
        ("`training.optimizer` == 'b & c'", "b"),
        ("`training.optimizer` == 'b | c'", "c"),
        ("tflite_accuracy < 1e9", "abc"),
        (f"epochs < {10**30}", "abcd"),
    ],
)
def test_condition_means_the_same_as_in_pandas(condition: str, runs: str) -> None:
    assert those(condition) == runs


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("@pd.read_pickle('evil.pkl')", "@ refers to a Python variable"),
        ("@__builtins__", "@ refers to a Python variable"),
        ("__import__('os').system('touch mark')", "functions and methods are not supported"),
        ("strategy.str.startswith('q')", "functions and methods are not supported"),
        ("strategy.map(eval) == 1", "functions and methods are not supported"),
        ("strategy.to_csv('mark') == 1", "functions and methods are not supported"),
        ("epochs.__class__ == 1", "attributes are not supported"),
        ("strategy['x'] == 1", "indexing is not supported"),
        ("(lambda: 1) == epochs", "lambda is not supported"),
        ("[x for x in strategy] == 1", ": not supported"),
        ("(epochs if epochs else 1) == 1", "if is not supported"),
        ("f'{epochs}' == strategy", "f-strings are not supported"),
        ("(x := epochs) == 1", "assignment is not supported"),
        ("epochs == b'x'", ": not supported"),
        ("epochs == 1j", ": not supported"),
        ("epochs is None", "use == for equality"),
        ("await epochs", ": not supported"),
        ("epochs = 5", "use == for equality"),
        ("index == 0", "no column is named 'index'"),
        ("training.optimizer == 'x'", "requires backquotes, `training.optimizer`"),
        ("`training.optimize` == 'x'", "Did you mean training.optimizer"),
        ("epochz > 1", "Did you mean epochs"),
        ("epochs > 'five'", r"epochs \(numbers\) and 'five' cannot be ordered"),
        ("strategy > 5", "cannot be ordered"),
        ("epochs + 'x' > 1", "arithmetic requires numbers"),
        ("strategy * 9999999999 == 'x'", "arithmetic requires numbers"),
        ("'x' * 99999999999 == strategy", "arithmetic requires numbers"),
        ("epochs > 9**9**9", "cannot be computed"),
        ("epochs > 1 / 0", "cannot be computed"),
        ("epochs and True", "epochs is a value, not a condition"),
        ("1 == 1", "a comparison requires a column"),
        ("'q' in strategy", "in requires a column and a list"),
        ("epochs < [1, 2]", "a list requires in, not in"),
        ("epochs in [[1], 2]", "a list requires numbers or texts"),
        ("(" * 900 + "epochs > 1" + ")" * 900, "cannot be read"),
        ("-" * 1900 + "epochs > 1", "cannot be read|nested"),
        ("not " * 200 + "epochs > 1", "nested more than"),
        ("epochs > 1 or " * 500 + "epochs > 1", "at most 2,000 characters"),
        ("epochs\0 > 1", "requires printable characters"),
        ("epochs > 1\nor epochs", "requires printable characters"),
        ("", "cannot be read"),
        ("epochs", "this is a value, not a condition"),
        ("True", "this is a value, not a condition"),
    ],
    ids=lambda text: text[:40],
)
def test_anything_else_is_rejected_with_a_message(
    condition: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        meets(RUNS, condition)
    assert not list(tmp_path.iterdir())


WORDS = st.sampled_from([*"epochs`'\"&|~()[]<>=!+-*/%@.,: 19_\\#{}", "strategy", "not ", " in ", " and ", "epochs"])


@given(st.lists(WORDS).map("".join))
def test_any_text_is_a_condition_or_a_message(condition: str) -> None:
    try:
        assert meets(RUNS, condition).dtype == bool
    except UserError as error:
        assert str(error).startswith("--where ")


NAMES = ["__class__", "@x", "strategy.str", "strategy; import os", "`strategy`", "=1+1", "strategy or 1", "\x1b]0;x"]


@pytest.mark.parametrize("name", NAMES)
def test_columns_are_looked_up_only_by_name(name: str) -> None:
    for ask in (
        lambda: sort_rows(RUNS, [name]),
        lambda: select_columns(RUNS, [name]),
        lambda: matrix(RUNS, name, "epochs", "tflite_accuracy"),
        lambda: decide(RUNS, [], name, lowest=True),
        lambda: require_column(RUNS, name, "--group-by"),
    ):
        with pytest.raises(UserError, match="no column has this name"):
            ask()


def test_columns_that_rows_are_matched_by_are_neither_found_nor_proposed() -> None:
    table = RUNS.assign(_model="digest")
    for ask in (lambda: require_column(table, "_model", "--sort"), lambda: meets(table, "_model == 'digest'")):
        with pytest.raises(UserError) as error:
            ask()
        assert "Known: _" not in str(error.value)
        assert ", _" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    ["tflite_accuracy >= __import__('os')", "@x > 1", "tflite_accuracy.__class__ > 1", "tflite_accuracy > 1e999"],
)
def test_a_requirement_is_a_column_and_a_number(text: str) -> None:
    with pytest.raises(UserError, match="--require"):
        requirement(text, RUNS)
