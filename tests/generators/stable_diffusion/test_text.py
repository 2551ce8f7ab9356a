"""Which rows of which prompts stand for a concept."""

from __future__ import annotations

import pytest
import torch

from erase.concept import Concept
from erase.errors import BadInput
from tests.toys.pipelines import FAMILIES


def pieces(model, text):
    tokens = model.reading.tokenizers[0](text).input_ids
    return model.reading.tokenizers[0].convert_ids_to_tokens(tokens)


def test_toy_words_split_as_the_expectations_below_assume(models):
    assert pieces(models["sd1"], "Van Gogh")[1:-1] == ["van</w>", "go", "g", "h</w>"]
    assert pieces(models["sd1"], "jellyfish")[1:-1] == ["jelly", "fi", "s", "h</w>"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("name", "last"), [("cat", 1), ("jellyfish", 4), ("Van_Gogh", 4)])
def test_last_row_is_the_last_sub_token(models, family, name, last):
    model = models[family]
    found = model.contrast(Concept(name=name, kind="style"))
    assert torch.allclose(found.present, model.encode([name.replace("_", " ")]).tokens[:, last], atol=1e-5)
    assert torch.allclose(found.absent, model.encode(["painting"]).tokens[:, 1], atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_empty_anchor_is_the_first_end_row_not_the_start(models, family):
    model = models[family]
    found = model.contrast(Concept(name="jellyfish"))
    empty = model.encode([""]).tokens[0]
    assert torch.allclose(found.absent[0], empty[1], atol=1e-5)
    assert (found.absent[0] - empty[0]).abs().max() > 0.1


def test_tails_start_at_each_subject_and_end_together(models):
    model = models["sd1"]
    found = model.contrast(Concept(name="jellyfish", anchor="a dog"), "tail")
    present, absent = model.encode(["jellyfish", "a dog"]).tokens
    assert torch.allclose(found.present, present[4:], atol=1e-5)
    assert torch.allclose(found.absent, absent[2 : 2 + 73], atol=1e-5)


def test_all_rows_are_paired_place_by_place(models):
    model = models["sd1"]
    found = model.contrast(Concept(name="cat", anchor="dog"), "all")
    assert torch.allclose(torch.stack([found.present, found.absent]), model.encode(["cat", "dog"]).tokens, atol=1e-5)


def test_one_row_for_every_phrase_in_every_template(models):
    model = models["sd1"]
    concept = Concept(name="pets", prompts=("cat", "jellyfish"), anchor="dog")
    found = model.contrast(concept, templates=("{}", "a photo of {} in van gogh style"))
    sentences = model.encode([f"a photo of {word} in van gogh style" for word in ("cat", "jellyfish", "dog")]).tokens
    bare = model.encode(["cat", "jellyfish", "dog"]).tokens
    present = torch.stack([bare[0, 1], bare[1, 4], sentences[0, 4], sentences[1, 7]])
    assert torch.allclose(found.present, present, atol=1e-5)
    assert torch.allclose(found.absent, torch.stack([bare[2, 1]] * 2 + [sentences[2, 4]] * 2), atol=1e-5)


def test_sentence_tails_go_on_with_the_sentence(models):
    model = models["sd1"]
    found = model.contrast(Concept(name="jellyfish", anchor="cat"), "tail", templates=("a {} image",))
    present, absent = model.encode(["a jellyfish image", "a cat image"]).tokens
    assert torch.allclose(found.present, present[5:], atol=1e-5)
    assert torch.allclose(found.absent, absent[2 : 2 + 72], atol=1e-5)


def test_an_empty_anchor_in_a_sentence_is_where_the_sentence_ends(models):
    model = models["sd1"]
    found = model.contrast(Concept(name="cat"), templates=("a photo of {}",))
    assert torch.allclose(found.absent[0], model.encode(["a photo of"]).tokens[0, 4], atol=1e-5)


def test_after_an_empty_anchor_each_word_is_paired_with_itself(models):
    model = models["sd1"]
    found = model.contrast(Concept(name="cat"), "tail", templates=("a {} image in a photo",))
    before, without = model.encode(["a", "a image in a photo"]).tokens
    assert torch.allclose(found.absent[0], before[2], atol=1e-5)  # the end row after "a"
    assert torch.allclose(found.absent[1:4], without[2:5], atol=1e-5)


def test_a_template_needs_one_gap_and_a_phrase_must_fit(models):
    for template in ("a photo", "{} and {}"):
        with pytest.raises(BadInput, match="exactly one"):
            models["sd1"].contrast(Concept(name="cat"), templates=(template,))
    with pytest.raises(BadInput, match="75 tokens"):
        models["sd1"].contrast(Concept(name="cat " * 80))


@pytest.mark.parametrize("family", FAMILIES)
def test_resting_codes_are_the_start_and_the_empty_prompt(models, family):
    model = models[family]
    resting = model.resting_codes()
    assert torch.allclose(resting, model.encode([""]).tokens[0])
    assert torch.allclose(resting[0], model.encode(["a cat"]).tokens[0, 0], atol=1e-5)


def test_equal_prompts_are_read_once_and_order_is_kept(models):
    model, read = models["xl"], []
    hook = model.network.text_2.register_forward_pre_hook(
        lambda _, args, kwargs: read.append(len(args[0])), with_kwargs=True
    )
    try:
        codes = model.encode(["a cat", "a dog", "a cat"])
    finally:
        hook.remove()
    assert read == [2]
    assert torch.equal(codes.tokens[0], codes.tokens[2])
    assert torch.equal(codes.pooled[0], codes.pooled[2])
    assert torch.allclose(codes.tokens[1], model.encode(["a dog"]).tokens[0], atol=1e-5)
    with pytest.raises(ValueError, match="list"):
        model.encode("a cat")


@pytest.mark.parametrize(("family", "readers", "width"), [("sd1", 8, 32), ("sd2", 8, 64), ("xl", 16, 96)])
def test_readers_are_the_layers_that_read_codes(models, family, readers, width):
    model = models[family]
    found = model.readers()
    assert len(found) == readers
    assert {layer.in_features for layer in found.values()} == {width}
    for name, layer in found.items():
        assert model.network.get_submodule(name) is layer
        assert name.startswith("unet.")


def test_network_shares_the_modules_and_leaves_the_vae_out(models):
    names = [name for name, _ in models["xl"].network.named_parameters()]
    assert {name.split(".")[0] for name in names} == {"unet", "text", "text_2"}


@pytest.mark.parametrize("family", FAMILIES)
def test_reading_word_vectors_from_the_table_is_encoding_to_the_bit(models, family):
    model = models[family]
    prompts = ["a jellyfish in Van Gogh style", "", "cat " * 100]
    ids = model.frame([model.tokens(prompt) for prompt in prompts])
    assert torch.equal(ids, model.reading._words(0, prompts).input_ids)
    read, encoded = model.read(ids, model.embed(ids)), model.encode(prompts)
    assert torch.equal(read.tokens, encoded.tokens)
    assert (read.pooled is None) == (encoded.pooled is None)
    if read.pooled is not None and encoded.pooled is not None:
        assert torch.equal(read.pooled, encoded.pooled)


@pytest.mark.parametrize("family", FAMILIES)
def test_another_word_vector_changes_the_codes_from_its_place_on(models, family):
    model = models[family]
    ids = model.frame([model.tokens("a cat in Van Gogh style")])
    vectors = model.embed(ids).detach()
    vectors[:, 3] = torch.randn(vectors.shape[-1], generator=torch.Generator().manual_seed(0))
    vectors.requires_grad_(True)
    changed, before = model.read(ids, vectors), model.encode(["a cat in Van Gogh style"])
    assert torch.allclose(changed.tokens[:, :3], before.tokens[:, :3], atol=1e-6)
    assert (changed.tokens[:, 3] - before.tokens[:, 3]).abs().max() > 1e-2
    changed.tokens[0, 3, 0].backward()  # of one number: a sum over a normed row never changes
    assert vectors.grad is not None and vectors.grad[:, 3].abs().max() > 0


def test_sub_tokens_spell_the_words_they_came_from(models):
    model = models["sd1"]
    assert model.spell(model.tokens("a jellyfish in Van Gogh style")) == "a jellyfish in van gogh style"
    assert not set(model.tokens("a jellyfish")) & model.specials
    assert {*model.frame([[]])[0].tolist()} <= model.specials
