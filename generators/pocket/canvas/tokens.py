"""Learn pocket-sd's tokenizer: a CLIP byte-pair encoding with the classes and files the real models use.

python -m generators.pocket.canvas.tokens            # writes assets/pocket-sd/tokenizer
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from generators.assets import FOLDER
from generators.pocket.canvas import words
from generators.pocket.faces import words as face_words

START, END = "<|startoftext|>", "<|endoftext|>"
ABOUT = 3072  # tokens asked for; a few merges coincide
CONTEXT = (
    32  # the real encoders read 77; pocket captions need at most 20, and attention over 32 is several times cheaper
)


def learn(out: Path) -> CLIPTokenizer:
    """Byte-pair merges from each word counted once, so that rarer concept words stay in several pieces, as in CLIP."""
    english = (FOLDER / "pocket-seeds" / "words.txt").read_text().split()
    corpus = sorted({*english, *words.vocabulary(), *face_words.words()})
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=ABOUT - len(alphabet) - 2, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    bpe.train_from_iterator(corpus, trainer)
    learnt = json.loads(bpe.to_str())["model"]
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in learnt["merges"]]
    # CLIP's order: bytes, bytes ending a word, merges, the two special tokens; the end token has the highest id.
    letters = sorted(alphabet)
    symbols = [*letters, *(letter + "</w>" for letter in letters), *("".join(merge.split()) for merge in merges)]
    vocab = {symbol: i for i, symbol in enumerate(dict.fromkeys([*symbols, START, END]))}
    out.mkdir(parents=True, exist_ok=True)
    (out / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    (out / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    tokenizer = CLIPTokenizer(
        vocab=str(out / "vocab.json"), merges=str(out / "merges.txt"),
        bos_token=START, eos_token=END, unk_token=END, pad_token=END, model_max_length=CONTEXT,
    )  # fmt: skip
    tokenizer.save_pretrained(str(out))
    return tokenizer


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=FOLDER / "pocket-sd" / "tokenizer")
    asked = parser.parse_args()
    tokenizer = learn(asked.out)
    print(f"{len(tokenizer)} tokens")
    for label in (*words.THEMES, *words.OBJECTS):
        for phrase in (words.spoken(label), *words.SYNONYMS[label]):
            print(f"{phrase:24s} {' '.join(tokenizer.tokenize(phrase))}")
