"""Prompt files as they are published: read as a CSV library reads them, and what cannot be used is named."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from benchmarks.suites.prompts import file_rows

CAT = "a cat image in van gogh style"


@pytest.mark.parametrize(
    ("head", "line", "seed", "guidance", "case"),
    [
        (
            "Unnamed: 0,case_number,prompt,evaluation_seed,artist,evaluation_guidance",
            f"0,7,{CAT},2219,x,7.5",
            2219,
            7.5,
            "7",
        ),
        (
            "Unnamed: 0,prompt,categories,evaluation_seed,evaluation_guidance,case_number",
            f'3,"{CAT}",x,3900018758,7,3',
            3900018758,
            7.0,
            "3",
        ),
        (",prompt,evaluation_seed,case_number", f'0,"{CAT}",3016,0', 3016, None, "0"),
        ("case_number,prompt,class,evaluation_seed", f"861,{CAT},cat,4188", 4188, None, "861"),
        ("image_id,source,prompt,evaluation_seed", f"1,COCO,{CAT},5", 5, None, "1"),
        ("prompt,hard,sd_seed,sd_guidance_scale", f"{CAT},0,1234567890123456789,7", 1234567890123456789, 7.0, "1"),
        ("Prompt ;SEED", f"{CAT};4188.0", 4188, None, "1"),
        ("prompt\tseed", f"{CAT}\t9", 9, None, "1"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_public_heads_are_read(tmp_path: Path, head: str, line: str, seed: int, guidance, case: str, end: str) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes(f"\ufeff{head}{end}{line}{end}".encode())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (row,) = file_rows(path)
    assert (row.prompt, row.seed, row.guidance, row.case) == (CAT, seed, guidance, case)


def test_line_breaks_within_a_cell_and_unicodes_own_keep_rows_whole(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes('case_number,prompt\n1,"a cat\nin the sun"\n2,"a\u2028dog"\n1,again\n'.encode())
    assert [(row.case, row.prompt) for row in file_rows(path)] == [
        ("1", "a cat in the sun"),
        ("2", "a dog"),
        ("1-2", "again"),
    ]
    (tmp_path / "p.txt").write_bytes("a\u2028dog\r\nthe\x0bsea\n".encode())
    assert [row.prompt for row in file_rows(tmp_path / "p.txt")] == ["a dog", "the sea"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (",5,", "the prompt is empty"),
        ("a,inf,", "the seed 'inf'"),
        ("a,nan,", "the seed 'nan'"),
        ("a,-1,", "the seed '-1'"),
        ("a,1.5,", "the seed '1.5'"),
        (f"a,{2**63},", f"the seed '{2**63}'"),
        ("a," + "9" * 5000 + ",", "the seed '999"),
        ("a,1,nan", "the guidance nan"),
        ("a,1,much", "the guidance 'much'"),
        ("a,1,7,more", "more cells than columns"),
    ],
)
def test_rows_that_cannot_be_used_are_left_out_and_named(tmp_path: Path, line: str, why: str) -> None:
    (tmp_path / "p.csv").write_text(f"prompt,evaluation_seed,evaluation_guidance\n{CAT},1,7.5\n{line}\n")
    with pytest.warns(UserWarning, match=f"1 of 2 rows cannot be used.*line 3: .*{why}"):
        assert [row.prompt for row in file_rows(tmp_path / "p.csv")] == [CAT]
