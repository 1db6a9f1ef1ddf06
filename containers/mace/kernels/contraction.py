"""MACE's symmetric contraction as the polynomial it is. Imports torch and mace.

For each atom and channel the contraction (Batatia et al., arXiv:2206.07697, eq. 10 and 11) is a polynomial of at most
third degree in the components of the message. mace-torch multiplies tensors with all 16³ index triples atom by atom;
here the coefficients are made once for an element, made symmetric, and only the pairs j <= k are kept. With symmetric
coefficients one matrix product gives the value and the gradient together.
"""

from __future__ import annotations

from itertools import permutations
from typing import Any

import torch
from mace.modules.symmetric_contraction import Contraction, SymmetricContraction

HIGHEST_DEGREE = 3
PROBE_ATOMS = 6
PROBE_TOLERANCE = 1e-5  # relative; far above rounding, far below any wrong formula


class Polynomial(torch.autograd.Function):  # type: ignore[misc]  # torch is not followed
    """f = x·(C x x + B x + A) for each atom and channel, differentiable once.

    Shapes: x [channels, components, atoms]; cubic [channels, outputs * components, pairs], square
    [channels, outputs * components, components], linear [channels, outputs * components, 1]; f [channels, outputs,
    atoms].
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, cubic: torch.Tensor, square: torch.Tensor, linear: torch.Tensor
    ) -> torch.Tensor:
        """Compute the value, and keep the gradient."""
        channels, components, atoms = x.shape
        third, second = torch.bmm(cubic, _pairs(x)), torch.bmm(square, x)
        shape = (channels, -1, components, atoms)
        ctx.save_for_backward((3 * third + 2 * second + linear).view(shape))
        return (x.unsqueeze(1) * (third + second + linear).view(shape)).sum(2)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradient of x; the coefficients are fixed."""
        (slope,) = ctx.saved_tensors
        return (gradient.unsqueeze(2) * slope).sum(1), None, None, None


class FastContraction(torch.nn.Module):  # type: ignore[misc]  # torch is not followed
    """The result of `contraction`, from message [atoms, channels, components] and one-hot elements."""

    def __init__(self, contraction: Contraction) -> None:
        super().__init__()
        self.contraction = contraction
        self._of_element: dict[int, list[torch.Tensor]] = {}

    def forward(self, message: torch.Tensor, elements: torch.Tensor) -> torch.Tensor:
        """Return [atoms, channels * (2 l + 1)]."""
        numbers = elements.argmax(dim=1)
        order = torch.argsort(numbers, stable=True)
        sizes = torch.bincount(numbers).tolist()
        x = message[order].permute(1, 2, 0).contiguous()
        values = []
        for element, piece in enumerate(x.split(sizes, dim=2)):
            if sizes[element]:
                if element not in self._of_element:
                    self._of_element[element] = coefficients(self.contraction, element)
                values.append(Polynomial.apply(piece, *self._of_element[element]))
        back = torch.argsort(order)
        return torch.cat(values, dim=2).permute(2, 0, 1).reshape(len(message), -1)[back]


def coefficients(contraction: Contraction, element: int) -> list[torch.Tensor]:
    """Return symmetric coefficients of third, second and first degree for `Polynomial`; zeros above the correlation."""
    like = contraction.weights_max
    tensors = {}  # degree -> [channels, outputs, components, ...], symmetric in the components, float64
    for degree, weight in zip(range(contraction.correlation, 0, -1), [like, *contraction.weights], strict=True):
        coupling = contraction.U_tensors(degree).double()  # [outputs if more than one, components..., paths]
        tensor = torch.tensordot(weight[element].double(), coupling, dims=([0], [coupling.dim() - 1]))
        if tensor.dim() == degree + 1:
            tensor = tensor.unsqueeze(1)
        orders = [(0, 1, *(2 + axis for axis in order)) for order in permutations(range(degree))]
        tensors[degree] = torch.stack([tensor.permute(order) for order in orders]).mean(0)
    components = tensors[1].shape[-1]
    pairs = torch.triu_indices(components, components)
    twice = torch.where(pairs[0] == pairs[1], 1.0, 2.0).to(like.device)
    square = tensors.get(2, tensors[1].new_zeros(*tensors[1].shape, components))
    cubic = tensors.get(3, square.new_zeros(*square.shape, components))[..., pairs[0], pairs[1]] * twice
    return [part.flatten(1, 2).to(like.dtype).contiguous() for part in (cubic, square, tensors[1].unsqueeze(-1))]


def _pairs(x: torch.Tensor) -> torch.Tensor:
    """Return products x_j x_k for j <= k: [channels, pairs, atoms], in the order of `triu_indices`."""
    components = x.shape[1]
    found = x.new_empty(x.shape[0], components * (components + 1) // 2, x.shape[2])
    start = 0
    for first in range(components):
        stop = start + components - first
        torch.mul(x[:, first : first + 1], x[:, first:], out=found[:, start:stop])
        start = stop
    return found


def use_fast_contractions(model: torch.nn.Module) -> int:
    """Replace the contractions that `FastContraction` can do, after a check by numbers; return how many."""
    replaced = 0
    for product in model.products:
        if not isinstance(product.symmetric_contractions, SymmetricContraction):
            continue
        contractions = product.symmetric_contractions.contractions
        for place, contraction in enumerate(contractions):
            if contraction.correlation <= HIGHEST_DEGREE and _agree(contraction, fast := FastContraction(contraction)):
                contractions[place] = fast
                replaced += 1
    return replaced


def _agree(contraction: Contraction, fast: FastContraction) -> bool:
    """Return True if both give the same values and gradients for made-up messages of several elements."""
    like = contraction.weights_max
    random = torch.Generator().manual_seed(0)
    shape = (PROBE_ATOMS, contraction.num_features, contraction.U_tensors(1).shape[-2])
    message = (torch.rand(shape, generator=random) - 0.5).to(like).requires_grad_()
    elements = torch.eye(len(like)).to(like)[torch.arange(PROBE_ATOMS) % len(like)]
    pairs = []
    for compute in (contraction, fast):
        value = compute(message, elements)
        pairs.append((value.detach(), torch.autograd.grad(value.square().sum(), message)[0]))
    return all(
        bool((slow - quick).abs().max() <= PROBE_TOLERANCE * slow.abs().max())
        for slow, quick in zip(*pairs, strict=True)
    )
