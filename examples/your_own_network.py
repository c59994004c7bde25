"""Explain a network that you wrote; this one ends in global average pooling and a linear layer."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

import camtool


class Small(nn.Module):
    """Three convolutions, global average pooling as a plain call, and a linear layer."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, 2, 1),
            nn.ReLU(),
        )
        self.classify = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N,classes] of normalised pictures [N,3,H,W]."""
        logits: Tensor = self.classify(self.body(x).mean((2, 3)))
        return logits


def main() -> None:
    """Find the head of the network, and explain a picture with it."""
    torch.manual_seed(0)
    model = camtool.load(Small(classes=2), labels=["cup", "plate"], size=96)
    head = model.head
    print(f"features: {head.features}, linear layer: {head.layer}, error {head.max_error:.1e}")
    explanation = model.explain(Path(__file__).with_name("espresso.jpg"), targets=["cup", "plate"])
    print(explanation)


if __name__ == "__main__":
    main()
