"""What a method is, and which there are."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from camtool.errors import ModelError
from camtool.heads import Forward
from camtool.methods.cam import cam

AUTO = "auto"


class Method(Protocol):
    """Makes maps of what a forward pass left."""

    def __call__(self, forward: Forward, classes: Tensor, /) -> tuple[Tensor, Tensor]:
        """Maps and biases of some classes, which may differ from picture to picture.

        Args:
            forward: Features, logits and what the head needs.
            classes: int64 [N,K].

        Returns:
            Maps float32 [N,K,h,w], signed, in logits, at feature resolution; and float32 [N,K],
            the part of each logit that belongs to no place. A method is complete where
            mean(map) + bias is the logit; whether it is, is measured for every explanation.
        """


METHODS: dict[str, Method] = {"cam": cam}
"""Methods by the names that `--method` takes."""


def find_method(name: str) -> tuple[str, Method]:
    """The name and the method of a name; "auto" is the class activation map.

    Raises:
        ModelError: There is none of that name; lists what there is.
    """
    wanted = "cam" if name == AUTO else name
    if wanted not in METHODS:
        raise ModelError(f"method {name!r} is none of {', '.join([AUTO, *METHODS])}")
    return wanted, METHODS[wanted]
