"""Stable Diffusion 1.x, 2.x and XL behind the Denoiser protocol."""
