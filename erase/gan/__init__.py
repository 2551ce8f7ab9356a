"""What methods on GANs share: adversarial training, distillation, feedback on seeds, and latent mappers."""
