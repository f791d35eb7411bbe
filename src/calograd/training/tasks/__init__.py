"""Tasks of the training loop: denoising, distillation, adaptation, and all of these for points."""
