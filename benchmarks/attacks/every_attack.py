"""All attacks by name: on diffusion models, a file each in `attacks`, and on GANs, in `gan_attack`."""

from __future__ import annotations

from erase.errors import match

# Spelt out, so that a list of names does not wait for torch.
ON_GANS = ("code-inversion", "latent-search", "prompt-boundary")


def every_attack() -> list[str]:
    """The names of all attacks: first those on diffusion models, then those on GANs."""
    from benchmarks.attacks.registry import attack_names

    return [*attack_names(), *ON_GANS]


def attack_kind(name: str) -> type:
    """The attack of this name; raises BadInput with the nearest guess."""
    from benchmarks.attacks.registry import attack_class

    known = match(name, every_attack(), "attack")
    if known not in ON_GANS:
        return attack_class(known)
    from benchmarks.attacks.gan.run import ATTACKS

    return ATTACKS[known]
