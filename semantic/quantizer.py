"""Segment-wise vector quantisation, eq. (5) to (7), (9) and (12).

Each of the M segments of a token has its own codebook of K codewords of length d. Codebooks follow the
encoder as a running k-means ("ema"), or by the gradient of the first term of eq. (12) ("gradient").
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from semantic.codec_config import QuantizerConfig

# A codeword used less than this share of its fair part of the vectors counts as dead.
DEAD_SHARE = 0.02
# Rows of the distance table computed at once, to bound memory.
CHUNK = 1 << 14


@dataclass(frozen=True)
class Quantized:
    """Result of quantising one layer.

    Args:
        vectors: float32 ``[B, N, D]``, codewords with the straight-through gradient.
        indices: int64 ``[B, N, M]``.
        loss: scalar, eq. (12) averaged over all values.
    """

    vectors: Tensor
    indices: Tensor
    loss: Tensor


@dataclass(frozen=True)
class CodebookUse:
    """How evenly the codewords of M codebooks are used.

    Args:
        usage: float32 ``[M]``, share of the codewords that are not dead.
        perplexity: float32 ``[M]``, ``exp(entropy)`` of the codewords: the number of equally likely
            codewords that would carry as much. At most K.
    """

    usage: Tensor
    perplexity: Tensor


def codebook_use(counts: Tensor) -> CodebookUse:
    """Statistics of how often each codeword was chosen, float ``[M, K]``, not all zero in a row."""
    share = counts / counts.sum(dim=1, keepdim=True)
    alive = share >= DEAD_SHARE / counts.shape[1]
    entropy = torch.special.entr(share).sum(dim=1)
    return CodebookUse(alive.float().mean(dim=1), entropy.exp())


class SegmentwiseQuantizer(nn.Module):
    """M codebooks of K codewords of length d for one layer.

    Args:
        dim: D = M d.
        config: d, K and how codebooks are learnt.
    """

    count: Tensor
    total: Tensor

    def __init__(self, dim: int, config: QuantizerConfig) -> None:
        super().__init__()
        self.config = config
        self.segments = dim // config.segment_length
        shape = (self.segments, config.codewords, config.segment_length)
        start = torch.randn(shape)
        self.codebook = nn.Parameter(start, requires_grad=config.update == "gradient")
        # Running number of vectors per codeword and their running sum (in "gradient" mode the number
        # still tells how probable a codeword is, which the substitute for an erasure needs, and which
        # codewords are dead).
        self.register_buffer("count", torch.ones(shape[:2]))
        self.register_buffer("total", start.clone())

    def forward(self, features: Tensor) -> Quantized:
        """Quantise float ``[B, N, D]``: eq. (5) with the straight-through gradient, and eq. (12)."""
        features = features.float()
        indices = self.nearest(features)
        codewords = self.lookup(indices)
        loss = self.config.beta * (features - codewords.detach()).square().mean()
        if self.config.update == "gradient":
            loss = loss + (features.detach() - codewords).square().mean()
        vectors = features + (codewords - features).detach()
        return Quantized(vectors, indices, loss)

    @torch.no_grad()
    def nearest(self, features: Tensor) -> Tensor:
        """Index of the nearest codeword of every segment, eq. (6) and (7).

        Args:
            features: float32 ``[B, N, D]``.

        Returns:
            int64 ``[B, N, M]``.
        """
        batch, tokens, _ = features.shape
        segments = self._split(features)
        # |x - c|^2 = |x|^2 - 2 x.c + |c|^2, and |x|^2 is the same for every codeword.
        half_norm = 0.5 * self.codebook.square().sum(-1)[:, None]
        found = [
            _first_minimum(torch.baddbmm(half_norm, part, self.codebook.transpose(1, 2), alpha=-1))
            for part in segments.split(CHUNK, dim=1)
        ]
        return torch.cat(found, dim=1).T.reshape(batch, tokens, self.segments)

    def lookup(self, indices: Tensor, erased: Tensor | None = None) -> Tensor:
        """Codewords of indices, eq. (9); an erased index becomes the codebook's mean codeword.

        Args:
            indices: int64 ``[B, N, M]``.
            erased: bool ``[B, N, M]``, True where the index is not known.

        Returns:
            float32 ``[B, N, D]``.
        """
        numbers = torch.arange(self.segments, device=indices.device)
        vectors = self.codebook[numbers, indices]
        if erased is not None:
            vectors = torch.where(erased[..., None], self.mean_codeword().to(vectors), vectors)
        return vectors.flatten(2)

    def mean_codeword(self) -> Tensor:
        """Mean of the codewords weighted by how often each is used: float32 ``[M, d]``.

        It is the least-squares estimate of a segment about which nothing was received.
        """
        share = self.count / self.count.sum(dim=1, keepdim=True)
        return (share[..., None] * self.codebook.detach()).sum(dim=1)

    @torch.no_grad()
    def posterior_mean(self, bit_llrs: Tensor) -> Tensor:
        """Mean codeword given unreliable bits: the least-squares estimate of every segment.

        ``P(k | LLRs)`` is proportional to how often codeword k is used times the probability of its
        bits. Bits known for certain give :meth:`lookup`, all-zero LLRs give :meth:`mean_codeword`.

        Args:
            bit_llrs: float32 ``[B, N, M, log2 K]``, ``ln P(0)/P(1)``, most significant bit first.

        Returns:
            float32 ``[B, N, D]``.
        """
        width = self.config.bits_per_index
        numbers = torch.arange(self.config.codewords, device=bit_llrs.device)
        shifts = torch.arange(width - 1, -1, -1, device=bit_llrs.device)
        ones = ((numbers >> shifts[:, None]) & 1).to(bit_llrs)  # [log2 K, K]
        # Up to a constant ln P(bits) is minus the sum of the LLRs where the codeword has a 1.
        scores = self.count.clamp_min(1e-9).log() - bit_llrs @ ones
        weights = scores.softmax(-1)
        return torch.einsum("bnmk,mkd->bnmd", weights, self.codebook).flatten(2)

    @torch.no_grad()
    def update(self, features: Tensor, indices: Tensor) -> int:
        """One step of the running statistics; a dead codeword restarts on a vector of this batch.

        With ``update: ema`` the codebooks follow as a running k-means; with ``gradient`` they are left to
        the optimiser, except for the dead ones, which no gradient would ever reach again.

        Args:
            features: float32 ``[B, N, D]``, what was quantised.
            indices: int64 ``[B, N, M]``, where it went.

        Returns:
            Number of codewords revived.
        """
        segments = self._split(features.float())
        flat = indices.flatten(0, 1).T  # [M, B N]
        counted, summed = self._statistics(segments, flat)
        decay = self.config.decay
        self.count.mul_(decay).add_(counted, alpha=1 - decay)
        self.total.mul_(decay).add_(summed, alpha=1 - decay)
        revived = self._revive(segments)
        means = self.total / self.count[..., None]
        if self.config.update == "gradient":
            means = torch.where(revived[..., None], means, self.codebook)
        self.codebook.copy_(means)
        return int(revived.sum())

    def use(self) -> CodebookUse:
        """How the codewords were used lately (running counts of training)."""
        return codebook_use(self.count)

    @torch.no_grad()
    def initialise(self, features: Tensor, batches: int = 1, iterations: int = 10) -> None:
        """Set the codebooks by k-means (Lloyd).

        Args:
            features: float ``[B, N, D]``.
            batches: how many training batches these make up; the running averages are per batch.
            iterations: Lloyd iterations.
        """
        segments = self._split(features.float())
        vectors = segments.shape[1]
        chosen = torch.randint(vectors, (self.segments, self.config.codewords))
        numbers = torch.arange(self.segments)[:, None]
        self.codebook.copy_(segments[numbers, chosen])
        for _ in range(iterations):
            indices = self.nearest(features.float()).flatten(0, 1).T
            counted, summed = self._statistics(segments, indices)
            self.count.copy_(counted / batches)
            self.total.copy_(summed / batches)
            self._revive(segments)
            self.codebook.copy_(self.total / self.count[..., None])

    def _statistics(self, segments: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors per codeword ``[M, K]`` and their sum ``[M, K, d]``."""
        counted = torch.zeros_like(self.count)
        counted.scatter_add_(1, indices, torch.ones_like(indices, dtype=counted.dtype))
        summed = torch.zeros_like(self.total)
        wide = indices[..., None].expand(-1, -1, segments.shape[-1])
        summed.scatter_add_(1, wide, segments)
        return counted, summed

    def _revive(self, segments: Tensor) -> Tensor:
        """Restart dead codewords on random vectors, average and count together; which ones ``[M, K]``."""
        fair = self.count.mean(dim=1, keepdim=True)
        dead = self.count < DEAD_SHARE * fair
        where, which = dead.nonzero(as_tuple=True)
        if len(where) == 0:
            return dead
        source = torch.randint(segments.shape[1], (len(where),), device=segments.device)
        # Half a fair share: enough to survive until the next batches vote.
        weight = 0.5 * fair[where, 0]
        self.count[where, which] = weight
        self.total[where, which] = segments[where, source] * weight[:, None]
        return dead

    def _split(self, features: Tensor) -> Tensor:
        """``[B, N, D]`` -> ``[M, B N, d]``, eq. (6)."""
        return features.reshape(-1, self.segments, self.config.segment_length).transpose(0, 1)


def _first_minimum(table: Tensor) -> Tensor:
    """``argmin`` over the last axis, the lowest index where several are equal.

    Written with element-wise minima because torch's own argmin does not use SIMD on a CPU (2 to 3
    times slower here).
    """
    count = table.shape[-1]
    least = table.amin(-1, keepdim=True)
    numbers = torch.arange(count, dtype=torch.float32, device=table.device)
    return torch.where(table <= least, numbers, float(count)).amin(-1).long().clamp_max(count - 1)
