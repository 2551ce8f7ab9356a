"""Small pieces of HTML that every view is made of. Whatever people typed is escaped here."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image

SIDE = 256  # pixels to which larger pictures are shrunk for the page


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls where the page is narrow."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def empty(what: str, how: str) -> str:
    """What is missing, and how it comes to be there."""
    return f'<div class="empty"><p><b>{escape(what)}</b></p><p>{escape(how)}</p></div>'


def img(path: Path, alt: str, side: int = SIDE) -> str:
    """A picture inside the page, so that no file of a run has to be served."""
    image = Image.open(path).convert("RGB")
    small = io.BytesIO()
    if max(image.size) > side:
        image.thumbnail((side, side))
    image.save(small, "PNG" if max(image.size) <= 128 else "JPEG", quality=88)
    data, kind = base64.b64encode(small.getvalue()).decode(), "png" if max(image.size) <= 128 else "jpeg"
    return f'<img src="data:image/{kind};base64,{data}" alt="{escape(alt, quote=True)}">'
