"""What the judge of faces reads in drawn faces, kept beside it: distances to the data then need no drawing package.

python -m generators.pocket.faces.reference --probes FOLDER --data FOLDER
"""

from __future__ import annotations

import argparse
from pathlib import Path

from generators.pocket.faces.data import rendered
from generators.pocket.faces.probe import load_face_probe, read_off
from generators.stylegan2.io.files import write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--probes", type=Path, required=True, help="folder of face-judge.safetensors")
    parser.add_argument("--data", type=Path, default=Path("temp/pocket-faces"))
    parser.add_argument("--faces", type=int, default=6_000)
    parser.add_argument("--keep", type=int, default=4_000)
    asked = parser.parse_args()
    pictures, labels = rendered(asked.faces, asked.data)
    probe = load_face_probe(asked.probes / "face-judge.safetensors")
    features = read_off(probe, pictures[: asked.keep])[1].half()
    about = {"family": "face-reference", "faces": [0, asked.keep], "attributes": probe.attributes, "probe": probe.about}
    write(
        asked.probes / "face-reference.safetensors",
        {"features": features, "labels": labels[: asked.keep].byte()},
        about,
    )


if __name__ == "__main__":
    main()
