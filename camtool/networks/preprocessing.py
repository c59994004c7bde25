"""What a network expects of its input: the one fact that reading and models share."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Preprocessing:
    """What a network expects of its input.

    Attributes:
        size: Side of the square input that the network was evaluated on, in pixels (S).
        resize: Short side to which `crop` resizes before it cuts the centre, in pixels.
        mean: Per-channel mean, of RGB in 0..1.
        std: Per-channel standard deviation, of RGB in 0..1.
        interpolation: One of nearest, bilinear, bicubic, lanczos; always antialiased.
    """

    size: int = 224
    resize: int = 256
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"

    def at(self, size: int) -> Preprocessing:
        """The same for another input size; the share that `crop` cuts away stays."""
        return replace(self, size=size, resize=round(self.resize * size / self.size))
