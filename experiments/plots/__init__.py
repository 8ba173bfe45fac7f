"""Plots: shared style and layout, and conversion to files and to parts of a page."""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO, StringIO
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from experiments.system.escaping import escape_control

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette for colour-blind readers.
BLUE, SKY, GREEN, ORANGE, RED, PINK, GREY = "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#999999"
INK = "#222222"  # of all text and axes, and nothing else: in a page, it is replaced by the text colour
FAINT = 0.35  # opacity of elements in the background
STYLE: Any = {
    **{f"{part}.color": INK for part in ("text", "xtick", "ytick")},
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "font.size": 8.5,
    "grid.color": GREY,
    "grid.alpha": FAINT,
    "grid.linewidth": 0.5,
    "legend.frameon": False,  # a white frame would be white in a dark page, too
    "text.parse_math": False,  # labels may have regular expressions, which are not formulas
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "a comparison",  # the same picture is the same bytes
}  # fmt: skip
COLUMNS = 2  # panels side by side
LONGEST = 44  # characters of a label
HOVER = "hover:"  # marks an id that is a text to show
MOST_SHAPES = 300  # points of a panel to draw as shapes in an SVG; more are rasterized, and show no values


class NoPictureError(Exception):
    """There is nothing to plot; the message says why."""


class FewPointsError(NoPictureError):
    """There are so few points that a table shows them better; `rows` has them, as text by column."""

    def __init__(self, message: str, rows: Sequence[Mapping[str, str]]) -> None:
        super().__init__(message)
        self.rows = rows


@contextmanager
def in_one_style() -> Iterator[None]:
    """Apply the shared style to figures that are created, drawn or saved inside."""
    from matplotlib import rc_context

    with rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)  # a box is drawn instead
        yield


def sheet(
    panels: int, size: tuple[float, float], columns: int = COLUMNS, **shared: Any
) -> tuple["Figure", list["Axes"]]:
    """Create a figure with a number of panels, each of this size in inches."""
    from matplotlib.figure import Figure

    columns = min(panels, columns)
    rows = -(-panels // columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows + 1.0), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, **shared).flat)
    for unused in axes[panels:]:
        unused.set_axis_off()
    return figure, axes[:panels]


def add_texts(figure: "Figure", title: str, caption: str) -> None:
    """Add a title above the panels, and a caption on how to read them below."""
    inches = figure.get_figwidth()
    figure.suptitle(fill(title, int(inches * 11.5)), x=0.01, ha="left", fontsize=12)
    figure.supxlabel(fill(caption, int(inches * 17)), x=0.01, ha="left", fontsize=8)


def show_values(axes: "Axes", points: Sequence[tuple[float, float, Mapping[str, str]]]) -> None:
    """Let an SVG show values, by what they are, when the mouse is near a point (x, y); nothing if there are many."""
    for x, y, values in points if len(points) <= MOST_SHAPES else ():
        dot = axes.scatter([x], [y], s=40, zorder=7, alpha=0, color=INK, lw=0)
        dot.set_gid(f"{HOVER}{'; '.join(f'{name}: {value}' for name, value in values.items())}")


def shorten(label: str) -> str:
    """Shorten a label."""
    return label if len(label) <= LONGEST else f"{label[: LONGEST - 1]}…"


def lay_out(figure: "Figure") -> None:
    """Lay out the panels once, so that elements placed by their size afterwards do not move."""
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.execute(figure)
    figure.set_layout_engine("none")


def save(figure: "Figure", path: Path) -> None:
    """Save a figure as `.png` or `.svg`; an SVG has a transparent background."""
    if path.suffix == ".svg":
        path.write_text(_svg(figure), encoding="utf-8")
    else:
        path.write_bytes(as_png(figure))


def as_png(figure: "Figure") -> bytes:
    """Return a figure as a PNG."""
    content = BytesIO()
    with in_one_style():
        figure.savefig(content, dpi=110)
    return content.getvalue()


def as_svg(figure: "Figure", name: str) -> str:
    """Return a figure to embed in a page, with the page's text colour and width; `name` makes its ids unique."""
    svg = _svg(figure)
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    # As a style sheet rule, this would apply to the whole page.
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    look = 'role="img" style="max-width:100%;height:auto;stroke-linejoin:round;stroke-linecap:butt"'
    return svg.replace("<svg ", f"<svg {look} ", 1)


def _svg(figure: "Figure") -> str:
    text = StringIO()
    with in_one_style():
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    # Matplotlib writes the text as an id, which is escaped; browsers show the title of an element on hover.
    return re.sub(rf'<g id="{HOVER}([^"]*)">', r'<g class="value"><title>\1</title>', escape_control(text.getvalue()))
