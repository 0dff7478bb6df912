"""Vector quantisation, eq. (5) to (7), (9) and (12), segment by segment or stage by stage.

:class:`SegmentwiseQuantizer` is the paper's: each of the M segments of a token has its own codebook of K
codewords of length d. :class:`ResidualQuantizer` puts in the place of a segment a stage: each of the M
codebooks has codewords as long as the token, and quantises what those before it left over, so that the first
indices of a token say most (Juang and Gray 1982; with stages left out in training, Zeghidour et al. 2021).
Codebooks follow the encoder as a running k-means ("ema"), or by the gradient of the first term of eq. (12)
("gradient").
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from semantic.codec_config import QuantizerConfig

# A codeword used less than this share of its fair part of the vectors counts as dead.
DEAD_SHARE = 0.02
# Rows of the distance table computed at once, to bound memory.
CHUNK = 1 << 14
ALL = slice(None)


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
class Damage:
    """What the channel did to the indices of one layer, each ``[B, N, M]``.

    Args:
        erased: bool, index not received.
        replaced: int64, the wrong index received there, or -1 where it is right.
    """

    erased: Tensor
    replaced: Tensor


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


class Quantizer(nn.Module, ABC):
    """M codebooks for one layer, whatever a codeword stands for.

    Args:
        segments: M.
        length: values of a codeword.
        config: K and how codebooks are learnt.
    """

    count: Tensor
    total: Tensor

    def __init__(self, segments: int, length: int, config: QuantizerConfig) -> None:
        super().__init__()
        self.config = config
        self.segments = segments
        shape = (segments, config.codewords, length)
        start = torch.randn(shape)
        self.codebook = nn.Parameter(start, requires_grad=config.update == "gradient")
        # Running number of vectors per codeword and their running sum (in "gradient" mode the number
        # still tells how probable a codeword is, which the substitute for an erasure needs, and which
        # codewords are dead).
        self.register_buffer("count", torch.ones(shape[:2]))
        self.register_buffer("total", start.clone())

    @abstractmethod
    def forward(self, features: Tensor, damage: Damage | None = None) -> Quantized:
        """Quantise float ``[B, N, D]``: eq. (5) with the straight-through gradient, and eq. (12).

        Args:
            features: what the encoder says.
            damage: what of it does not arrive.
        """

    @abstractmethod
    def nearest(self, features: Tensor) -> Tensor:
        """Indices of float32 ``[B, N, D]``, eq. (6) and (7): int64 ``[B, N, M]``."""

    @abstractmethod
    def join(self, codewords: Tensor) -> Tensor:
        """One vector per token from its M codewords: float ``[B, N, M, length]`` -> ``[B, N, D]``."""

    @abstractmethod
    def targets(self, features: Tensor, indices: Tensor) -> Tensor:
        """What each codebook had to quantise: float ``[M, B N, length]``."""

    @abstractmethod
    def initialise(self, features: Tensor, batches: int = 1, iterations: int = 10) -> None:
        """Set the codebooks by k-means (Lloyd).

        Args:
            features: float ``[B, N, D]``.
            batches: how many training batches these make up; the running averages are per batch.
            iterations: Lloyd iterations.
        """

    def lookup(
        self, indices: Tensor, erased: Tensor | None = None, bit_llrs: Tensor | None = None
    ) -> Tensor:
        """Codewords of indices, eq. (9); an erased index becomes the best guess of its codeword.

        Args:
            indices: int64 ``[B, N, M]``.
            erased: bool ``[B, N, M]``, True where the index is not known.
            bit_llrs: float32 ``[B, N, M, log2 K]``, what is known of the bits of erased indices; None:
                nothing, and the guess is the mean codeword.

        Returns:
            float32 ``[B, N, D]``.
        """
        numbers = torch.arange(self.segments, device=indices.device)
        codewords = self.codebook[numbers, indices]
        if erased is not None:
            guess = self.mean_codeword() if bit_llrs is None else self.posterior_mean(bit_llrs)
            codewords = torch.where(erased[..., None], guess.to(codewords), codewords)
        return self.join(codewords)

    def mean_codeword(self) -> Tensor:
        """Mean of the codewords weighted by how often each is used: float32 ``[M, length]``.

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
            float32 ``[B, N, M, length]``.
        """
        width = self.config.bits_per_index
        numbers = torch.arange(self.config.codewords, device=bit_llrs.device)
        shifts = torch.arange(width - 1, -1, -1, device=bit_llrs.device)
        ones = ((numbers >> shifts[:, None]) & 1).to(bit_llrs)  # [log2 K, K]
        # Up to a constant ln P(bits) is minus the sum of the LLRs where the codeword has a 1.
        scores = self.count.clamp_min(1e-9).log() - bit_llrs @ ones
        weights = scores.softmax(-1)
        return torch.einsum("bnmk,mkd->bnmd", weights, self.codebook)

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
        segments = self.targets(features.float(), indices)
        flat = indices.flatten(0, 1).T  # [M, B N]
        counted, summed = _statistics(segments, flat, self.config.codewords)
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

    def _lloyd(self, vectors: Tensor, stages: slice, batches: int, iterations: int) -> None:
        """K-means of some codebooks on float ``[stages, n, length]``, from vectors drawn at random."""
        books = len(vectors)
        chosen = torch.randint(vectors.shape[1], (books, self.config.codewords))
        book = vectors[torch.arange(books)[:, None], chosen]
        for _ in range(iterations):
            counted, summed = _statistics(vectors, _nearest_codeword(vectors, book), book.shape[1])
            self.count[stages] = counted / batches
            self.total[stages] = summed / batches
            self._revive(vectors, stages)
            book = self.total[stages] / self.count[stages][..., None]
        self.codebook[stages] = book

    def _revive(self, segments: Tensor, stages: slice = ALL) -> Tensor:
        """Restart dead codewords on random vectors, average and count together; which ones ``[M, K]``."""
        count, total = self.count[stages], self.total[stages]
        fair = count.mean(dim=1, keepdim=True)
        dead = count < DEAD_SHARE * fair
        where, which = dead.nonzero(as_tuple=True)
        if len(where) == 0:
            return dead
        source = torch.randint(segments.shape[1], (len(where),), device=segments.device)
        # Half a fair share: enough to survive until the next batches vote.
        weight = 0.5 * fair[where, 0]
        count[where, which] = weight
        total[where, which] = segments[where, source] * weight[:, None]
        return dead


class SegmentwiseQuantizer(Quantizer):
    """M codebooks of K codewords of length d, one for each segment of a token, eq. (6).

    Args:
        dim: D = M d.
        config: d, K and how codebooks are learnt.
    """

    def __init__(self, dim: int, config: QuantizerConfig) -> None:
        if config.segment_length is None:
            raise ValueError(
                "segment_length: not set, so this is a ResidualQuantizer's configuration"
            )
        super().__init__(dim // config.segment_length, config.segment_length, config)

    def forward(self, features: Tensor, damage: Damage | None = None) -> Quantized:
        """See :meth:`Quantizer.forward`; what does not arrive passes no gradient to the encoder."""
        features = features.float()
        indices = self.nearest(features)
        codewords = self.lookup(indices)
        loss = self.config.beta * (features - codewords.detach()).square().mean()
        if self.config.update == "gradient":
            loss = loss + (features.detach() - codewords).square().mean()
        vectors = features + (codewords - features).detach()
        if damage is None:
            return Quantized(vectors, indices, loss)
        substitute = self.lookup(damage.replaced.clamp_min(0), damage.erased)
        damaged = (damage.erased | (damage.replaced >= 0)).repeat_interleave(
            self.codebook.shape[-1], dim=-1
        )
        return Quantized(torch.where(damaged, substitute, vectors), indices, loss)

    @torch.no_grad()
    def nearest(self, features: Tensor) -> Tensor:
        """Index of the nearest codeword of every segment, eq. (6) and (7).

        Args:
            features: float32 ``[B, N, D]``.

        Returns:
            int64 ``[B, N, M]``.
        """
        batch, tokens, _ = features.shape
        found = _nearest_codeword(self._split(features), self.codebook)
        return found.T.reshape(batch, tokens, self.segments)

    def join(self, codewords: Tensor) -> Tensor:
        """One after the other."""
        return codewords.flatten(2)

    def targets(self, features: Tensor, indices: Tensor) -> Tensor:
        """The segments themselves."""
        return self._split(features)

    @torch.no_grad()
    def initialise(self, features: Tensor, batches: int = 1, iterations: int = 10) -> None:
        """See :meth:`Quantizer.initialise`."""
        self._lloyd(self._split(features.float()), ALL, batches, iterations)

    def _split(self, features: Tensor) -> Tensor:
        """``[B, N, D]`` -> ``[M, B N, d]``, eq. (6)."""
        return features.reshape(-1, self.segments, self.codebook.shape[-1]).transpose(0, 1)


class ResidualQuantizer(Quantizer):
    """M codebooks of K codewords as long as a token; each quantises what those before it left over.

    Args:
        dim: D.
        stages: M.
        config: K and how codebooks are learnt.
    """

    def __init__(self, dim: int, stages: int, config: QuantizerConfig) -> None:
        super().__init__(stages, dim, config)

    def forward(self, features: Tensor, damage: Damage | None = None) -> Quantized:
        """See :meth:`Quantizer.forward`; the gradient passes whole, however many stages arrive.

        Eq. (12) is the mean over the approximations that the first 1, 2, ... M stages make: with the last one
        alone nothing holds the scale of what the first ones code (3 dB worse after 1,000 steps).
        """
        features = features.float()
        indices = self.nearest(features)
        numbers = torch.arange(self.segments, device=indices.device)
        codewords = self.codebook[numbers, indices]
        reached = codewords.cumsum(2)
        loss = self.config.beta * (features[:, :, None] - reached.detach()).square().mean()
        if self.config.update == "gradient":
            loss = loss + (features.detach()[:, :, None] - reached).square().mean()
        arrived = reached[:, :, -1]
        if damage is not None:
            received = torch.where(damage.replaced >= 0, damage.replaced, indices)
            arrived = self.lookup(received, damage.erased)
        return Quantized(features + (arrived - features).detach(), indices, loss)

    @torch.no_grad()
    def nearest(self, features: Tensor) -> Tensor:
        """Stage by stage the codeword nearest to what is left: int64 ``[B, N, M]``."""
        left = features.flatten(0, 1)
        found = []
        for book in self.codebook:
            chosen = _nearest_codeword(left[None], book[None])[0]
            left = left - book[chosen]
            found.append(chosen)
        return torch.stack(found, dim=-1).unflatten(0, features.shape[:2])

    def join(self, codewords: Tensor) -> Tensor:
        """Their sum."""
        return codewords.sum(2)

    def targets(self, features: Tensor, indices: Tensor) -> Tensor:
        """What each stage found left over."""
        left, found = features.flatten(0, 1), []
        for book, chosen in zip(self.codebook, indices.flatten(0, 1).T, strict=True):
            found.append(left)
            left = left - book[chosen]
        return torch.stack(found)

    @torch.no_grad()
    def initialise(self, features: Tensor, batches: int = 1, iterations: int = 10) -> None:
        """See :meth:`Quantizer.initialise`: one stage after the other."""
        left = features.float().flatten(0, 1)
        for number in range(self.segments):
            self._lloyd(left[None], slice(number, number + 1), batches, iterations)
            chosen = _nearest_codeword(left[None], self.codebook[number][None])[0]
            left = left - self.codebook[number][chosen]


def make_quantizer(dim: int, segments: int, config: QuantizerConfig) -> Quantizer:
    """The quantiser of a layer of width ``dim``."""
    if config.residual:
        return ResidualQuantizer(dim, segments, config)
    return SegmentwiseQuantizer(dim, config)


def _nearest_codeword(vectors: Tensor, book: Tensor) -> Tensor:
    """Float32 ``[M, n, length]`` and ``[M, K, length]`` -> int64 ``[M, n]``."""
    # |x - c|^2 = |x|^2 - 2 x.c + |c|^2, and |x|^2 is the same for every codeword.
    half_norm = 0.5 * book.square().sum(-1)[:, None]
    found = [
        _first_minimum(torch.baddbmm(half_norm, part, book.transpose(1, 2), alpha=-1))
        for part in vectors.split(CHUNK, dim=1)
    ]
    return torch.cat(found, dim=1)


def _statistics(vectors: Tensor, indices: Tensor, codewords: int) -> tuple[Tensor, Tensor]:
    """Vectors per codeword ``[M, K]`` and their sum ``[M, K, length]``.

    Args:
        vectors: float32 ``[M, n, length]``.
        indices: int64 ``[M, n]``.
        codewords: K.
    """
    counted = vectors.new_zeros(len(vectors), codewords)
    counted.scatter_add_(1, indices, torch.ones_like(indices, dtype=counted.dtype))
    summed = vectors.new_zeros(len(vectors), codewords, vectors.shape[-1])
    summed.scatter_add_(1, indices[..., None].expand_as(vectors), vectors)
    return counted, summed


def _first_minimum(table: Tensor) -> Tensor:
    """``argmin`` over the last axis, the lowest index where several are equal.

    Written with element-wise minima because torch's own argmin does not use SIMD on a CPU (2 to 3
    times slower here).
    """
    count = table.shape[-1]
    least = table.amin(-1, keepdim=True)
    numbers = torch.arange(count, dtype=torch.float32, device=table.device)
    return torch.where(table <= least, numbers, float(count)).amin(-1).long().clamp_max(count - 1)
