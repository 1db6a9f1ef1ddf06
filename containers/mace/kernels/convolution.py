"""MACE's convolution without its largest tensor. Imports torch and e3nn.

The message to atom i is a sum over its neighbours j of (radial weights × features of j) ⊗ spherical harmonics of ij.
mace-torch makes the product for every edge, [edges, channels * (l_max + 1)²], and then sums; on a CPU that is
mostly traffic to memory. Where the features are scalars (always in the first layer) the sum over neighbours is a
matrix product for each atom, and the large tensor never exists. mace-torch has a place for this
(`InteractionBlock.conv_fusion`), which its GPU kernels use too.
"""

from __future__ import annotations

import torch
from e3nn import o3
from mace.modules.blocks import InteractionBlock

PROBE_EDGES = 8
PROBE_TOLERANCE = 1e-5  # relative; far above rounding, far below any wrong formula


class ScalarConvolution(torch.nn.Module):  # type: ignore[misc]  # torch is not followed
    """The result of `conv_tp` followed by the sum over edges, for features of `channels` scalars.

    Args:
        product: a product of one block of scalars with spherical harmonics, channel by channel.
    """

    def __init__(self, product: o3.TensorProduct) -> None:
        super().__init__()
        self.channels = product.irreps_in1.dim
        harmonics, outputs = product.irreps_in2.slices(), product.irreps_out.slices()
        order = sorted(product.instructions, key=lambda path: outputs[path.i_out].start)
        places = {id(path): place for place, path in enumerate(product.instructions)}
        self.paths = [(places[id(path)], harmonics[path.i_in2]) for path in order]
        like = product.output_mask
        sizes = (self.channels, product.irreps_in2.dim, product.weight_numel)
        values = product(*(like.new_ones(1, size) for size in sizes))[0]
        self.factors = [float(values[block.start]) for block in outputs]  # normalisations, read off the product itself

    def forward(
        self, features: torch.Tensor, harmonics: torch.Tensor, weights: torch.Tensor, edge_index: torch.Tensor
    ) -> torch.Tensor:
        """Return messages [atoms, irreps_out.dim] from features [atoms, channels], harmonics [edges, (l_max + 1)²] and
        weights [edges, paths * channels]; edges go from edge_index[0] to edge_index[1].
        """
        atoms, paths = features.shape[0], len(self.paths)
        receivers = edge_index[1]
        counts = torch.bincount(receivers, minlength=atoms)
        most = int(counts.max())
        order = torch.argsort(receivers, stable=True)
        firsts = torch.cumsum(counts, 0) - counts
        ranks = torch.empty_like(receivers)
        ranks[order] = torch.arange(len(receivers), device=receivers.device) - firsts[receivers[order]]
        slots = receivers * most + ranks  # a place for each edge in a table [atoms, most]
        sent = weights.view(len(weights), paths, self.channels) * features[edge_index[0]].unsqueeze(1)
        sent = _padded(sent.view(weights.shape), slots, atoms, most).transpose(1, 2)
        shapes = _padded(harmonics, slots, atoms, most)
        blocks = [
            factor * torch.bmm(sent[:, place * self.channels : (place + 1) * self.channels], shapes[:, :, columns])
            for (place, columns), factor in zip(self.paths, self.factors, strict=True)
        ]
        return torch.cat([block.reshape(atoms, -1) for block in blocks], dim=1)


def _padded(rows: torch.Tensor, slots: torch.Tensor, atoms: int, most: int) -> torch.Tensor:
    """Return rows [edges, n] as [atoms, most, n], with zeros where an atom has fewer neighbours."""
    table = rows.new_zeros(atoms * most, rows.shape[1])
    return table.index_copy(0, slots, rows).view(atoms, most, rows.shape[1])


def use_fast_convolutions(model: torch.nn.Module) -> int:
    """Replace the convolutions that `ScalarConvolution` can do, after a check by numbers; return how many."""
    replaced = 0
    for interaction in model.interactions:
        product = interaction.conv_tp
        if not _of_scalars(interaction, product):
            continue
        fast = ScalarConvolution(product)
        if _agree(product, fast):
            interaction.conv_tp, interaction.conv_fusion = fast, True
            replaced += 1
    return replaced


def _of_scalars(interaction: InteractionBlock, product: torch.nn.Module) -> bool:
    """Return True if the product is of one block of scalars with single harmonics, each path with its own weights."""
    return (
        isinstance(product, o3.TensorProduct)
        and not hasattr(interaction, "conv_fusion")
        and len(product.irreps_in1) == 1
        and product.irreps_in1.lmax == 0
        and all(block.mul == 1 for block in product.irreps_in2)
        and all(path.connection_mode == "uvu" and path.has_weight for path in product.instructions)
        and len({path.i_out for path in product.instructions}) == len(product.instructions) == len(product.irreps_out)
    )


def _agree(product: o3.TensorProduct, fast: ScalarConvolution) -> bool:
    """Return True if both give the same messages for made-up numbers."""
    random = torch.Generator().manual_seed(0)
    like = product.output_mask

    def numbers(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=random).to(like) - 0.5

    features, harmonics = numbers(PROBE_EDGES, fast.channels), numbers(PROBE_EDGES, product.irreps_in2.dim)
    weights = numbers(PROBE_EDGES, product.weight_numel)
    ends = torch.arange(PROBE_EDGES, device=like.device)
    edges = torch.stack([ends, ends // 2])
    slow = like.new_zeros(PROBE_EDGES, product.irreps_out.dim)
    slow.index_add_(0, edges[1], product(features[edges[0]], harmonics, weights))
    quick = fast(features, harmonics, weights, edges)
    return bool((slow - quick).abs().max() <= PROBE_TOLERANCE * slow.abs().max())
