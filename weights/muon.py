"""Muon for convolutions on the sphere: orthogonalised momentum with weights of fixed norm.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024); the fixed norm,
which batch norm makes harmless, makes the learning rate a relative step and weight decay needless.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

# Quintic coefficients from Jordan et al. (2024): they trade accuracy for a steep slope at zero.
_QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrix: torch.Tensor, steps: int = 3) -> torch.Tensor:
    """Approximate the nearest semi-orthogonal matrix by Newton-Schulz iteration.

    Args:
        matrix: Float ``[rows, columns]``.
        steps: Iterations of the quintic polynomial.

    Returns:
        A matrix of the same shape whose large singular values lie near one.
    """
    a, b, c = _QUINTIC
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x: torch.Tensor = wide / (wide.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


class Muon(torch.optim.Optimizer):
    """Orthogonalised Nesterov momentum; each weight keeps the Frobenius norm ``sqrt(outputs)``.

    Args:
        params: Convolution weights ``[outputs, inputs, kH, kW]``, each followed by batch norm.
        lr: Length of a step relative to the weight's norm.
        momentum: Nesterov momentum.
    """

    def __init__(
        self, params: Iterable[torch.Tensor], lr: float = 0.05, momentum: float = 0.9
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every weight that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group["lr"], group["momentum"])

    def _update(
        self, weight: torch.Tensor, gradient: torch.Tensor, lr: float, momentum: float
    ) -> None:
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        average: torch.Tensor = state["momentum"]
        average.lerp_(gradient, 1 - momentum)
        nesterov = gradient.lerp(average, momentum)
        step = orthogonalize(nesterov.reshape(len(weight), -1)).reshape_as(weight)
        norm = len(weight) ** 0.5
        weight.mul_(norm / weight.norm())
        weight.sub_(step, alpha=lr * norm / (float(step.norm()) + 1e-7))
