"""Hook of MkDocs: formulas become MathML while the site is built, and get a font to stand in.

Nothing runs in the browser and nothing is fetched. The font is STIX Two Math (OFL), as ziamath
brings it, cut down to the characters that the pages use.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import ziamath
from fontTools import subset
from latex2mathml.converter import convert

FONT = Path(ziamath.__file__).parent / "fonts/STIXTwoMath-Regular.ttf"
FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\s*\\[(\[](.*?)\\[)\]]\s*</\1>', flags=re.DOTALL
)
VARIANT = re.compile(r' mathvariant="(?!normal)([a-z-]+)">(\w)')
SIGNS = {("bold", "1"): ">\U0001d7cf", ("double-struck", "R"): ">\u211d"}
ALPHABETS = ((0x41, 0x5A, 0x1D434), (0x61, 0x7A, 0x1D44E), (0x3B1, 0x3C9, 0x1D6FC))  # A a alpha
used: set[str] = set()  # characters of all formulas


def on_page_content(text: str, **rest: Any) -> str:
    return FORMULA.sub(_mathml, text)


def on_post_build(config: Any) -> None:
    """Write assets/math.woff."""
    options = subset.Options(flavor="woff", layout_features=["*"])
    font = subset.load_font(FONT, options)
    cutter = subset.Subsetter(options)
    cutter.populate(text="".join(used))
    cutter.subset(font)
    subset.save_font(font, Path(config["site_dir"]) / "assets/math.woff", options)


def _mathml(found: re.Match[str]) -> str:
    display = "block" if found[1] == "div" else "inline"
    latex = html.unescape(found[2]).strip()
    made = VARIANT.sub(_sign, convert(latex, display=display))
    letters = html.unescape(re.sub("<[^>]*>", "", made))
    used.update(letters, *map(_italic, letters))
    made = made.replace("<math ", f'<math alttext="{html.escape(latex)}" ', 1)
    return f'<div class="formula" tabindex="0">{made}</div>' if display == "block" else made


def _sign(found: re.Match[str]) -> str:
    """A browser knows no other variant than the normal one: such a sign is a character."""
    return SIGNS[found[1], found[2]]


def _italic(letter: str) -> str:
    """What a browser draws for a single letter in a formula: the italic one of Unicode."""
    if letter == "h":
        return "\u210e"
    for first, last, start in ALPHABETS:
        if first <= ord(letter) <= last:
            return chr(start + ord(letter) - first)
    return letter
