"""Adds an edit file to a stock diffusers pipeline; cards print this code, and the clean process runs it."""

from safetensors.torch import load_file


def wear(pipe, path, strength=1.0):
    """Adds the weight changes of an edit file to a pipeline's networks, in place."""
    changes = load_file(path)
    networks = {"unet": pipe.unet, "text": pipe.text_encoder, "text_2": getattr(pipe, "text_encoder_2", None)}
    for part, network in networks.items():
        for name, weight in network.named_parameters() if network else ():
            bare = part != "unet" and not name.startswith("text_")  # transformers 5 leaves text_model. out
            key = f"{part}.text_model.{name}" if bare else f"{part}.{name}"
            if f"{key}.up" in changes:
                changes[key] = changes[f"{key}.up"].float() @ changes[f"{key}.down"].float().flatten(1)
            if key in changes:
                weight.data += strength * changes[key].reshape(weight.shape).to(weight)
