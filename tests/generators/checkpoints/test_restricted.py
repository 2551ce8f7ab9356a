"""PyTorch's own restricted reader is asked only for files that it can read in little time and memory."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from benchmarks.probes.vit import weights_alone
from erase.errors import BadInput
from generators.checkpoints.restricted import read_pt

NESTED = b"\x80\x02}N" + b"2\x86" * 64 + b"Ns."  # a key of 2^64 parts in 133 bytes
MAGIC = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]


def zipped(content: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    """A checkpoint of torch.save with other content."""
    file = io.BytesIO()
    torch.save({"a": torch.zeros(4)}, file)
    out = io.BytesIO()
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(out, "w", compression) as other:
        for name in archive.namelist():
            other.writestr(name, content if name.endswith("data.pkl") and content else archive.read(name))
    return out.getvalue()


@pytest.mark.parametrize("read", [read_pt, weights_alone])
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (zipped(NESTED), "nests values"),
        (b"".join(MAGIC) + NESTED, "nests values"),
        (NESTED, "nests values"),
        (zipped(b"", zipfile.ZIP_DEFLATED), "compressed"),
        (zipped(b"cos\nsystem\n(X\x01\x00\x00\x00xtR."), "asks for os.system"),
        (b"", "damaged"),
        (b"PK\x03\x04", "damaged"),
    ],
)
def test_crafted_files_are_refused_before_they_are_read(tmp_path: Path, read, data: bytes, said: str) -> None:
    path = tmp_path / "style50.pth"
    path.write_bytes(data)
    with pytest.raises(BadInput, match=said):
        read(path)


@pytest.mark.parametrize("zip_format", [True, False])
def test_what_pytorch_writes_is_read(tmp_path: Path, zip_format: bool) -> None:
    shared = torch.arange(6.0)
    held = {"model_state_dict": {"module.a": shared, "b": shared[2:]}, "step": 3, "sizes": (1, (2, 3))}
    torch.save(held, tmp_path / "x.pth", _use_new_zipfile_serialization=zip_format)
    read = read_pt(tmp_path / "x.pth")
    assert (read["step"], read["sizes"]) == (3, (1, (2, 3)))
    assert torch.equal(weights_alone(tmp_path / "x.pth")["a"], shared)


def test_a_tar_archive_is_refused(tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(tmp_path / "x.pt", "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    with pytest.raises(BadInput, match="before 2017"):
        read_pt(tmp_path / "x.pt")
