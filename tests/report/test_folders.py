"""Folders sorted by class, from pictures to the page; layers trained on the embedded network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import camtool
from camtool.folder.run import FolderRun, Plan
from camtool.views.overlay import Look
from camtool.views.save import Views

pytestmark = [pytest.mark.slow, pytest.mark.browser]

EACH = 20


def trained(root: Path, names: tuple[str, ...]) -> camtool.CamModel:
    """The embedded network with a last layer for these classes, fitted by logistic regression."""
    base = camtool.load("efficientnet_lite0", device="cpu")
    paths = [path for name in names for path in sorted((root / name).iterdir())]
    prepared = [base.prepare(path) for path in paths]
    with torch.no_grad():
        pooled = torch.cat([
            base.forward(base.inputs(prepared[start : start + 20])).features.mean((2, 3))
            for start in range(0, len(paths), 20)
        ])  # fmt: skip
    truth = torch.arange(len(names)).repeat_interleave(EACH)
    layer = torch.nn.Linear(pooled.shape[1], len(names))
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    fit = torch.optim.LBFGS(layer.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def loss():
        fit.zero_grad()
        found = torch.nn.functional.cross_entropy(layer(pooled), truth)
        found = found + 1e-3 * layer.weight.square().sum()
        found.backward()
        return found

    fit.step(loss)
    module = base.network.module
    module.fc = layer.requires_grad_(False)
    return camtool.load(module, labels=list(names), preprocessing=base.preprocessing)


def run(model, source, output):
    views = Views((), Look())
    FolderRun(model, Plan(str(source), output, views, batch_size=20), warn=lambda line: None).run()
    return json.loads((output / "run.json").read_text())["verdict"]


@pytest.mark.parametrize(
    ("seed", "corner"), [(0, "lower right"), (4, "upper left"), (5, "upper right")]
)
def test_the_class_with_a_watermark_is_flagged_and_no_other(
    open_page, drawn_by_class, tmp_path, seed, corner
):
    names = drawn_by_class(tmp_path / "photos", seed, corner)
    model = trained(tmp_path / "photos", names)
    verdict = run(model, tmp_path / "photos", tmp_path / "out")
    assert verdict["pictures"] == 200
    assert verdict["accuracy"] > 0.95
    page = open_page(tmp_path / "out" / "report.html")
    page.click("#tab-classes")
    page.choose("sort-classes", "Apart from the others")
    assert page.texts(".class h3")[:2] == ["All pictures", "stamped"]
    assert page.texts(".flagged h3") == ["stamped"]
    assert page.text("#flagged").startswith(f"⚑ Look at stamped ({corner}")
    assert page.js("document.querySelectorAll('.mark').length") == 1
    page.close()


def test_without_a_watermark_no_class_is_flagged(open_page, drawn_by_class, tmp_path):
    names = drawn_by_class(tmp_path / "photos", 1)
    model = trained(tmp_path / "photos", names)
    run(model, tmp_path / "photos", tmp_path / "out")
    page = open_page(tmp_path / "out" / "report.html", "tab=classes")
    page.wait(lambda: page.texts(".class h3"))
    assert page.text("#flagged") == ""
    page.close()


def test_a_validation_folder_shows_what_is_wrong(open_page, drawn_by_class, tmp_path):
    names = drawn_by_class(tmp_path / "train", 2)
    model = trained(tmp_path / "train", names)
    photos = tmp_path / "photos"
    drawn_by_class(photos, 3)
    # Mislabelled on purpose: three red discs lie among the lime bars.
    for n in range(3):
        (photos / "red disc" / f"{n:02d}.png").rename(photos / "lime bar" / f"moved{n}.png")
    verdict = run(model, photos, tmp_path / "out")
    wrong = verdict["pictures"] - verdict["right"]
    assert verdict["pictures"] == 200
    assert 3 <= wrong < 60
    assert {"truth": "lime bar", "predicted": "red disc", "pictures": 3} in verdict["confusions"]
    page = open_page(tmp_path / "out" / "report.html", "show=wrong")
    page.wait(lambda: page.cards())
    low, _ = verdict["interval"]
    told = f"Right: {verdict['right']} of 200, {verdict['accuracy']:.1%} (95% interval {low:.1%}"
    assert page.text("#verdict").startswith(told)
    assert page.text("#count") == f"{wrong} of 200 pictures"
    page.choose("show", "lime bar → red disc (3)")
    page.wait(lambda: len(page.cards()) == 3)
    assert set(page.cards()) == {f"lime bar/moved{n}.png" for n in range(3)}
    assert page.js("document.querySelectorAll('.card .trio canvas').length") == 9
    assert set(page.texts(".card .truth")) == {"is lime bar"}
    page.close()
