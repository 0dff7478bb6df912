"""Where in a photo is what the query asks about: relevance maps on a token grid.

No training and no boxes: class activation maps of the packaged image tower (its ImageNet classifier,
read cell by cell) meet the query in the text tower's space.

1. The photo, enlarged to ``side`` pixels, passes the image tower once. Its last map has cells of 32 pixels, a
   map in its middle cells of 16.
2. The classifier at each cell of the last map gives 1000 logits. Class c counts by
   ``softmax_c(similarity(query, name and definition of c) / temperature)``.
3. Two readings are interpolated to the cells of 16 pixels and added, each scaled to its usual spread over a
   photo: the weighted logits (they cover an object) and the weighted probabilities (they tell it from its
   neighbours).
4. Before they are added they spread over cells with like features nearby, by the middle map (a random
   walk), so that relevance covers the object and not only its most telling part.

ImageNet has no class ``person``: what people wear stands for them (:data:`WORN`). What else ImageNet lacks
is looked for in the nearest classes by name, which may be far off ("fork" finds forklifts).

>>> mapper = load_relevance(towers)                                         # doctest: +SKIP
>>> mapper(pictures, ["Is there a dog?"], grid=20)                          # doctest: +SKIP
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from semantic.backbone import Backbone, WeightsError, load_backbone, read_classifier
from semantic.codec_config import PackagedTowers, TextTowerConfig

CLASS_TEXTS_FILE = Path(__file__).parent / "checkpoints" / "relevance_classes.safetensors"

_REMAKE = "python scripts/make_relevance_classes.py"

# Mean of every map. With a map m the weights m / MEAN_RELEVANCE average to one.
MEAN_RELEVANCE = 0.3

# Chosen on the even half of coco128's photos; benchmarks/relevance.py reports the other half apart.
_SIDE = 320
_TEMPERATURE = 0.05
_PROBABILITY_SHARPNESS = 0.5  # of the logits, before their softmax over classes
_AFFINITY_TEMPERATURE = 0.2  # of the cosine between two cells' features
_REACH = 0.2  # standard deviation of one step of the walk, in sides of the photo
_STEPS = 3
_FINE = 16  # pixels of a cell of the middle map
_CONTRAST = 2.0  # slope from standard deviations to the map's logistic
# Least spread over a photo to which a reading is scaled: three quarters of coco128's objects exceed it,
# a blank picture stays well below, and its map flat.
_LOGIT_SPREAD = 0.35
_PROBABILITY_SPREAD = 0.0003

# The search for a map's offset: its range shrinks 2**54-fold.
_TRIES = 64
_ROUNDS = 9

# Classes that are hardly ever photographed without somebody inside, by open_clip's names.
WORN = (
    "T-shirt",
    "sweatshirt",
    "suit",
    "jeans",
    "cardigan",
    "trench coat",
    "lab coat",
    "academic gown",
    "gown",
    "miniskirt",
    "bikini",
    "one-piece bathing suit",
    "swim trunks / shorts",
    "baseball player",
    "bridegroom",
    "scuba diver",
    "hair wig",
    "sunglasses",
    "cowboy hat",
    "sombrero",
    "crash helmet",
    "balaclava ski mask",
    "football helmet",
    "military uniform",
    "kimono",
    "poncho",
    "fur coat",
    "apron",
    "bow tie",
    "Windsor tie",
    "bra",
    "volleyball",
    "basketball",
    "rugby ball",
)


@dataclass(frozen=True)
class ClassTexts:
    """Texts that stand for ImageNet classes; a class may have several.

    Args:
        vectors: one unit vector per text, float32 ``[T, text_width]``.
        classes: whose text it is, int64 ``[T]``, 0..999.
    """

    vectors: Tensor
    classes: Tensor


@dataclass(frozen=True)
class Cells:
    """What the image tower says of photos, whatever is asked.

    Args:
        middle: float32 ``[B, C, side/16, side/16]``.
        last: float32 ``[B, channels, side/32, side/32]``.
    """

    middle: Tensor
    last: Tensor

    def repeat(self, times: int) -> Cells:
        """One photo's, for as many questions about it."""
        return Cells(*(cells.expand(times, -1, -1, -1) for cells in (self.middle, self.last)))


class RelevanceMapper(nn.Module):
    """Photos and queries -> relevance maps. Frozen.

    Args:
        backbone: the packaged towers.
        classifier: weight float32 ``[1000, channels]`` and bias ``[1000]``.
        texts: what the classes are called.
        side: pixels to which photos are scaled.
    """

    weight: Tensor
    bias: Tensor
    text_vectors: Tensor
    text_classes: Tensor

    def __init__(
        self,
        backbone: Backbone,
        classifier: tuple[Tensor, Tensor],
        texts: ClassTexts,
        side: int = _SIDE,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.side = side
        weight, bias = classifier
        # Relative to the mean class: what lifts all classes alike says nothing about any.
        self.register_buffer("weight", weight - weight.mean(0), persistent=False)
        self.register_buffer("bias", bias - bias.mean(), persistent=False)
        self.register_buffer("text_vectors", texts.vectors, persistent=False)
        self.register_buffer("text_classes", texts.classes, persistent=False)
        self.eval()

    def train(self, mode: bool = True) -> RelevanceMapper:
        """Stay in evaluation mode: nothing here learns."""
        return super().train(False)

    @torch.inference_mode()
    def forward(self, pictures: Tensor, queries: Sequence[str], grid: int) -> Tensor:
        """Relevance of every token to its picture's query.

        Args:
            pictures: float32 ``[B, 3, h, h]``, 0..1.
            queries: one per picture.
            grid: side of the token grid.

        Returns:
            float32 ``[B, grid, grid]``, 0..1, each map with mean :data:`MEAN_RELEVANCE`.

        Raises:
            ValueError: not one query per picture.
        """
        if len(queries) != len(pictures):
            raise ValueError(f"{len(pictures)} pictures, {len(queries)} queries")
        return self.maps(self.cells(pictures), self.class_weights(queries), grid)

    @torch.inference_mode()
    def class_weights(self, queries: Sequence[str]) -> Tensor:
        """How much each class counts: float32 ``[B, 1000]``, rows that sum to one."""
        similarity = self.backbone.text_features(list(queries)) @ self.text_vectors.T
        shares = (similarity / _TEMPERATURE).softmax(-1)
        weights = shares.new_zeros(len(shares), len(self.weight))
        return weights.index_add_(1, self.text_classes, shares)

    @torch.inference_mode()
    def cells(self, pictures: Tensor) -> Cells:
        """What the image tower says of photos, float32 ``[B, 3, h, h]``, 0..1.

        Independent of the query: several questions about one photo need it once.
        """
        backbone = self.backbone
        trunk = backbone.towers.visual.trunk
        reductions = [info["reduction"] for info in trunk.feature_info]
        scaled = enlarge(pictures.to(self.weight.device), self.side)
        last, (middle,) = trunk.forward_intermediates(
            (scaled - backbone.mean) / backbone.std, indices=[reductions.index(_FINE)]
        )
        return Cells(middle, last)

    @torch.inference_mode()
    def maps(self, cells: Cells, class_weights: Tensor, grid: int) -> Tensor:
        """Maps from :meth:`cells` and :meth:`class_weights`, as :meth:`forward` returns them."""
        return map_on_grid(self.evidence(cells, class_weights), grid)

    def evidence(self, cells: Cells, class_weights: Tensor) -> Tensor:
        """Steps 2 to 4 of the module's text, zero mean: float32 ``[B, side/16, side/16]``."""
        logits = functional.linear(_flat(cells.last), self.weight, self.bias)
        probabilities = (logits * _PROBABILITY_SHARPNESS).softmax(-1)
        readings = torch.stack(
            [
                torch.einsum("bnc,bc->bn", values, class_weights)
                for values in (logits, probabilities)
            ],
            dim=1,
        )
        size = cells.middle.shape[2:]
        readings = _flat(
            functional.interpolate(
                readings.unflatten(2, cells.last.shape[2:]), size=size, mode="bilinear"
            )
        )
        features = _flat(cells.middle)
        walk = affinity(features - features.mean(1, keepdim=True), size[0])
        for _ in range(_STEPS):
            readings = walk @ readings
        readings = readings - readings.mean(1, keepdim=True)
        usual = readings.new_tensor([_LOGIT_SPREAD, _PROBABILITY_SPREAD])
        scaled = readings / torch.maximum(readings.std(1, keepdim=True), usual)
        return scaled.sum(-1).unflatten(1, size)


def _flat(maps: Tensor) -> Tensor:
    """``[B, C, h, h]`` -> ``[B, h*h, C]``."""
    return maps.flatten(2).transpose(1, 2)


def enlarge(pictures: Tensor, side: int) -> Tensor:
    """Bicubic interpolation of square pictures, float ``[B, C, h, h]`` -> ``[B, C, side, side]``.

    As torch's ``functional.interpolate``, up to rounding; two products with a matrix take a CPU less time.
    """
    ones = torch.eye(pictures.shape[-1])[None, :, :, None]
    rows = functional.interpolate(ones, size=(side, 1), mode="bicubic", align_corners=False)
    matrix = rows[0, :, :, 0].T.to(pictures)
    return matrix @ pictures @ matrix.T


def affinity(features: Tensor, grid: int) -> Tensor:
    """Transition probabilities of the random walk between cells.

    ``P_ij ~ exp(cos(f_i, f_j) / temperature - |x_i - x_j|^2 / (2 reach^2))``, rows sum to one.

    Args:
        features: float ``[B, grid*grid, channels]``, zero mean: else all cosines are near one.
        grid: cells per side.

    Returns:
        float ``[B, grid*grid, grid*grid]``.
    """
    units = functional.normalize(features, dim=-1)
    places = torch.arange(grid, device=features.device, dtype=features.dtype) / grid
    points = torch.cartesian_prod(places, places)
    squared = torch.cdist(points, points).square()
    similarity = units @ units.transpose(1, 2)
    return (similarity / _AFFINITY_TEMPERATURE - squared / (2 * _REACH**2)).softmax(-1)


def map_on_grid(evidence: Tensor, grid: int) -> Tensor:
    """Evidence on any square grid, ``[B, h, h]``, as a map ``[B, grid, grid]`` (:func:`fixed_mean`)."""
    on_grid = functional.interpolate(
        evidence[:, None], size=(grid, grid), mode="bilinear", align_corners=False, antialias=True
    )
    return fixed_mean(on_grid[:, 0])


def fixed_mean(evidence: Tensor, mean: float = MEAN_RELEVANCE) -> Tensor:
    """Monotone map of evidence to 0..1 with a given mean: ``sigmoid(contrast * evidence - offset)``.

    The offset is found by trying 64 at a time, for each map its own, until doubles end. No evidence anywhere
    gives ``mean`` anywhere.

    Args:
        evidence: float ``[B, h, w]``.
        mean: 0..1, exclusive.

    Returns:
        float ``[B, h, w]``.
    """
    # On the CPU: maps are small, and not every device has doubles.
    steep = _CONTRAST * evidence.cpu().double().flatten(1)
    around = torch.logit(torch.tensor(mean, dtype=torch.float64)).item()
    low = steep.amin(1, keepdim=True) - around
    width = steep.amax(1, keepdim=True) - around - low
    parts = torch.arange(_TRIES, dtype=torch.float64) / _TRIES
    for _ in range(_ROUNDS):
        offsets = low + width * parts
        means = (steep[:, None] - offsets[..., None]).sigmoid().mean(-1)
        # Means fall as offsets rise: the last one that is still too large begins the next round's range.
        last = ((means > mean).sum(1, keepdim=True) - 1).clamp_min(0)
        low, width = offsets.gather(1, last), width / _TRIES
    return (steep - (low + width / 2)).sigmoid().unflatten(1, evidence.shape[1:]).to(evidence)


def load_relevance(
    towers: PackagedTowers, backbone: Backbone | None = None, side: int = _SIDE
) -> RelevanceMapper:
    """Build the mapper.

    Args:
        towers: the packaged towers of a codec.
        backbone: those towers where they are loaded already; None loads them.
        side: pixels to which photos are scaled, a multiple of 32. More sees smaller things and costs
            with its square.

    Raises:
        ValueError: towers that are not the pretrained ones, or a side that is no multiple of 32.
        WeightsError: a package or file that is missing, damaged or another version.
    """
    if towers.trainable:
        raise ValueError("relevance needs the pretrained image tower, not a trainable one")
    if side < 32 or side % 32:
        raise ValueError(f"side {side}: expected a multiple of 32")
    if backbone is None:
        backbone = load_backbone(towers, [4], 160)
        backbone.speed_up()
    texts = read_class_texts(CLASS_TEXTS_FILE, towers.text_tower)
    return RelevanceMapper(backbone, read_classifier(towers.image_tower), texts, side)


def class_texts(
    backbone: Backbone, definitions: Sequence[str], numbers: Sequence[int] = range(1000)
) -> ClassTexts:
    """Text vectors of ImageNet classes, and of persons who wear some of them.

    A class's vector lies between its name (open_clip's wording) and its WordNet definition.

    Args:
        backbone: towers with the text tower that will hear the queries.
        definitions: of all 1000 classes.
        numbers: of these classes.
    """
    from open_clip import IMAGENET_CLASSNAMES

    worn = [number for number in numbers if IMAGENET_CLASSNAMES[number] in WORN]
    persons = [f"a person, man or woman in {IMAGENET_CLASSNAMES[number]}" for number in worn]
    # One by one: a batch is padded to its longest text, which changes the last bits of the others.
    names, defined, wearing = (
        torch.cat(
            [backbone.text_features([text]) for text in texts] or [backbone.mean.new_empty(0)]
        )
        for texts in (
            [IMAGENET_CLASSNAMES[n] for n in numbers],
            [definitions[n] for n in numbers],
            persons,
        )
    )
    between = functional.normalize(names + defined, dim=-1)
    return ClassTexts(
        torch.cat([between, wearing]) if worn else between, torch.tensor([*numbers, *worn])
    )


def write_class_texts(texts: ClassTexts, tower: TextTowerConfig, file: Path) -> None:
    """Write text vectors (half precision) with the digest of the tower that made them."""
    tensors = {"vectors": texts.vectors.half().contiguous(), "classes": texts.classes.short()}
    save_file(tensors, file, metadata={"text_tower": _digest(tower)})


def read_class_texts(file: Path, tower: TextTowerConfig) -> ClassTexts:
    """Read what :func:`write_class_texts` wrote.

    Raises:
        WeightsError: a file that is missing, damaged or of another text tower.
    """
    try:
        with safe_open(file, framework="pt") as stored:
            made_by = (stored.metadata() or {}).get("text_tower")
            vectors, classes = (stored.get_tensor(name) for name in ("vectors", "classes"))
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{file}: {error}; restore it with `{_REMAKE}`") from None
    if made_by != _digest(tower):
        raise WeightsError(f"{file}: made with another text tower; run `{_REMAKE}`")
    return ClassTexts(functional.normalize(vectors.float(), dim=-1), classes.long())


def _digest(tower: TextTowerConfig) -> str:
    return hashlib.sha256("".join(sorted(tower.sha256.values())).encode()).hexdigest()
