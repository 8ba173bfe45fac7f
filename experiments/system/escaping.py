"""Text from elsewhere, made harmless for what shows it: names in a store and in a model file may be anybody's.

Each form has its own function, for one program runs what another one shows.
"""

import re

# What a terminal obeys instead of showing it, and what reverses the direction in which text is read; lines may break.
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
# A cell that a spreadsheet takes for a formula: https://owasp.org/www-community/attacks/CSV_Injection names the signs,
# of which there are wide forms too. The mark may be there already, so that what is taken off is what was put on.
MARK = "'"
_FORMULA = re.compile(rf"{MARK}*[=+\-@\t\n＝＋－＠]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
# What Markdown makes more of than text: HTML, entities, code, links and images, and addresses that become links.
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


def visible(text: str) -> str:
    r"""The text as a terminal may have it: its control characters written out, as \x1b."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def one_line(text: str) -> str:
    """The text without line breaks, which end a row, a cell or a paragraph."""
    return re.sub(r"\s*[\r\n]\s*", " ", text)


def spreadsheet_text(text: str) -> str:
    """A cell of a CSV file that no spreadsheet takes for a formula; numbers stay numbers."""
    text = visible(text)  # some programs end a row at a carriage return
    return f"{MARK}{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def from_spreadsheet_text(text: str) -> str:
    """The text of which `spreadsheet_text` made a cell; control characters stay written out."""
    return text.removeprefix(MARK) if _FORMULA.match(text) else text


def markdown_text(text: str) -> str:
    """Text for a line or a cell of Markdown that shows it as it is: no HTML, no links, no images, no code."""
    text = visible(one_line(text))
    for special, harmless in _MARKDOWN:
        text = special.sub(harmless, text)
    return text
