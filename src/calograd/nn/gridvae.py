"""A variational autoencoder of images of many channels: a code of few numbers, and what a code says of every pixel.

    encoder   image, conditions -> mean and log variance of the code
    decoder   code, conditions  -> ``outputs`` numbers of every channel and pixel

Channels are never shared between: an image is S x S pixels, S = 30 by default, halved twice with all channels at once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Encoder(nn.Module):
    """See above.

    Args:
        channels: of the image.
        side: of the image, an even number of pixels.
        conditions: numbers that belong to each sample.
        width: channels of the hidden images.
        code: numbers of the code.
    """

    def __init__(self, channels: int, side: int, conditions: int, width: int, code: int) -> None:
        super().__init__()
        quarter = (side // 2 + 1) // 2
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.SiLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1), nn.SiLU(), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Linear(width * quarter**2 + conditions, 128), nn.SiLU(), nn.Linear(128, 2 * code))

    def forward(self, image: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the code, shape (n, code) each."""
        mean, log_variance = self.head(torch.cat([self.body(image), conditions], dim=1)).chunk(2, dim=1)
        return mean, 6 * torch.tanh(log_variance / 6)


class Decoder(nn.Module):
    """See above; arguments as of `Encoder`, and ``outputs`` numbers of every channel and pixel."""

    def __init__(self, channels: int, side: int, conditions: int, width: int, code: int, outputs: int) -> None:
        super().__init__()
        self.shape = (outputs, channels, side, side)
        self.width, self.quarter = width, (side // 2 + 1) // 2
        self.start = nn.Sequential(
            nn.Linear(code + conditions, 128), nn.SiLU(), nn.Linear(128, width * self.quarter**2), nn.SiLU()
        )
        # from the quarter to the half: 8 -> 15 where the side is odd, 8 -> 16 where it is even
        even = int(2 * self.quarter == side // 2)
        self.body = nn.Sequential(
            nn.ConvTranspose2d(width, width, 3, stride=2, padding=1, output_padding=even), nn.SiLU(),
            nn.Conv2d(width, 4 * outputs * channels, 1), nn.PixelShuffle(2),
        )  # fmt: skip

    def forward(self, code: Tensor, conditions: Tensor) -> Tensor:
        """Shape (n, outputs, channels, side, side)."""
        image = self.start(torch.cat([code, conditions], dim=1)).unflatten(1, (self.width, self.quarter, self.quarter))
        result: Tensor = self.body(image).unflatten(1, self.shape[:2])
        return result
