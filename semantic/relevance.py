"""Where in a photo is what the query asks about: relevance maps on a token grid.

No training and no boxes: class activation maps of the packaged image tower (its ImageNet classifier,
read cell by cell) meet the query in the text tower's space.

0. Of the query its content words are kept (:func:`semantic.question.asked_thing`).
1. The photo passes the image tower twice, its longer side scaled to 320 and to 448 pixels: large things are
   found at the one, small ones at the other. The last map has cells of 32 pixels, a map in the middle cells
   of 16. Steps 2 to 4 go for each scale; the mean of both is the evidence.
2. The classifier at each cell of the last map gives 1000 logits. Class c counts by
   ``softmax_c(similarity(query, name and definition of c) / temperature)``.
3. Two readings are interpolated to the cells of 16 pixels and added, each scaled to its usual spread over a
   photo: the weighted logits (they cover an object) and the weighted probabilities (they tell it from its
   neighbours).
4. Before they are added they spread over cells with like features nearby, by the middle map (one step of a
   random walk), so that relevance covers the object and not only its most telling part.

A map always points somewhere. How far it is to be trusted says :meth:`RelevanceMapper.find`:
:mod:`semantic.relevance_confidence`, and nothing for a question that does not read as English
(:mod:`semantic.question`).

ImageNet has no class ``person``: what people wear stands for them (:data:`WORN`). What else ImageNet lacks
is looked for in the nearest classes by name, which may be far off ("fork" finds forklifts).

>>> mapper = load_relevance(towers)                                         # doctest: +SKIP
>>> mapper(pictures, ["Is there a dog?"], grid=20)                          # doctest: +SKIP
>>> mapper.find(pictures, ["Ist da ein Hund?"], (12, 20)).confidence         # doctest: +SKIP
tensor([0.])
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from semantic.backbone import Backbone, WeightsError, load_backbone, read_classifier
from semantic.codec_config import PackagedTowers, TextTowerConfig
from semantic.question import asked_thing, is_english, read_words
from semantic.relevance_confidence import Signs, peak

# Side of a square token grid, or its rows and columns.
Grid = int | tuple[int, int]

CLASS_TEXTS_FILE = Path(__file__).parent / "checkpoints" / "relevance_classes.safetensors"

_REMAKE = "python scripts/make_relevance_classes.py"

# Mean of every map. With a map m the weights m / MEAN_RELEVANCE average to one.
MEAN_RELEVANCE = 0.3

# Chosen on the even half of coco128's photos; benchmarks/relevance.py reports the other half apart.
SIDES = (320, 448)
_TEMPERATURE = 0.05
_PROBABILITY_SHARPNESS = 0.5  # of the logits, before their softmax over classes
_AFFINITY_TEMPERATURE = 0.2  # of the cosine between two cells' features
_REACH = 0.2  # standard deviation of one step of the walk, in sides of the photo
_FINE = 16  # pixels of a cell of the middle map
_CELL = 32  # pixels of a cell of the last map
_SHORTEST = 64  # pixels: a shorter side is stretched to two cells of the last map
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
    """What the image tower says of photos at one scale, whatever is asked.

    Args:
        middle: float32 ``[B, C, h/16, w/16]`` of photos scaled to ``h`` times ``w`` pixels.
        last: float32 ``[B, channels, h/32, w/32]``.
    """

    middle: Tensor
    last: Tensor

    def repeat(self, times: int) -> Cells:
        """One photo's, for as many questions about it."""
        return Cells(*(cells.expand(times, -1, -1, -1) for cells in (self.middle, self.last)))


@dataclass(frozen=True)
class Found:
    """Where queries point in their photos, and how far to trust that.

    Args:
        maps: relevance, float32 ``[B, rows, columns]``, 0..1, each with mean :data:`MEAN_RELEVANCE`.
        confidence: float32 ``[B]``, 0..1: probability that a map's largest token lies on what was asked, if
            that is in the photo at all; 0 where the language is not known.
        language_known: per query, whether it reads as text that the tower can understand;
            :data:`semantic.question.LANGUAGE_NOTE` says it to a user.
    """

    maps: Tensor
    confidence: Tensor
    language_known: tuple[bool, ...]


class RelevanceMapper(nn.Module):
    """Photos and queries -> relevance maps. Frozen.

    Args:
        backbone: the packaged towers.
        classifier: weight float32 ``[1000, channels]`` and bias ``[1000]``.
        texts: what the classes are called.
        sides: pixels to which the longer side of photos is scaled, coarsest first; one or more.
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
        sides: Sequence[int] = SIDES,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.sides = tuple(sides)
        self.knows_word = word_test(backbone)
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
    def forward(self, pictures: Tensor, queries: Sequence[str], grid: Grid) -> Tensor:
        """Relevance of every token to its picture's query.

        Args:
            pictures: float32 ``[B, 3, h, w]``, 0..1.
            queries: one per picture.
            grid: side of a square token grid, or rows and columns.

        Returns:
            float32 ``[B, rows, columns]``, 0..1, each map with mean :data:`MEAN_RELEVANCE`.

        Raises:
            ValueError: not one query per picture.
        """
        _check_counts(pictures, queries)
        return self.maps(self.cells(pictures), self.class_weights(queries), grid)

    @torch.inference_mode()
    def find(self, pictures: Tensor, queries: Sequence[str], grid: Grid) -> Found:
        """Maps as :meth:`forward` gives them, with how far they are to be trusted.

        Raises:
            ValueError: not one query per picture.
        """
        _check_counts(pictures, queries)
        cells, weights = self.cells(pictures), self.class_weights(queries)
        scales = [self.evidence(one, weights) for one in cells]
        known = tuple(self.language_known(query) for query in queries)
        confidence = self._signs(cells, weights, scales).confidence()
        return Found(
            _joined(scales, rows_and_columns(grid)),
            confidence * torch.tensor(known).to(confidence),
            known,
        )

    def language_known(self, query: str) -> bool:
        """Whether a query reads as English, the one language of the text tower."""
        return is_english(query, self.knows_word)

    @torch.inference_mode()
    def class_weights(self, queries: Sequence[str]) -> Tensor:
        """How much each class counts: float32 ``[B, 1000]``, rows that sum to one."""
        things = [f"a {asked_thing(query)}" for query in queries]
        similarity = self.backbone.text_features(things) @ self.text_vectors.T
        shares = (similarity / _TEMPERATURE).softmax(-1)
        weights = shares.new_zeros(len(shares), len(self.weight))
        return weights.index_add_(1, self.text_classes, shares)

    @torch.inference_mode()
    def cells(self, pictures: Tensor) -> tuple[Cells, ...]:
        """What the image tower says of photos, float32 ``[B, 3, h, w]``, 0..1, at every scale.

        Independent of the query: several questions about one photo need it once.
        """
        pictures = pictures.to(self.weight.device)
        return tuple(self._cells(pictures, side) for side in self.sides)

    def _cells(self, pictures: Tensor, side: int) -> Cells:
        backbone = self.backbone
        trunk = backbone.towers.visual.trunk
        reductions = [info["reduction"] for info in trunk.feature_info]
        scaled = enlarge(pictures, scaled_size((pictures.shape[2], pictures.shape[3]), side))
        # Channels last: a quarter less time in the tower on a CPU.
        scaled = scaled.contiguous(memory_format=torch.channels_last)
        last, (middle,) = trunk.forward_intermediates(
            (scaled - backbone.mean) / backbone.std, indices=[reductions.index(_FINE)]
        )
        return Cells(middle, last)

    @torch.inference_mode()
    def maps(self, cells: Sequence[Cells], class_weights: Tensor, grid: Grid) -> Tensor:
        """Maps from :meth:`cells` and :meth:`class_weights`, as :meth:`forward` returns them."""
        scales = [self.evidence(one, class_weights) for one in cells]
        return _joined(scales, rows_and_columns(grid))

    @torch.inference_mode()
    def signs(self, cells: Sequence[Cells], class_weights: Tensor) -> Signs:
        """What tells whether the maps found something, from :meth:`cells` and :meth:`class_weights`."""
        return self._signs(
            cells, class_weights, [self.evidence(one, class_weights) for one in cells]
        )

    def _signs(
        self, cells: Sequence[Cells], class_weights: Tensor, scales: Sequence[Tensor]
    ) -> Signs:
        seen = [self._logits(one).softmax(-1).amax(1) for one in cells]
        presence = torch.stack([(most * class_weights).sum(1) for most in seen]).mean(0)
        coarsest = (scales[0].shape[1], scales[0].shape[2])
        return Signs(peak(_joined(scales, coarsest)), presence.log())

    def _logits(self, cells: Cells) -> Tensor:
        """Of every class in every cell of the last map: float32 ``[B, cells, 1000]``."""
        return functional.linear(_flat(cells.last), self.weight, self.bias)

    def evidence(self, cells: Cells, class_weights: Tensor) -> Tensor:
        """Steps 2 to 4 of the module's text at one scale, zero mean: float32 ``[B, h/16, w/16]``."""
        logits = self._logits(cells)
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
        walk = affinity(features - features.mean(1, keepdim=True), (size[0], size[1]))
        readings = walk @ readings
        readings = readings - readings.mean(1, keepdim=True)
        usual = readings.new_tensor([_LOGIT_SPREAD, _PROBABILITY_SPREAD])
        scaled = readings / torch.maximum(readings.std(1, keepdim=True), usual)
        return scaled.sum(-1).unflatten(1, size)


def _check_counts(pictures: Tensor, queries: Sequence[str]) -> None:
    if len(queries) != len(pictures):
        raise ValueError(f"{len(pictures)} pictures, {len(queries)} queries")


def word_test(backbone: Backbone, listed: frozenset[str] | None = None) -> Callable[[str], bool]:
    """A test whether a text tower knows a word: as one word piece, or from a list (None: the shipped one)."""
    known = read_words() if listed is None else listed
    empty = backbone.tokenize([""])[0]
    # Padding comes last, and an empty text is nothing else but its marks.
    marks = int((empty != empty[-1]).sum())

    def knows(word: str) -> bool:
        return word in known or int((backbone.tokenize([word]) != empty[-1]).sum()) == marks + 1

    return knows


def _flat(maps: Tensor) -> Tensor:
    """``[B, C, h, w]`` -> ``[B, h*w, C]``."""
    return maps.flatten(2).transpose(1, 2)


def rows_and_columns(grid: Grid) -> tuple[int, int]:
    """A token grid as rows and columns."""
    return (grid, grid) if isinstance(grid, int) else grid


def scaled_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Height and width at which the tower sees a picture.

    The longer side becomes ``side``, the shorter one the nearest multiple of 32 to what keeps the aspect, and
    not under 64.

    Args:
        size: height and width of the picture, pixels.
        side: a multiple of 32.
    """
    height, width = size
    nearest = _CELL * round(side * min(size) / max(size) / _CELL)
    short = min(max(nearest, _SHORTEST), side)
    return (short, side) if height < width else (side, short)


def enlarge(pictures: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Bicubic interpolation, float ``[B, C, h, w]`` -> ``[B, C, *size]``; an int means a square.

    As torch's ``functional.interpolate``, up to rounding; two products with a matrix take a CPU less time.
    A side that shrinks is smoothed first (``antialias``), so that the tower sees no aliases of a large photo.
    """
    height, width = rows_and_columns(size)
    down = _resampling(pictures.shape[2], height).to(pictures)
    across = _resampling(pictures.shape[3], width).to(pictures)
    return down @ pictures @ across.T


def _resampling(before: int, after: int) -> Tensor:
    """Matrix of a bicubic interpolation along one side: float32 ``[after, before]``."""
    # As one picture: with every column a channel of its own, one pixel wide, torch 2.13 smooths wrongly.
    ones = torch.eye(before)[None, None]
    rows = functional.interpolate(
        ones, size=(after, before), mode="bicubic", align_corners=False, antialias=after < before
    )
    return rows[0, 0]


def affinity(features: Tensor, grid: Grid) -> Tensor:
    """Transition probabilities of the random walk between cells.

    ``P_ij ~ exp(cos(f_i, f_j) / temperature - |x_i - x_j|^2 / (2 reach^2))``, rows sum to one.

    Args:
        features: float ``[B, rows*columns, channels]``, zero mean: else all cosines are near one.
        grid: cells per side, or rows and columns; distances are shares of the longer side.

    Returns:
        float ``[B, rows*columns, rows*columns]``.
    """
    units = functional.normalize(features, dim=-1)
    rows, columns = rows_and_columns(grid)
    down, across = (
        torch.arange(count, device=features.device, dtype=features.dtype) / max(rows, columns)
        for count in (rows, columns)
    )
    points = torch.cartesian_prod(down, across)
    squared = torch.cdist(points, points).square()
    similarity = units @ units.transpose(1, 2)
    return (similarity / _AFFINITY_TEMPERATURE - squared / (2 * _REACH**2)).softmax(-1)


def map_on_grid(evidence: Tensor, grid: Grid) -> Tensor:
    """Evidence on any grid, ``[B, h, w]``, as a map ``[B, rows, columns]`` (:func:`fixed_mean`)."""
    return fixed_mean(_on_grid(evidence, rows_and_columns(grid)))


def _on_grid(evidence: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear interpolation, ``[B, h, w]`` -> ``[B, *size]``."""
    on_grid = functional.interpolate(
        evidence[:, None], size=size, mode="bilinear", align_corners=False, antialias=True
    )
    return on_grid[:, 0]


def _joined(scales: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """The map of evidence at several scales, ``[B, h, w]`` each: ``[B, *size]``."""
    return fixed_mean(torch.stack([_on_grid(evidence, size) for evidence in scales]).mean(0))


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
    towers: PackagedTowers, backbone: Backbone | None = None, sides: Sequence[int] = SIDES
) -> RelevanceMapper:
    """Build the mapper.

    Args:
        towers: the packaged towers of a codec.
        backbone: those towers where they are loaded already; None loads them.
        sides: pixels to which the longer side of photos is scaled, multiples of 32, coarsest first. More
            sees smaller things and costs with its square.

    Raises:
        ValueError: towers that are not the pretrained ones, no side, or one that is no multiple of 32.
        WeightsError: a package or file that is missing, damaged or another version.
    """
    if towers.trainable:
        raise ValueError("relevance needs the pretrained image tower, not a trainable one")
    if not sides or any(side < _CELL or side % _CELL for side in sides):
        raise ValueError(f"sides {list(sides)}: expected multiples of 32")
    if backbone is None:
        backbone = load_backbone(towers, [4], 160)
        backbone.speed_up()
    texts = read_class_texts(CLASS_TEXTS_FILE, towers.text_tower)
    return RelevanceMapper(backbone, read_classifier(towers.image_tower), texts, sides)


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
    """Write text vectors (8 bits a number) with the digest of the tower that made them."""
    # Of unit length when they are read, so every row may have a scale of its own.
    whole = torch.round(127 * texts.vectors / texts.vectors.abs().amax(1, keepdim=True))
    tensors = {"vectors": whole.to(torch.int8).contiguous(), "classes": texts.classes.short()}
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
