"""The page's HTML. A template belongs to a view and holds its macros; whatever people typed is escaped in them."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

SIDE = 256  # pixels to which larger pictures are shrunk for the page
LOSSLESS = 128  # pixels up to which a picture stays a PNG


def render(macro: str, *values: Any, **named: Any) -> str:
    """The HTML of one macro, "view.macro", for example "run_view.scores"."""
    view, name = macro.split(".")
    return str(getattr(_TEMPLATES.get_template(f"{view}.html").module, name)(*values, **named))


def picture(path: Path, side: int = SIDE) -> str:
    """A picture file as a data URL, so that the server need not serve any file of a run."""
    image = Image.open(path).convert("RGB")
    image.thumbnail((side, side))
    kind = "PNG" if max(image.size) <= LOSSLESS else "JPEG"
    file = io.BytesIO()
    image.save(file, kind, quality=88)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters["picture"] = picture
