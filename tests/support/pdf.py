"""The text of a PDF that Chromium has printed, which no package of the tests reads."""

import re
import zlib

OBJECT = re.compile(rb"(\d+) 0 obj(.*?)endobj", re.DOTALL)
HEX = rb"<([0-9A-Fa-f]+)>\s*"


def pages_of(pdf: bytes) -> int:
    """Return the number of pages."""
    return len(re.findall(rb"/Type\s*/Page\b", pdf))


def text_of(pdf: bytes) -> str:
    """Return the text of all pages, without spaces, since these may be gaps between glyphs."""
    objects = dict(OBJECT.findall(pdf))
    characters = {
        name: _characters(_stream(objects[found[1]]))
        for name, number in re.findall(rb"/(F\d+) (\d+) 0 R", pdf)
        if (found := re.search(rb"/ToUnicode (\d+) 0 R", objects[number]))
    }
    text = []
    for body in objects.values():
        if b"stream" not in body or b"Tf" not in (drawn := _stream(body)):
            continue
        font: dict[int, str] = {}
        for name, glyphs in re.findall(rb"/(F\d+) [\d.]+ Tf|<([0-9A-Fa-f]+)>", drawn):
            if name:
                font = characters.get(name, {})
            codes = [int(glyphs[start : start + 4], 16) for start in range(0, len(glyphs), 4)]
            text += [font.get(code, "") for code in codes]
    return re.sub(r"\s", "", "".join(text))


def _stream(body: bytes) -> bytes:
    """Return the uncompressed stream of an object; what is no compressed stream is empty."""
    content = body.partition(b"stream")[2].lstrip(b"\r\n")
    try:
        return zlib.decompressobj().decompress(content)
    except zlib.error:
        return b""


def _characters(table: bytes) -> dict[int, str]:
    """Return the characters of a font by the codes of its glyphs."""
    found = {}
    for block in re.findall(rb"beginbfchar(.*?)endbfchar", table, re.DOTALL):
        for code, character in re.findall(HEX + HEX, block):
            found[int(code, 16)] = bytes.fromhex(character.decode()).decode("utf-16-be")
    for block in re.findall(rb"beginbfrange(.*?)endbfrange", table, re.DOTALL):
        for first, last, character in re.findall(HEX + HEX + HEX, block):
            start, end = int(first, 16), int(last, 16)
            found |= {code: chr(int(character, 16) + code - start) for code in range(start, end + 1)}
    return found
