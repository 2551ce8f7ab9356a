"""What a training run costs, counted in forwards of the network."""

from __future__ import annotations


def forwards(taught: float, tuned: float, steps: int, samples: int) -> dict[str, float]:
    """U-Net sample-forwards of a run: a prediction for one latent counts one, a guided call two.

    `taught` before the first optimiser step, `tuned` in all `steps`, in which gradients are taken of `samples` lessons.
    """
    return {
        "teach_forwards": taught,
        "tune_forwards": tuned,
        "gradient_steps": steps,
        "gradient_samples": samples,
        "forwards_per_step": (taught + tuned) / steps,
        "forwards_per_sample": (taught + tuned) / samples,
    }
