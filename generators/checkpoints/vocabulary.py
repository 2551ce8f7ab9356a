"""CLIP's own words: the byte-pair vocabulary that the open_clip package carries."""

from __future__ import annotations

import gzip
import json
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from erase.errors import BadInput
from generators.checkpoints.parts import Tokenizer

SIZE = 49408  # two alphabets of 256 bytes, 48,894 merges, start and end
START, END = "<|startoftext|>", "<|endoftext|>"


def clip_tokenizer(pad: str = END) -> Tokenizer:
    """The tokenizer every published Stable Diffusion was trained with; they differ in what they pad with."""
    spec = find_spec("open_clip")
    folders = list(spec.submodule_search_locations or []) if spec else []
    path = Path(folders[0], "bpe_simple_vocab_16e6.txt.gz") if folders else None
    if path is None or not path.is_file():
        raise BadInput("CLIP's vocabulary comes with the package open_clip_torch; install it or pass a config folder.")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        merges = file.read().split("\n")[1 : SIZE - 512 - 2 + 1]
    letters = _alphabet()
    symbols = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(merge.split()) for merge in merges)]
    vocab = {symbol: number for number, symbol in enumerate([*symbols, START, END])}
    # Through files, because the constructors of transformers 4 and 5 have nothing else in common.
    with TemporaryDirectory() as home:
        Path(home, "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
        Path(home, "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), encoding="utf-8")
        return Tokenizer.from_pretrained(
            home, model_max_length=77, bos_token=START, eos_token=END, unk_token=END, pad_token=pad
        )


def _alphabet() -> list[str]:
    """One printable character per byte, in the order CLIP numbers them: printable ones first, as themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + place) for place in range(len(rest))]
