"""Conditions on rows in the syntax of pandas' `query`, but safe for untrusted text.

The text is parsed by Python's parser, and only columns, values, comparisons and arithmetic are evaluated. No function
is called, no attribute is looked up, and every name is a column.
"""

import ast
import operator
import re
import warnings
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, TypeGuard

import pandas as pd

from experiments.comparison.columns import names_of
from experiments.system.errors import OPTION, UserError, suggestion

EXAMPLE = "\"strategy == 'qat' and epochs >= 5\", put names with a dot in backquotes"
LONGEST = 2000  # characters
DEEPEST = 50  # levels of brackets and operators
# Strings are matched first, since they may contain operators; then columns in backquotes; then pandas' & and |.
TOKENS = re.compile(r"""(?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|`(?P<column>[^`]*)`|(?P<operator>[&|])""")
WORDS = {"&": " and ", "|": " or "}
COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}  # fmt: skip
ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow,
}  # fmt: skip
REFUSED: Mapping[type[ast.AST], str] = {
    ast.Call: "functions and methods are not supported",
    ast.Attribute: "attributes are not supported",
    ast.Subscript: "indexing is not supported",
    ast.Lambda: "lambda is not supported",
    ast.IfExp: "if is not supported",
    ast.JoinedStr: "f-strings are not supported",
    ast.NamedExpr: "assignment is not supported; use == for equality",
}


def meets(table: pd.DataFrame, condition: str, prefix: str = OPTION) -> "pd.Series[bool]":
    """Return whether each row meets the condition; missing values never do. `prefix` is that of names in messages.

    Raises:
        UserError: it cannot be parsed, names an unknown column, compares different types, or is not a condition.
    """
    read = _Condition(table, condition, f"{prefix}where")
    value = read.value()
    if not _is_condition(value):
        raise read.error("this is a value, not a condition")
    return value.astype("boolean").fillna(value=False).astype(bool)


def _is_condition(value: object) -> "TypeGuard[pd.Series[bool]]":
    """Whether a value is a boolean for each row."""
    return isinstance(value, pd.Series) and pd.api.types.infer_dtype(value, skipna=True) == "boolean"


class _Condition:
    """The evaluation of a condition."""

    def __init__(self, table: pd.DataFrame, text: str, option: str) -> None:
        self._table = table
        self._text = text
        self._option = option
        self._quoted: dict[str, str] = {}  # columns in backquotes, by their placeholders

    def value(self) -> Any:
        """Evaluate the text for each row."""
        if len(self._text) > LONGEST:
            raise self.error(f"requires at most {LONGEST:,} characters, not {len(self._text):,}")
        if not self._text.isprintable():
            raise self.error("requires printable characters")
        prepared = TOKENS.sub(self._prepared, self._text).strip()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)  # of a backslash in a text
                tree = ast.parse(prepared, mode="eval")
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
            raise self.error(self._why(error)) from error
        try:
            return self._of(tree.body, 0)
        except (ArithmeticError, TypeError, ValueError) as error:
            raise self.error(f"this cannot be computed ({error})") from error

    def _prepared(self, found: re.Match[str]) -> str:
        if found["text"] is not None:
            return found["text"]
        if found["operator"] is not None:
            return WORDS[found["operator"]]
        name = f"_column_{len(self._quoted)}_"
        self._quoted[name] = found["column"]
        return f" {name} "

    def _why(self, error: Exception) -> str:
        if "@" in self._text:
            return "@ refers to a Python variable, which is not supported"
        if re.search(r"(?<![=!<>])=(?!=)", self._text):
            return "use == for equality"
        return f"this cannot be read ({error.msg if isinstance(error, SyntaxError) else type(error).__name__})"

    def error(self, why: str, hint: str = "") -> UserError:
        """Return the error with this reason, and what to write instead."""
        short = self._text if len(self._text) <= 200 else f"{self._text[:200]}..."
        return UserError(f"{self._option} {short!r}: {why}. {hint or f'Write it as in {self._option} {EXAMPLE}.'}")

    def _of(self, node: ast.expr, depth: int) -> Any:
        """Return the value of a part of the text: a column, a condition on each row, a number, a text, or a list."""
        if depth > DEEPEST:
            raise self.error(f"this is nested more than {DEEPEST} levels deep")
        if isinstance(node, ast.BoolOp | ast.UnaryOp | ast.BinOp | ast.Compare):
            return self._operation(node, depth)
        match node:
            case ast.Name(id=name):
                return self._column(self._quoted.get(name, name))
            case ast.Constant(value=bool() | str() | None as value):
                return value
            case ast.Constant(value=int() | float() as value):
                return float(value)  # floats, since unbounded integers could use unbounded memory
            case ast.List(elts=elements) | ast.Tuple(elts=elements) | ast.Set(elts=elements):
                return [self._plain(element, depth) for element in elements]
        raise self._refusal(node)

    def _operation(self, node: ast.expr, depth: int) -> Any:
        match node:
            case ast.BoolOp(op=kind, values=values):
                joining = operator.and_ if isinstance(kind, ast.And) else operator.or_
                return reduce(joining, (self._condition(value, depth) for value in values))
            case ast.UnaryOp(op=ast.Not() | ast.Invert(), operand=operand):
                return ~self._condition(operand, depth)
            case ast.UnaryOp(op=sign, operand=operand):
                number = self._number(operand, depth)
                return -number if isinstance(sign, ast.USub) else number
            case ast.BinOp(left=left, op=way, right=right) if type(way) in ARITHMETIC:
                return ARITHMETIC[type(way)](self._number(left, depth), self._number(right, depth))
            case ast.Compare(left=left, ops=kinds, comparators=others):
                return self._compared(left, kinds, others, depth)
        raise self._refusal(node)

    def _refusal(self, node: ast.expr) -> UserError:
        if isinstance(node, ast.Attribute) and (name := ast.unparse(node)) in self._table.columns:
            return self.error(f"{name} requires backquotes, `{name}`")
        kind = next((why for kind, why in REFUSED.items() if isinstance(node, kind)), "not supported")
        return self.error(
            f"{ast.unparse(node)[:100]}: {kind}; use columns, values, comparisons, arithmetic, in, and, or, not"
        )

    def _plain(self, node: ast.expr, depth: int) -> Any:
        value = self._of(node, depth + 1)
        if isinstance(value, pd.Series | list):
            raise self.error("a list requires numbers or texts")
        return value

    def _column(self, name: str) -> "pd.Series[Any]":
        if name not in (names := names_of(self._table)):
            raise self.error(f"no column is named {name!r}", suggestion(name, names))
        return self._table[name]

    def _condition(self, node: ast.expr, depth: int) -> "pd.Series[Any]":
        value = self._of(node, depth + 1)
        if not _is_condition(value):
            raise self.error(f"{self._shown(node)} is a value, not a condition")
        return value.astype("boolean")

    def _number(self, node: ast.expr, depth: int) -> Any:
        value = self._of(node, depth + 1)
        if isinstance(value, pd.Series) and pd.api.types.is_numeric_dtype(value) and not _is_condition(value):
            return value.astype(float)
        if isinstance(value, float):
            return value
        raise self.error(f"{self._shown(node)} is not a number; arithmetic requires numbers")

    def _shown(self, node: ast.expr) -> str:
        text = ast.unparse(node)
        for name, column in self._quoted.items():
            text = text.replace(name, f"`{column}`")
        return text[:100]

    def _compared(self, left: ast.expr, kinds: list[ast.cmpop], others: list[ast.expr], depth: int) -> Any:
        """Evaluate a comparison, or several in a chain: 1 < epochs <= 5."""
        found: Any = None
        values = [self._of(node, depth + 1) for node in (left, *others)]
        for kind, before, after in zip(kinds, values, values[1:], strict=False):
            each = self._comparison(kind, before, after)
            found = each if found is None else found & each
        return found

    def _comparison(self, kind: ast.cmpop, before: Any, after: Any) -> Any:
        if isinstance(before, list) and isinstance(kind, ast.Eq | ast.NotEq):
            before, after = after, before
        if isinstance(kind, ast.In | ast.NotIn) or isinstance(after, list):
            return self._membership(kind, before, after)
        if type(kind) not in COMPARISONS:
            raise self.error("use == for equality")
        if not isinstance(before, pd.Series) and not isinstance(after, pd.Series):
            raise self.error("a comparison requires a column")
        if not isinstance(kind, ast.Eq | ast.NotEq) and _kind(before) != _kind(after):
            raise self.error(f"{_described(before)} and {_described(after)} cannot be ordered")
        return COMPARISONS[type(kind)](before, after).astype("boolean")

    def _membership(self, kind: ast.cmpop, before: Any, after: Any) -> Any:
        if not isinstance(before, pd.Series) or not isinstance(after, list | pd.Series):
            raise self.error("in requires a column and a list, as in strategy in ['qat', 'none']")
        if not isinstance(kind, ast.In | ast.NotIn | ast.Eq | ast.NotEq):
            raise self.error("a list requires in, not in, == or !=")
        found = before.isin(after).astype("boolean")
        return ~found if isinstance(kind, ast.NotIn | ast.NotEq) else found


def _kind(value: Any) -> str:
    if isinstance(value, pd.Series):
        return "number" if pd.api.types.is_numeric_dtype(value) and not _is_condition(value) else "text"
    return "text" if isinstance(value, str) else "number" if isinstance(value, float) else "neither"


def _described(value: Any) -> str:
    return f"{value.name} ({_kind(value)}s)" if isinstance(value, pd.Series) else repr(value)
