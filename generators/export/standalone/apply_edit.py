"""Adds an edit file to a stock diffusers pipeline; cards print this code, and the clean process runs it."""

from safetensors.torch import load_file


def wear(pipe, path, strength=1.0):
    """Adds the weight changes of an edit file to a pipeline's networks, in place."""
    changes = load_file(path)
    kinds = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
    networks = {kind.replace("_encoder", ""): getattr(pipe, kind, None) for kind in kinds}
    for part, network in networks.items():
        for name, weight in network.named_parameters() if network else ():
            # transformers 5 leaves text_model. out, and edits always say it
            bare = part.startswith("text") and name.split(".")[0] in ("embeddings", "encoder", "final_layer_norm")
            key = f"{part}.text_model.{name}" if bare else f"{part}.{name}"
            if f"{key}.up" in changes:
                changes[key] = changes[f"{key}.up"].float() @ changes[f"{key}.down"].float().flatten(1)
            if key in changes:
                weight.data += strength * changes[key].reshape(weight.shape).to(weight)
