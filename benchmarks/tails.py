"""What maps are worth behind heads of many kinds, all trained on the same frozen features.

Usage: python benchmarks/tails.py DATA [--seeds 3] [--scored 80]
       python benchmarks/tails.py DATA --picture FILE --label NAME --output FILE

DATA is Tiny ImageNet. The embedded network's body sees 50 of its classes, enlarged to 224; on its
1,280 maps of 7x7 heads are trained, each from several seeds. Then maps of the true class are made
for the validation pictures of these classes, behind every head at the same cut: where the body
ends. Tables in Markdown:

* how right the heads are, and which place camtool would cut at by itself;
* MaxBoxAcc at IoU 0.5 of each method, and what it gains over the integrated map, with 95 %
  intervals from one set of bootstrap samples of the pictures; figures are means over the seeds;
* what is missing: the median over pictures of |sum of the map + bias - logit|, divided by the
  median of |logit|. Gradient methods add up over places (as they do for a linear head) and have no
  bias; the integrated map adds up in the mean.

Score-CAM needs 1,280 forward passes a picture and is measured on some of the pictures only, evenly
spaced; its gain is over the integrated map on the same pictures.

With --picture nothing is measured: one head is trained, and Grad-CAM's and the integrated map of a
photograph are drawn beside it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import camtool
from camtool.evaluate.datasets import Record, match_labels, read_dataset
from camtool.heads import Forward, TailHead, find_head, heads_at
from camtool.heads.tail import Tail
from camtool.images.resample import upsample
from camtool.methods import METHODS, Maps, Settings
from camtool.model import CamModel
from localization import Floats, centred, draws, figure, gain, ious_of, max_box_acc

SIDE, WIDTH = 224, 1280
EVERY = 4
"""Of the 200 classes every fourth is taken."""
PLACES = range(80)
"""Of a class's training pictures these are taken."""
BATCH = 50
AT_ONCE = 250
"""Pictures whose maps are made in one batch; the body has seen them by then."""
SHOWN = ("integrated", "gradcam", "hirescam", "layercam", "scorecam")
QUICK = tuple(name for name in SHOWN if name != "scorecam")


# Heads: from feature maps [N,1280,7,7] to logits.


class Pooled(nn.Module):
    """Global average pooling, then layers."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, maps: Tensor) -> Tensor:
        logits: Tensor = self.layers(maps.mean((2, 3)))
        return logits


class Cosine(nn.Module):
    """A scaled cosine with one vector for each class."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, WIDTH) / WIDTH**0.5)
        self.scale = nn.Parameter(torch.tensor(16.0))

    def forward(self, pooled: Tensor) -> Tensor:
        cosine: Tensor = F.linear(F.normalize(pooled), F.normalize(self.weight))
        return self.scale * cosine


def heads_apart(tokens: Tensor, heads: int) -> Tensor:
    """[N,T,heads*D] as [N,heads,T,D]."""
    return tokens.view(*tokens.shape[:2], heads, -1).transpose(1, 2)


class AttentionPool(nn.Module):
    """One learned query looks at all places, with four heads."""

    def __init__(self, classes: int, width: int = 256, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Parameter(torch.randn(1, 1, width) / 8)
        self.keys, self.values = nn.Linear(WIDTH, width), nn.Linear(WIDTH, width)
        self.fc = nn.Linear(width, classes)

    def forward(self, maps: Tensor) -> Tensor:
        tokens = maps.flatten(2).transpose(1, 2)
        parts = (self.query.expand(len(maps), -1, -1), self.keys(tokens), self.values(tokens))
        query, keys, values = (heads_apart(part, self.heads) for part in parts)
        seen = F.scaled_dot_product_attention(query, keys, values)
        logits: Tensor = self.fc(seen.transpose(1, 2).flatten(1))
        return logits


class Transformer(nn.Module):
    """Patch tokens and a class token, one pre-norm block, and a linear layer on the class token."""

    def __init__(self, classes: int, width: int = 192, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Linear(WIDTH, width)
        self.token = nn.Parameter(torch.randn(1, 1, width) / 8)
        self.places = nn.Parameter(torch.randn(1, 50, width) / 8)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.mix, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 768), nn.GELU(), nn.Linear(768, width))
        self.fc = nn.Linear(width, classes)

    def forward(self, maps: Tensor) -> Tensor:
        tokens = self.embed(maps.flatten(2).transpose(1, 2))
        x = torch.cat([self.token.expand(len(maps), -1, -1), tokens], 1) + self.places
        parts = self.mix(self.norms[0](x)).chunk(3, 2)
        query, keys, values = (heads_apart(part, self.heads) for part in parts)
        seen = F.scaled_dot_product_attention(query, keys, values)
        x = x + self.join(seen.transpose(1, 2).flatten(2))
        x = x + self.mlp(self.norms[1](x))
        logits: Tensor = self.fc(self.norms[2](x)[:, 0])
        return logits


HEADS: dict[str, Callable[[int], nn.Module]] = {
    "linear": lambda k: Pooled(nn.Linear(WIDTH, k)),
    "linear, hardswish, linear": lambda k: Pooled(
        nn.Linear(WIDTH, 640), nn.Hardswish(), nn.Linear(640, k)
    ),
    "three linears with ReLU": lambda k: Pooled(
        nn.Linear(WIDTH, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, k)
    ),
    "LayerNorm, linear": lambda k: Pooled(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, k)),
    "RMSNorm, linear": lambda k: Pooled(nn.RMSNorm(WIDTH), nn.Linear(WIDTH, k)),
    "cosine": lambda k: Pooled(Cosine(k)),
    "LayerNorm, linear, GELU, linear": lambda k: Pooled(
        nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 640), nn.GELU(), nn.Linear(640, k)
    ),
    "attention pooling": AttentionPool,
    "transformer block": Transformer,
}


class Network(nn.Module):
    """The body of the embedded network, and another head."""

    def __init__(self, body: nn.Module, tail: nn.Module) -> None:
        super().__init__()
        self.body, self.tail = body, tail

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.tail(self.body(x))
        return logits


# Pictures and their features.


@dataclass(frozen=True)
class Data:
    """What is trained and measured on.

    Attributes:
        maps: [N,1280,7,7] of the training pictures.
        labels: int64 [N].
        records: The validation pictures; labels are indices.
        held: Their maps [M,1280,7,7].
        names: Of the classes.
    """

    maps: Tensor
    labels: Tensor
    records: list[Record]
    held: Tensor
    names: list[str]

    @property
    def classes(self) -> Tensor:
        """int64 [M,1] of the validation pictures."""
        return torch.tensor([[int(record.label)] for record in self.records])


def features(model: CamModel, paths: Sequence[Path]) -> Tensor:
    """What the body makes of pictures, [N,1280,7,7]."""
    found = []
    for start in range(0, len(paths), BATCH):
        tell(f"{start} of {len(paths)} pictures")
        batch = [model.prepare(path) for path in paths[start : start + BATCH]]
        found.append(model.forward(model.inputs(batch)).features.contiguous())
    return torch.cat(found)


def read(model: CamModel, root: Path) -> Data:
    """Pictures of every fourth class and what the body makes of them."""
    synsets = (root / "wnids.txt").read_text(encoding="utf-8").split()[::EVERY]
    paths, labels = [], []
    for label, synset in enumerate(synsets):
        some = sorted((root / "train" / synset / "images").glob("*.JPEG"))
        paths += [some[place] for place in PLACES]
        labels += [label] * len(PLACES)
    held = match_labels(read_dataset(root, "tiny-imagenet"), synsets, synsets).records
    maps = features(model, paths), features(model, [record.path for record in held])
    known = dict(zip(model.network.synsets, model.labels, strict=True))
    names = [known[synset] for synset in synsets]
    return Data(maps[0], torch.tensor(labels), held, maps[1], names)


def tell(text: str) -> None:
    """Progress, on one line."""
    print(f"\r{text:60}", end="", file=sys.stderr, flush=True)


# Training.


def train(name: str, seed: int, data: Data, epochs: int) -> nn.Module:
    """A head of a kind, trained from a seed."""
    torch.manual_seed(seed)
    head = HEADS[name](int(data.labels.max()) + 1)
    steps = epochs * (len(data.labels) // 64)
    best = torch.optim.AdamW(head.parameters(), 1e-3, weight_decay=0.05)
    rate = torch.optim.lr_scheduler.OneCycleLR(best, 1e-3, total_steps=steps)
    # The mean of means is the mean: what only pools need not be given all places each time.
    maps = data.maps.mean((2, 3), keepdim=True) if isinstance(head, Pooled) else data.maps
    for _ in range(epochs):
        for some in torch.split(torch.randperm(len(data.labels)), 64)[: steps // epochs]:
            best.zero_grad()
            loss = F.cross_entropy(head(maps[some]), data.labels[some], label_smoothing=0.1)
            loss.backward()  # type: ignore[no-untyped-call]
            best.step()
            rate.step()
    return head.eval().requires_grad_(False)


# Maps.


@dataclass(frozen=True)
class Cut:
    """A network with another head, cut where its body ends."""

    network: Network
    head: TailHead

    @classmethod
    def of(cls, body: nn.Module, tail: nn.Module) -> Cut:
        """Found and proved by camtool."""
        network = Network(body, tail).eval()
        return cls(network, heads_at(network, ["body"], SIDE)[0])

    def forward(self, maps: Tensor) -> Forward:
        """What a forward pass leaves, from what the body made of the pictures earlier."""
        assert self.head.cut is not None
        inputs = torch.empty(len(maps), 3, SIDE, SIDE, device="meta")
        tail = Tail(self.network, self.head.cut, maps, {}, inputs.shape)
        with torch.no_grad():
            logits = tail(maps)
        return Forward(maps, logits, tail, self.network, inputs, steps=self.head.steps)


def missing(name: str, found: Maps, logit: Tensor) -> Tensor:
    """What the map and its bias miss of the logit, [N,K]."""
    total = found.maps.mean((2, 3)) if name == "integrated" else found.maps.sum((2, 3))
    return (total + found.bias - logit).abs()


@dataclass
class Scores:
    """What maps of one method came to behind one head of one seed, picture by picture."""

    ious: list[Floats] = field(default_factory=list)
    from_zero: list[Floats] = field(default_factory=list)
    missing: list[float] = field(default_factory=list)
    logits: list[float] = field(default_factory=list)

    def add(self, heat: Tensor, record: Record) -> None:
        """Add a picture's map [h,w]."""
        heatmap = upsample(heat, (0, 0, *record.size), record.size).numpy()
        self.ious.append(ious_of(heatmap, record, False)[0].astype(np.float32))
        self.from_zero.append(ious_of(heatmap, record, True)[0].astype(np.float32))

    @property
    def missed(self) -> float:
        """Median of what is missing over the median logit."""
        return float(np.median(self.missing) / np.median(np.abs(self.logits)))


def measure(cut: Cut, data: Data) -> tuple[dict[str, Scores], float]:
    """Scores of the quick methods, and the accuracy in percent."""
    scores = {name: Scores() for name in QUICK}
    right = 0
    for some in torch.split(torch.arange(len(data.held)), AT_ONCE):
        forward, classes = cut.forward(data.held[some]), data.classes[some]
        right += int((forward.logits.argmax(1) == classes[:, 0]).sum())
        logit = forward.logits.gather(1, classes)
        for name, score in scores.items():
            found = METHODS[name](forward, classes, Settings())
            score.missing += missing(name, found, logit)[:, 0].tolist()
            score.logits += logit[:, 0].tolist()
            for number, heat in zip(some.tolist(), found.maps[:, 0].detach(), strict=True):
                score.add(heat, data.records[number])
    return scores, 100 * right / len(data.held)


def score_cam(
    model: CamModel, tails: Sequence[nn.Module], data: Data, numbers: Sequence[int]
) -> Iterator[Scores]:
    """Scores of Score-CAM for each of several heads on some of the pictures.

    All heads stand side by side behind one body, as one network with the logits of all of them:
    what costs is the body, and the masks are the same.
    """
    scores = [Scores() for _ in tails]

    def network(inputs: Tensor) -> Tensor:
        maps = model.forward(inputs).features.contiguous()
        return torch.cat([tail(maps) for tail in tails], 1)

    width = int(data.labels.max()) + 1
    for done, number in enumerate(numbers):
        tell(f"Score-CAM, {done} of {len(numbers)} pictures")
        record, maps = data.records[number], data.held[number : number + 1]
        inputs = model.inputs([model.prepare(record.path)])
        with torch.no_grad():
            logits = torch.cat([tail(maps) for tail in tails], 1)
            forward = Forward(maps, logits, network, network, inputs)  # type: ignore[arg-type]
            classes = data.classes[number] + width * torch.arange(len(tails))
            found = METHODS["scorecam"](forward, classes[None], Settings()).maps[0]
        for score, heat in zip(scores, found, strict=True):
            score.add(heat, record)
    yield from scores


# Tables.


def table(title: str, heading: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print(f"\n{title}\n\n| " + " | ".join(heading) + " |")
    print("|---|" + "---:|" * (len(heading) - 1))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    sys.stdout.flush()


def over_seeds(seeds: Sequence[dict[str, Scores]], name: str, which: str, some: Floats) -> Floats:
    """MaxBoxAcc of a method, mean over seeds, of the pictures as they are and of every sample."""
    tables = [np.array(getattr(scores[name], which)) for scores in seeds]
    return np.asarray(np.mean([max_box_acc(each, some) for each in tables], axis=0))


def print_tables(found: dict[str, list[dict[str, Scores]]], data: Data, numbers: list[int]) -> None:
    everything, few = draws(len(data.records)), draws(max(1, len(numbers)))
    names = [name for name in SHOWN if name in next(iter(found.values()))[0]]
    centre = centred(data.records)
    for which, rule in (
        ("ious", "a map's minimum to its maximum"),
        ("from_zero", "0 to its maximum"),
    ):
        rows, gains = [], []
        for kind, seeds in found.items():
            row, differences = [kind], [kind]
            base = over_seeds(seeds, "integrated", which, everything)
            for name in names:
                if name in QUICK:
                    values, plain = over_seeds(seeds, name, which, everything), base
                else:
                    values = over_seeds(seeds, name, which, few)
                    subset = [{"integrated": pick(s["integrated"], numbers)} for s in seeds]
                    plain = over_seeds(subset, "integrated", which, few)
                row.append(figure(values))
                differences.append(gain(values, plain))
            rows.append(row)
            gains.append(differences[:1] + differences[2:])
        middle = figure(max_box_acc(centre, everything))
        rows.append(["(centre box)", middle, *[""] * (len(names) - 1)])
        table(f"MaxBoxAcc, thresholds from {rule}", ["head", *names], rows)
        table("Gain over the integrated map", ["head", *names[1:]], gains)
    rows = []
    for kind, seeds in found.items():
        missed = (f"{np.mean([scores[name].missed for scores in seeds]):.0e}" for name in QUICK)
        rows.append([kind, *missed])
    table("Missing", ["head", *QUICK], rows)


def pick(scores: Scores, numbers: Sequence[int]) -> Scores:
    """Of some of the pictures."""
    return replace(
        scores,
        ious=[scores.ious[n] for n in numbers],
        from_zero=[scores.from_zero[n] for n in numbers],
    )


def compare(model: CamModel, body: nn.Module, data: Data, options: argparse.Namespace) -> None:
    """Train every head from every seed, and print what maps behind it are worth."""
    found: dict[str, list[dict[str, Scores]]] = {}
    tails: list[tuple[str, int, nn.Module]] = []
    rows = []
    for kind in HEADS:
        found[kind], right = [], []
        for seed in range(options.seeds):
            tell(f"{kind}, seed {seed}")
            tail = train(kind, seed, data, options.epochs)
            cut = Cut.of(body, tail)
            scores, accuracy = measure(cut, data)
            found[kind].append(scores)
            right.append(accuracy)
            tails.append((kind, seed, tail))
        own = find_head(cut.network, SIDE)
        accuracy = float(np.mean(right))
        rows.append([kind, f"{accuracy:.1f}", cut.head.kind, own.features, own.kind])
    table("Heads", ["head", "accuracy", "kind", "camtool's own cut", "kind there"], rows)
    step = len(data.records) / max(1, options.scored)
    numbers = [int(n * step) for n in range(options.scored)]
    if numbers:
        every = score_cam(model, [tail for _, _, tail in tails], data, numbers)
        for (kind, seed, _), scored in zip(tails, every, strict=True):
            found[kind][seed]["scorecam"] = scored
    print_tables(found, data, numbers)


# One picture.


def draw(model: CamModel, body: nn.Module, data: Data, options: argparse.Namespace) -> None:
    """A photograph, Grad-CAM's and the integrated map of its class on it, from left to right."""
    tail = train(options.head, 0, data, options.epochs)
    shown = []
    for method in ("gradcam", "integrated"):
        explainer = camtool.load(
            Network(body, tail),
            labels=data.names,
            preprocessing=model.preprocessing,
            device="cpu",
            method=method,
            layer="body",
        )
        explanation = explainer.explain(options.picture, targets=[options.label])
        name, probability = explanation.titles[0], explanation.probability(0)
        print(f"{method}: {name}, probability {probability}, logit {explanation.logits[0]:.3f},")
        total = explanation.maps[0].mean() if method == "integrated" else explanation.maps[0].sum()
        print(f"sum of the map {total:.3f}, bias {explanation.bias[0]:.3f}")
        shown.append(np.asarray(explanation.overlay(boxes=True)))
    sheet = np.concatenate([np.asarray(explanation.image), *shown], 1)
    Image.fromarray(sheet).resize((1200, 1200 * sheet.shape[0] // sheet.shape[1])).save(
        options.output, quality=85
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("data", type=Path, help="folder of Tiny ImageNet")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--scored", type=int, default=80, help="pictures for Score-CAM")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--picture", type=Path, help="draw maps of this photograph instead")
    parser.add_argument("--label", default="espresso", help="what is on it")
    parser.add_argument("--head", choices=HEADS, default="LayerNorm, linear", help="behind which")
    parser.add_argument("--output", type=Path, default=Path("tails.jpg"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    model = camtool.load("efficientnet_lite0", device="cpu")
    module = model.network.module
    body = nn.Sequential(*(module.get_submodule(name) for name in ("stem", "blocks", "head")))
    model.fuse()
    data = read(model, options.data)
    if options.picture is not None:
        draw(model, body, data, options)
        return
    print(f"{len(data.labels)} pictures to train on, {len(data.records)} to measure on")
    compare(model, body, data, options)


if __name__ == "__main__":
    main()
