"""Diffusion models: noise levels, the denoiser and its loss, samplers. Knows no physics."""
