"""StyleGAN2 checkpoints of several layouts, read without executing anything in them."""
