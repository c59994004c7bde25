"""What results depend on, and what differs between two runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from camtool.model import CamModel


def model_settings(model: CamModel) -> dict[str, Any]:
    """Everything of a model that its maps depend on, as JSON, without its labels."""
    record = model.describe()
    # The error of the proof has last digits that depend on the machine; and where a file is does
    # not matter once its content is known.
    del record["head"]["max_error"]
    if record["sha256"]:
        del record["weights"]
    return {
        **record,
        "fit": model.fit,
        "size": model.preprocessing.size,
        "dtype": str(model.dtype).removeprefix("torch."),
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between the settings of two runs, a line each: "topk: 1, now 3"."""
    old, new = dict(_flat(before)), dict(_flat(now))
    return [
        f"{key}: {old.get(key)}, now {new.get(key)}"
        for key in {**old, **new}
        if old.get(key) != new.get(key)
    ]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings with those inside others named "outer.inner"."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
