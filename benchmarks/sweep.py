"""Time of a sweep over all thresholds against one contour search a threshold.

Usage: python benchmarks/sweep.py [--thresholds 1000] [--side 224] [--repeats 7]

Both sides run on one core, in turns, and the median is taken. The contour search gets the maps
already cut into one mask a threshold, so that it is compared by itself; "with cutting" is what
an evaluation would really spend: cut, search, take the contour of greatest area and its box.
The sweep's time is complete: from the map to the box of the largest region at every threshold.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
import numpy.typing as npt

from camtool.evaluate.levelset import relative_cuts, sweep
from camtool.regions.boxes import FloatMap

SWEEPS = 10


def make_maps(side: int, seed: int = 0) -> dict[str, FloatMap]:
    """Maps as networks give them, stretched to [0, 1] or with negative evidence, and noise."""
    random = np.random.default_rng(seed)
    maps: dict[str, FloatMap] = {}
    for cells in (7, 14):
        coarse = cv2.GaussianBlur(random.standard_normal((cells, cells)), (3, 3), 0.7)
        signed = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_LINEAR)
        maps[f"{cells}x{cells}, signed"] = np.asarray(signed, dtype=np.float32)
        maps[f"{cells}x{cells}, stretched"] = np.asarray(
            (signed - signed.min()) / np.ptp(signed), dtype=np.float32
        )
    noise = random.standard_normal((side, side)).astype(np.float32)
    maps["blurred noise"] = np.asarray(cv2.GaussianBlur(noise, (0, 0), 3), dtype=np.float32)
    maps["white noise"] = noise
    return maps


def contours_of(masks: list[npt.NDArray[np.uint8]]) -> None:
    """One contour search for each mask."""
    for mask in masks:
        cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)


def boxes_of(heatmap: FloatMap, cuts: npt.NDArray[np.float32]) -> None:
    """Cut, search and take the box of the largest contour, for each threshold."""
    for cut in cuts:
        mask = (heatmap > cut).view(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        if contours:
            cv2.boundingRect(max(contours, key=cv2.contourArea))


def sweeps_of(heatmap: FloatMap, cuts: npt.NDArray[np.float32]) -> None:
    """Several sweeps, so that they, too, run warm."""
    for _ in range(SWEEPS):
        sweep(heatmap, cuts).largest()


def medians(tasks: list[Callable[[], object]], repeats: int) -> list[float]:
    """Median seconds of each task, run in turns."""
    times: list[list[float]] = [[] for _ in tasks]
    for _ in range(repeats):
        for task, taken in zip(tasks, times, strict=True):
            start = time.perf_counter()
            task()
            taken.append(time.perf_counter() - start)
    return [float(np.median(taken)) for taken in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--thresholds", type=int, default=1000)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    print(f"{options.thresholds} thresholds at {options.side} x {options.side}, one core")
    print(
        f"{'map':20} {'sweep':>10} {'contours':>10} {'ratio':>6} {'with cutting':>13} {'ratio':>6}"
    )
    for name, heatmap in make_maps(options.side).items():
        cuts = relative_cuts(heatmap, np.arange(options.thresholds) / options.thresholds)
        masks = [(heatmap > cut).view(np.uint8) for cut in cuts]
        tasks: list[Callable[[], object]] = [
            partial(sweeps_of, heatmap, cuts),
            partial(contours_of, masks),
            partial(boxes_of, heatmap, cuts),
        ]
        repeats = options.repeats if "white" not in name else 1
        ours, search, whole = medians(tasks, repeats)
        ours /= SWEEPS
        print(
            f"{name:20} {ours * 1e3:7.2f} ms {search * 1e3:7.1f} ms {search / ours:6.1f}"
            f" {whole * 1e3:10.1f} ms {whole / ours:6.1f}"
        )


if __name__ == "__main__":
    main()
