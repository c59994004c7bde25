"""A folder with overlays against plain classification and against pytorch-grad-cam.

Usage: python benchmarks/folder.py PHOTOS [--model resnet50] [--pictures 1000] [--rounds 3]
                                   [--only a,c,d,e]

ResNet-50 with seeded random weights, or `--model efficientnet_lite0`, the embedded network, with
its own; PHOTOS are repeated by links until there are enough. Every
way is a process of its own, because each wants other settings of torch; the ways take turns, and
the medians of the rounds are compared. Times are without imports and without loading the network.

a  plain classification as torchvision documents it, DataLoader with one worker a core, float32
b  the usual loop with pytorch-grad-cam's GradCAM, overlays as JPEG (needs `pip install grad-cam`)
c  camtool in float32, without the report
d  camtool in its fastest setting: bfloat16 where the CPU has AMX, else float32 as in c
e  camtool's engine in the setting of d, classifying only: no maps, nothing written
f  as c, with the network's module as it is: nothing folded or fused
g  the limit: the pictures only read, and written again as the JPEGs that overlays are
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

CLASSES = {
    "a": "torchvision, DataLoader, float32, classifying only",
    "b": "pytorch-grad-cam, the usual loop",
    "c": "camtool, float32",
    "d": "camtool, fastest setting",
    "e": "camtool's engine, as d, classifying only",
    "f": "camtool, float32, unfused",
    "g": "only reading and writing pictures",
}


class Photos(torch.utils.data.Dataset[Tensor]):
    """The pictures of a folder, each through a transform of torchvision's."""

    def __init__(self, folder: Path, transform: Callable[[Any], Tensor]) -> None:
        self._paths = sorted(folder.iterdir())
        self._transform = transform

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> Tensor:
        """Float [3,224,224], normalised."""
        from PIL import Image

        with Image.open(self._paths[number]) as image:
            prepared: Tensor = self._transform(image.convert("RGB"))
        return prepared


def bare(name: str) -> tuple[nn.Module, Callable[[Any], Tensor]]:
    """A network as its users have it, and its transform."""
    from torchvision.transforms import InterpolationMode, v2

    from camtool.networks import load_network

    network = load_network(name, None if name == "efficientnet_lite0" else "random")
    spec = network.preprocessing
    steps = [
        v2.Resize(spec.resize, InterpolationMode(spec.interpolation)),
        v2.CenterCrop(spec.size),
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(spec.mean, spec.std),
    ]
    return network.module.eval(), v2.Compose(steps)


def plain(name: str, folder: Path, _output: Path) -> Callable[[], None]:
    from camtool.engines.threads import available_cores

    module, transform = bare(name)
    loader = torch.utils.data.DataLoader(
        Photos(folder, transform), batch_size=32, num_workers=available_cores()
    )

    def classify() -> None:
        with torch.inference_mode():
            for batch in loader:
                module(batch).softmax(1).topk(1)

    return classify


def gradcam(name: str, folder: Path, output: Path) -> Callable[[], None]:
    import cv2

    # Imported by name, for it need not be installed.
    library = import_module("pytorch_grad_cam")
    show_cam_on_image = import_module("pytorch_grad_cam.utils.image").show_cam_on_image
    found = bare(name)
    module: Any = found[0].requires_grad_()
    photos = Photos(folder, found[1])
    layer = module.layer4[-1] if name == "resnet50" else module.head
    cam = library.GradCAM(model=module, target_layers=[layer])

    def explain() -> None:
        for number, path in enumerate(sorted(folder.iterdir())):
            heat = cam(input_tensor=photos[number][None], targets=None)[0]
            picture = np.asarray(cv2.imread(str(path)))
            height, width = picture.shape[:2]
            heat = cv2.resize(heat, (width, height))
            shown = show_cam_on_image(np.float32(picture) / 255, heat, use_rgb=False)
            cv2.imwrite(str(output / f"{number}.jpg"), shown)

    return explain


def camtool_run(
    name: str, dtype: str, folder: Path, output: Path, fused: bool = True
) -> Callable[[], None]:
    from camtool.folder.run import FolderRun, Plan
    from camtool.views.overlay import Look
    from camtool.views.save import Views

    model = loaded(name, dtype, fused)
    views = Views(("overlay",), Look(), boxes=False, picture=".jpg")
    plan = Plan(str(folder), output, views, report=False)

    def explain() -> None:
        summary = FolderRun(model, plan).run()
        if summary.done != summary.total:
            raise RuntimeError(f"{summary.failed} pictures failed")

    return explain


def reading(folder: Path, output: Path) -> Callable[[], None]:
    from concurrent.futures import ThreadPoolExecutor

    from camtool.engines.threads import available_cores
    from camtool.files import write_atomically
    from camtool.images import read_image
    from camtool.images.write import encode

    def copy(path: Path) -> None:
        write_atomically(output / f"{path.stem}.jpg", encode(read_image(path), ".jpg"))

    def copy_all() -> None:
        with ThreadPoolExecutor(available_cores()) as pool:
            list(pool.map(copy, sorted(folder.iterdir())))

    return copy_all


def classifying(name: str, dtype: str, folder: Path, _output: Path) -> Callable[[], None]:
    """The same readers, lanes and batches; the lanes stop at the probabilities."""
    from camtool.engines import ENGINES
    from camtool.engines.engine import Job, Request
    from camtool.engines.stream import explain_jobs

    model = loaded(name, dtype)

    def classify_batch(batch: Any, _indices: object, topk: int) -> list[Any]:
        with torch.inference_mode():
            best = model.forward(model.inputs(batch)).logits.softmax(1).topk(topk)
        return [Classified(item.image, *found) for item, *found in zip(batch, *best, strict=True)]

    model.explain_indices = classify_batch
    engine = ENGINES["threads"](model, Request(), None, print)
    jobs = [Job(number, path) for number, path in enumerate(sorted(folder.iterdir()))]

    def classify() -> None:
        for _ in explain_jobs(engine, jobs):
            pass

    return classify


class Classified:
    """What is left of a picture where only its class is wanted."""

    def __init__(self, image: Any, probability: Tensor, index: Tensor) -> None:
        self.image, self.probability, self.index = image, probability, index


def loaded(name: str, dtype: str, fused: bool = True) -> Any:
    import camtool
    from camtool.accelerate.memory import keep_freed_memory

    keep_freed_memory()
    weights = None if name == "efficientnet_lite0" else "random"
    model = camtool.load(name, weights=weights, device="cpu", dtype=dtype, fit="crop")
    if fused:
        model.fuse()
    return model


def fastest() -> str:
    from camtool.accelerate.fuse import bf16_pays

    return "bfloat16" if bf16_pays() else "float32"


def seconds_of(way: str, name: str, folder: Path, output: Path) -> float:
    """Run one way in this process; its time without imports and loading."""
    ways: dict[str, Callable[[], Callable[[], None]]] = {
        "a": lambda: plain(name, folder, output),
        "b": lambda: gradcam(name, folder, output),
        "c": lambda: camtool_run(name, "float32", folder, output),
        "d": lambda: camtool_run(name, fastest(), folder, output),
        "e": lambda: classifying(name, fastest(), folder, output),
        "f": lambda: camtool_run(name, "float32", folder, output, fused=False),
        "g": lambda: reading(folder, output),
    }
    run = ways[way]()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def in_a_process(way: str, name: str, folder: Path) -> float:
    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, __file__, str(folder), "--model", name]
        command += ["--way", way, "--output", output]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def repeated(photos: Path, folder: Path, count: int) -> None:
    originals = sorted(path for path in photos.resolve().iterdir() if path.is_file())
    for number in range(count):
        original = originals[number % len(originals)]
        (folder / f"{number:05d}{original.suffix}").symlink_to(original)


def compare(name: str, photos: Path, count: int, rounds: int, ways: list[str]) -> None:
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        repeated(photos, Path(folder), count)
        for _ in range(rounds):
            for way in ways:
                seconds[way].append(in_a_process(way, name, Path(folder)))
    print(f"{name}, {count} pictures, {rounds} rounds; d and e in {fastest()}")
    references = [way for way in ("a", "b", "e", "f", "g") if way in ways]
    print(f"{'':>54} pictures/s " + " ".join(f"× {way:>4}" for way in references))
    for way in ways:
        ratios = (
            statistics.median(x / y for x, y in zip(seconds[other], seconds[way], strict=True))
            for other in references
        )
        rate = count / statistics.median(seconds[way])
        print(f"{way}  {CLASSES[way]:<50} {rate:11.1f} " + " ".join(f"{r:6.2f}" for r in ratios))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", default="resnet50", choices=["resnet50", "efficientnet_lite0"])
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="a,b,c,d,e")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        print(seconds_of(arguments.way, arguments.model, arguments.photos, arguments.output))
        return
    ways = arguments.only.split(",")
    if "b" in ways and find_spec("pytorch_grad_cam") is None:
        print("without b: pytorch-grad-cam is not installed (pip install grad-cam)")
        ways.remove("b")
    compare(arguments.model, arguments.photos, arguments.pictures, arguments.rounds, ways)


if __name__ == "__main__":
    main()
