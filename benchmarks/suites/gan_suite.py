"""A suite for GANs: which seeds are drawn, who reads them, and what the pictures are compared with. Data (TOML)."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from erase.errors import BadInput, nearest, plain
from erase.files import read_toml

SUITES = Path(__file__).parent / "gan"


class GanSuite(BaseModel):
    """Fixed seeds of a GAN, drawn before and after and read by one probe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: int = Field(ge=1)
    about: str = ""
    probe: str
    reference: str
    first_seed: int = Field(0, ge=0)
    images: int = Field(2000, ge=20)
    pairs: int = Field(256, ge=8)


def gan_suite_names() -> list[str]:
    """The suites for GANs that come with the program."""
    return sorted(path.stem for path in SUITES.glob("*.toml"))


def gan_suite(name: str | Path) -> GanSuite:
    """The suite of that name, or the one in that TOML file; BadInput for anything else."""
    path = Path(name)
    if path.suffix != ".toml":
        found = {plain(known): known for known in gan_suite_names()}.get(plain(str(name)))
        if found is None:
            raise nearest(str(name), gan_suite_names(), "suite for GANs")
        path = SUITES / f"{found}.toml"
    try:
        return GanSuite.model_validate(read_toml(path))
    except FileNotFoundError:
        raise BadInput(f"There is no suite file {path}; the bundled ones are {', '.join(gan_suite_names())}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(f"Suite file {path}: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from None
