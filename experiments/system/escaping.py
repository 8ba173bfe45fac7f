"""Escaping of untrusted text for the program that shows it: names in stores and model files may come from anyone.

Each output format has its own function, since programs interpret different characters.
"""

import re

# Control characters of terminals, and characters that change the text direction; line breaks are allowed.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
# A cell that a spreadsheet evaluates as a formula: https://owasp.org/www-community/attacks/CSV_Injection lists the
# characters, which have full-width forms too. Existing marks are included, so that removing one restores the text.
MARK = "'"
_FORMULA = re.compile(rf"{MARK}*[=+\-@\t\n＝＋－＠]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
# Markdown syntax: HTML, entities, code, links and images, and addresses that become links.
_MARKDOWN = (
    (re.compile(r"\\"), r"\\\\"),
    (re.compile(r"&(?=#?\w+;)"), "&amp;"),
    (re.compile("<"), "&lt;"),
    (re.compile("`"), r"\\`"),
    (re.compile(r"\]([(\[])"), r"]\\\1"),
    (re.compile(r"^(\s*\[[^\]]*\]):"), r"\1\\:"),
    (re.compile("://"), r":\\//"),
    (re.compile(r"\b(www|mailto|xmpp)([.:])", re.IGNORECASE), r"\1\\\2"),
    (re.compile(r"(?<=\w)@(?=[\w-]+\.\w)"), "&#64;"),
)


def escape_control(text: str) -> str:
    r"""Escape control characters for a terminal, as \x1b."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def one_line(text: str) -> str:
    """Replace line breaks, which would end a row, a cell or a paragraph, by spaces."""
    return re.sub(r"\s*[\r\n]\s*", " ", text)


def spreadsheet_text(text: str) -> str:
    """Escape a CSV cell so that no spreadsheet evaluates it as a formula; numbers are not changed."""
    text = escape_control(text)  # some programs end a row at a carriage return
    return f"{MARK}{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def from_spreadsheet_text(text: str) -> str:
    """Undo `spreadsheet_text`, except for escaped control characters."""
    return text.removeprefix(MARK) if _FORMULA.match(text) else text


def markdown_text(text: str) -> str:
    """Escape text for a line or cell of Markdown, so that it is shown literally."""
    text = escape_control(one_line(text))
    for special, harmless in _MARKDOWN:
        text = special.sub(harmless, text)
    return text
