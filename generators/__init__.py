"""Adapters: every model the studio can load, behind the protocols of `erase.model`."""

from generators.assets import BUNDLED, assets
from generators.loading import load

__all__ = ["BUNDLED", "assets", "load"]
