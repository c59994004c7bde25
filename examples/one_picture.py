"""Explain one picture: labels, what they add up from, boxes, and a panel."""

from __future__ import annotations

import sys
from pathlib import Path

import camtool


def main(path: Path) -> None:
    """Explain a picture and save the panel in the current folder."""
    model = camtool.load()
    explanation = model.explain(path, topk=3)
    for k, label in enumerate(explanation.labels):
        total = explanation.maps[k].mean() + explanation.bias[k]
        print(
            f"{label}: logit {explanation.logits[k]:.3f} = mean of the map + bias {total:.3f}, "
            f"boxes {explanation.boxes(k)[:1]}"
        )
    print("saved", explanation.save(f"{path.stem}.cam.png"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
