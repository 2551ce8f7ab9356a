"""The bundled models: their names and where their files are."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

# Beside this package, in a checkout and in an installed copy alike.
FOLDER = Path(str(files("generators"))).parent / "assets"
# The models that come with the studio: name and one line about each.
BUNDLED: dict[str, str] = {
    "pocket-gan": "StyleGAN2 at 64 pixels with its critic: cartoon faces, two hundred a second on a laptop",
    "pocket-sd": "Stable Diffusion at 64 pixels: 20 objects in 15 themes, drawn in a tenth of a second on a laptop",
}


def assets() -> Path:
    """The folder of the bundled models: STUDIO_ASSETS if set, else the one that comes with the studio."""
    return Path(os.environ.get("STUDIO_ASSETS") or FOLDER)


def present(home: Path) -> bool:
    """Whether a bundled model's folder holds it."""
    return (home / "model_index.json").is_file() or (home / "generator.safetensors").is_file()
