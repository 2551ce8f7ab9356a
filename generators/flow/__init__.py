"""Flow transformers: Stable Diffusion 3 and FLUX.1 as Denoisers."""
