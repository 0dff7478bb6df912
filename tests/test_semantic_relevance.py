"""Relevance maps: what they promise, and that they follow the question."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from benchmarks.bootstrap import PhotoMean
from benchmarks.named_objects import NamedRegion, apart, askable, read_named_regions
from benchmarks.relevance import covered, figures, mass, reliability
from benchmarks.relevance_confidence import fit
from semantic.asked_photos import PhotosError
from semantic.backbone import Backbone, WeightsError, load_backbone
from semantic.codec.vq_codec import picture_to_tensor
from semantic.codec_config import PackagedTowers, read_recipe
from semantic.demo_photos import load_photo
from semantic.patch_relevance import NEUTRAL_TEXT, PatchTextMapper
from semantic.relevance import (
    CLASS_TEXTS_FILE,
    MEAN_RELEVANCE,
    WORN,
    RelevanceMapper,
    affinity,
    class_texts,
    enlarge,
    fixed_mean,
    load_relevance,
    read_class_texts,
    scaled_size,
)
from semantic.relevance_confidence import Signs, peak


def _towers() -> PackagedTowers:
    towers = read_recipe(Path("embedded")).codec.backbone
    assert isinstance(towers, PackagedTowers)
    return towers


def _definitions() -> list[str]:
    script = Path(__file__).parents[1] / "scripts" / "make_relevance_classes.py"
    found: list[str] = runpy.run_path(str(script))["imagenet_definitions"]()
    return found


@pytest.fixture(scope="module")
def mapper() -> RelevanceMapper:
    return load_relevance(_towers())


@pytest.fixture(scope="module")
def photos() -> dict[str, Tensor]:
    """The project's demo photos as the codec sees them."""
    return {
        name: picture_to_tensor(load_photo(name, 160))
        for name in ("chelsea", "astronaut", "flower")
    }


def _beside(left: Tensor, right: Tensor) -> Tensor:
    """One picture with two photos side by side, each squeezed to half the width."""
    halves = [
        torch.nn.functional.interpolate(photo, size=(160, 80), mode="area")
        for photo in (left, right)
    ]
    return torch.cat(halves, dim=-1)


@pytest.mark.parametrize("grid", [5, 10, 20])
def test_maps_lie_between_0_and_1_with_a_fixed_mean(
    mapper: RelevanceMapper, photos: dict[str, Tensor], grid: int
) -> None:
    pictures = torch.cat([photos["chelsea"], photos["flower"]])
    maps = mapper(pictures, ["Is there a cat?", "Is this a flower?"], grid)
    assert maps.shape == (2, grid, grid)
    assert maps.dtype == torch.float32
    assert float(maps.min()) >= 0
    assert float(maps.max()) <= 1
    torch.testing.assert_close(
        maps.mean((1, 2)), torch.full((2,), MEAN_RELEVANCE), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(("rows", "columns"), [(8, 16), (16, 8), (5, 20)])
def test_maps_of_rectangles(
    mapper: RelevanceMapper, photos: dict[str, Tensor], rows: int, columns: int
) -> None:
    """Two photos in a row, or above each other: the asked one is found, whatever the shape."""
    wide = columns > rows
    dim = -1 if wide else -2
    pictures = torch.cat([photos["chelsea"], photos["flower"]], dim).expand(2, -1, -1, -1)
    cat, flower = mapper(pictures, ["Is there a cat?", "Is there a daisy?"], (rows, columns))
    assert cat.shape == (rows, columns)
    for relevance in (cat, flower):
        assert float(relevance.mean()) == pytest.approx(MEAN_RELEVANCE, abs=1e-5)
    in_cat, in_flower = (
        float((m[:, : columns // 2] if wide else m[: rows // 2]).sum() / m.sum())
        for m in (cat, flower)
    )
    assert in_cat > 0.7
    assert in_flower < 0.3


def test_a_square_grid_may_be_said_either_way(
    mapper: RelevanceMapper, photos: dict[str, Tensor]
) -> None:
    query = ["Is there a cat?"]
    square = mapper(photos["chelsea"], query, 10)
    assert torch.equal(square, mapper(photos["chelsea"], query, (10, 10)))


def test_asking_moves_relevance_to_what_was_asked(
    mapper: RelevanceMapper, photos: dict[str, Tensor]
) -> None:
    picture = _beside(photos["chelsea"], photos["flower"]).expand(2, -1, -1, -1)
    cat, flower = mapper(picture, ["Is there a cat?", "Is there a daisy?"], 20)
    left_when_cat, left_when_flower = (float(m[:, :10].sum() / m.sum()) for m in (cat, flower))
    assert left_when_cat > 0.7
    assert left_when_flower < 0.3


def test_a_person_is_found_by_what_is_worn(
    mapper: RelevanceMapper, photos: dict[str, Tensor]
) -> None:
    picture = _beside(photos["astronaut"], photos["chelsea"])
    person = mapper(picture, ["Is there a person?"], 20)[0]
    assert float(person[:, :10].sum() / person.sum()) > 0.6


def test_mirrored_photos_mostly_give_mirrored_maps(mapper: RelevanceMapper) -> None:
    # Not more than mostly: the tower itself sees a mirrored photo somewhat differently. The cat that
    # fills its photo is the worst of these (correlation 0.47), the helmet the best (1.00).
    correlations = []
    for name, query in (
        ("chelsea", "Is there a cat?"),
        ("astronaut", "Is there a helmet?"),
        ("astronaut", "Is there a person?"),
        ("flower", "Is there a daisy?"),
        ("coffee", "Is there a cup?"),
    ):
        photo = picture_to_tensor(load_photo(name, 160))
        straight = mapper(photo, [query], 10)[0]
        mirrored = mapper(photo.flip(-1), [query], 10)[0].flip(-1)
        both = torch.stack([straight.flatten(), mirrored.flatten()])
        correlations.append(float(torch.corrcoef(both)[0, 1]))
    assert np.median(correlations) > 0.9
    assert min(correlations) > 0.4


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_blank_picture_has_a_flatter_map(
    mapper: RelevanceMapper, photos: dict[str, Tensor], level: float
) -> None:
    query = ["Is there a cat?"]
    blank = mapper(torch.full((1, 3, 160, 160), level), query, 20)
    assert torch.isfinite(blank).all()
    assert float(blank.mean()) == pytest.approx(MEAN_RELEVANCE, abs=1e-5)
    assert float(blank.std()) < 0.6 * float(mapper(photos["chelsea"], query, 20).std())


def test_a_picture_does_not_depend_on_its_batch(
    mapper: RelevanceMapper, photos: dict[str, Tensor]
) -> None:
    queries = ["Is there a cat?", "Is there a space shuttle?"]
    together = mapper(torch.cat([photos["chelsea"], photos["astronaut"]]), queries, 20)
    alone = mapper(photos["astronaut"], queries[1:], 20)
    torch.testing.assert_close(together[1:], alone, atol=1e-4, rtol=0)
    torch.testing.assert_close(alone, mapper(photos["astronaut"], queries[1:], 20))


def test_one_query_per_picture(mapper: RelevanceMapper, photos: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match="1 pictures, 2 queries"):
        mapper(photos["chelsea"], ["a", "b"], 10)


@pytest.mark.parametrize("asked", ["Where is the umbrella?", "umbrella", "How many umbrellas?"])
def test_question_frames_hardly_matter(mapper: RelevanceMapper, asked: str) -> None:
    straight, framed = mapper.class_weights(["Is there an umbrella?", asked])
    assert float((straight - framed).abs().sum()) < 0.5


def test_confidence_tells_what_is_there_from_what_is_not(
    mapper: RelevanceMapper, photos: dict[str, Tensor]
) -> None:
    photo = photos["chelsea"].expand(3, -1, -1, -1)
    # Not always: in this photo it believes in a keyboard, below the cat.
    found = mapper.find(photo, ["Is there a cat?", "Is there a pizza?", "a laptop"], (6, 8))
    assert found.maps.shape == (3, 6, 8)
    assert found.language_known == (True, True, True)
    there, pizza, laptop = found.confidence.tolist()
    assert there > 0.5
    assert there > pizza + 0.2
    assert there > laptop + 0.2
    assert torch.equal(found.maps, mapper(photo, ["Is there a cat?", "pizza", "laptop"], (6, 8)))


def test_what_the_tower_cannot_read_has_no_confidence(
    mapper: RelevanceMapper, photos: dict[str, Tensor]
) -> None:
    photo = photos["chelsea"].expand(2, -1, -1, -1)
    found = mapper.find(photo, ["Ist da eine Katze?", "asdf qwerty zxcv"], 10)
    assert found.language_known == (False, False)
    assert found.confidence.tolist() == [0, 0]
    with pytest.raises(ValueError, match="2 pictures, 1 queries"):
        mapper.find(photo, ["cat"], 10)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_blank_pictures_have_little_confidence(mapper: RelevanceMapper, level: float) -> None:
    found = mapper.find(torch.full((1, 3, 160, 160), level), ["Is there a dog?"], 10)
    assert float(found.confidence) < 0.3


def test_confidence_rises_with_each_sign() -> None:
    def at(peak: float, presence: float) -> float:
        return float(Signs(torch.tensor([peak]), torch.tensor([presence])).confidence())

    assert 0 < at(0, -8) < at(4, -8) < at(4, -1) < 1


def test_peak_of_a_map_is_that_of_its_best_cells() -> None:
    maps = torch.full((1, 10, 10), 0.1)
    maps[0, 3, 3:8] = 0.9  # 5 % of the cells
    assert float(torch.sigmoid(peak(maps))) == pytest.approx(0.9)
    assert torch.isfinite(peak(torch.ones(1, 2, 2))).all()


def test_fit_of_confidence_finds_the_line_that_made_the_hits() -> None:
    draw = np.random.default_rng(0)
    signs = draw.normal(size=(4000, 2)) * [2, 3] + [1, -4]
    wanted = np.array([1.5, 0.5, 0.25])
    chance = 1 / (1 + np.exp(-wanted[0] - signs @ wanted[1:]))
    found = fit(signs, (draw.random(4000) < chance).astype(float))
    # The ridge draws slopes towards 0.
    assert 0.5 < found[1] / 0.5 <= 1.1
    assert 0.5 < found[2] / 0.25 <= 1.1


def test_class_weights_name_the_asked_class(mapper: RelevanceMapper) -> None:
    from open_clip import IMAGENET_CLASSNAMES

    weights = mapper.class_weights(["Is there an umbrella?", "Is there a person?"])
    torch.testing.assert_close(weights.sum(1), torch.ones(2))
    assert IMAGENET_CLASSNAMES[int(weights[0].argmax())] == "umbrella"
    worn = [IMAGENET_CLASSNAMES.index(name) for name in WORN]
    assert float(weights[1, worn].sum()) > 0.5


def test_shipped_class_texts_are_what_the_command_makes(mapper: RelevanceMapper) -> None:
    from open_clip import IMAGENET_CLASSNAMES

    shipped = read_class_texts(CLASS_TEXTS_FILE, _towers().text_tower)
    worn = [number for number, name in enumerate(IMAGENET_CLASSNAMES) if name in WORN]
    assert shipped.classes.tolist() == [*range(1000), *worn]
    numbers = [0, 281, 610, 999]  # 610 is worn
    made = class_texts(mapper.backbone, _definitions(), numbers)
    assert made.classes.tolist() == [*numbers, 610]
    persons = (shipped.classes[1000:] == 610).nonzero()[0, 0] + 1000
    rows = [*numbers, int(persons)]
    torch.testing.assert_close(shipped.vectors[rows], made.vectors, atol=2e-3, rtol=0)


def test_class_texts_of_another_tower_are_refused(tmp_path: Path) -> None:
    tower = _towers().text_tower
    other = tower.model_copy(update={"sha256": {"model.safetensors": "0" * 64}})
    with pytest.raises(WeightsError, match="another text tower"):
        read_class_texts(CLASS_TEXTS_FILE, other)
    damaged = tmp_path / "texts.safetensors"
    damaged.write_bytes(CLASS_TEXTS_FILE.read_bytes()[:1000])
    with pytest.raises(WeightsError, match=r"texts\.safetensors.*make_relevance_classes"):
        read_class_texts(damaged, tower)


def test_sides_the_tower_cannot_halve_are_refused() -> None:
    for sides in ([330], [320, 450], []):
        with pytest.raises(ValueError, match="multiples of 32"):
            load_relevance(_towers(), sides=sides)


@pytest.mark.parametrize("side", [320, 96])
def test_enlarging_is_bicubic_interpolation(photos: dict[str, Tensor], side: int) -> None:
    # A smaller picture is smoothed first.
    wanted = torch.nn.functional.interpolate(
        photos["chelsea"], size=(side, side), mode="bicubic", antialias=side < 160
    )
    torch.testing.assert_close(enlarge(photos["chelsea"], side), wanted, atol=1e-5, rtol=0)


def test_rectangles_are_enlarged_along_both_sides(photos: dict[str, Tensor]) -> None:
    wide = photos["chelsea"][:, :, :96]
    wanted = torch.nn.functional.interpolate(wide, size=(192, 320), mode="bicubic")
    torch.testing.assert_close(enlarge(wide, (192, 320)), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("size", "scaled"),
    [
        ((160, 160), (320, 320)),
        ((480, 640), (256, 320)),  # 240 lies between 224 and 256: the even multiple
        ((640, 480), (320, 256)),
        ((1080, 1920), (192, 320)),
        ((32, 4096), (64, 320)),
    ],
)
def test_aspect_is_kept_as_nearly_as_cells_allow(
    size: tuple[int, int], scaled: tuple[int, int]
) -> None:
    assert scaled_size(size, 320) == scaled


def test_fixed_mean_keeps_the_order_and_flat_stays_flat() -> None:
    evidence = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0)) * 3
    relevance = fixed_mean(evidence, 0.25)
    torch.testing.assert_close(relevance.mean((1, 2)), torch.full((3,), 0.25), atol=1e-6, rtol=0)
    assert torch.equal(evidence.flatten(1).argsort(1), relevance.flatten(1).argsort(1))
    torch.testing.assert_close(fixed_mean(torch.zeros(1, 4, 4), 0.25), torch.full((1, 4, 4), 0.25))


def test_affinity_joins_cells_that_are_alike_and_near() -> None:
    features = torch.zeros(1, 16, 2)
    features[0, :8, 0] = 1  # the two upper rows
    features[0, 8:, 1] = 1
    walk = affinity(features, 4)
    torch.testing.assert_close(walk.sum(-1), torch.ones(1, 16))
    # From (1, 0): its like above it, its unlike below it, its like at the far end of the row.
    above, below, far = walk[0, 4, 0], walk[0, 4, 8], walk[0, 4, 7]
    assert above > 50 * below
    assert above > far


def _region(name: str, *box: float) -> NamedRegion:
    left, top, right, bottom = box
    return NamedRegion(0, Path("photo.jpg"), name, ((left, top, right, bottom),))


def test_figures_of_perfect_blind_and_misled_maps() -> None:
    cat, dog = _region("cat", 0, 0, 0.5, 0.5), _region("dog", 0.5, 0.5, 1, 1)
    regions = [cat, dog]
    perfect = figures(regions, [1e-6 + r.cover(8) for r in regions], [0, 1])
    blind = figures(regions, [np.ones((8, 8)), np.ones((8, 8))], [0, 1])
    misled = figures(regions, [1e-6 + r.cover(8) for r in (dog, cat)], [0, 1])
    for found, at_peak, wins in ((perfect, 1, 1), (blind, 0.5, 0.5), (misled, 0, 0)):
        assert found.chance == 0.25
        assert found.peak_in_box is not None
        assert found.asked_wins is not None
        assert (found.peak_in_box.mean, found.asked_wins.mean) == (at_peak, wins)
    assert perfect.mass_in_box is not None
    assert perfect.mass_in_box.mean == pytest.approx(1, abs=1e-4)
    assert perfect.asked_coverage_gain is not None
    assert misled.asked_coverage_gain is not None
    assert perfect.asked_coverage_gain.mean == -misled.asked_coverage_gain.mean > 0.5


def test_reliability_sorts_by_confidence() -> None:
    regions = [_region("cat", 0, 0, 0.5, 0.5)] * 6
    hit, miss = regions[0].cover(8), 1 - regions[0].cover(8)
    bins = reliability(
        regions, [hit, miss, hit, miss, hit, miss], [0.9, 0.1, 0.8, 0.2, 0.5, 0.4], range(6)
    )
    assert [one.peak_in_box.mean for one in bins] == [0, 0.5, 1]
    assert [one.confidence for one in bins] == pytest.approx([0.15, 0.45, 0.85])
    assert len(reliability(regions, [hit] * 6, [0.5] * 6, [0])) == 1


def test_mass_and_coverage_of_a_blind_map_are_the_share_of_the_photo() -> None:
    cover = _region("cat", 0, 0, 0.5, 1).cover(10)
    assert mass(np.ones((10, 10)), cover) == 0.5
    noise = np.random.default_rng(0).random((300, 10, 10))
    assert np.mean([covered(m, cover) for m in noise]) == pytest.approx(0.3, abs=0.01)


def test_bootstrap_draws_photos_and_not_cases() -> None:
    alike = PhotoMean.of([0.0, 1.0] * 50, [0] * 100, 0)
    assert alike is not None
    assert alike.ci95 == (0.5, 0.5)
    different = PhotoMean.of([0.0, 1.0] * 50, list(range(100)), 0)
    assert different is not None
    assert different.ci95[0] == pytest.approx(0.4, abs=0.03)  # 0.5 - 1.96 * 0.5 / sqrt(100)
    assert PhotoMean.of([], [], 0) is None


def test_listing_joins_objects_of_a_name(tmp_path: Path) -> None:
    objects = [
        {"name": "cat", "box": [0, 0, 0.5, 0.5]},
        {"name": "dog", "box": [0.5, 0, 1, 1]},
        {"name": "cat", "box": [0, 0.5, 0.5, 1]},
        {"name": "ant", "box": [0, 0, 0.1, 0.1]},
    ]
    (tmp_path / "objects.jsonl").write_text(json.dumps({"image": "a.jpg", "objects": objects}))
    cat, dog, ant = read_named_regions(tmp_path)
    assert (cat.question, ant.question) == ("Is there a cat?", "Is there an ant?")
    assert float(cat.cover(4).mean()) == 0.5
    assert askable(cat, 10)
    assert not askable(ant, 10)
    assert apart(cat, dog, 10)
    assert not apart(ant, cat, 10)
    assert not apart(cat, cat, 10)
    (tmp_path / "objects.jsonl").write_text('{"image": "a.jpg", "objects": [{"name": "cat"}]}')
    with pytest.raises(PhotosError, match=r"objects\.jsonl, photo 1"):
        read_named_regions(tmp_path)
    with pytest.raises(PhotosError, match="No such file"):
        read_named_regions(tmp_path / "nowhere")


@pytest.mark.slow
def test_command_prints_one_json_object(tmp_path: Path, uoisc) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "images").mkdir()
    two = Image.new("RGB", (160, 160))
    two.paste(load_photo("chelsea", 160).resize((80, 160)), (0, 0))
    two.paste(load_photo("flower", 160).resize((80, 160)), (80, 0))
    two.save(tmp_path / "images" / "two.png")
    objects = [
        {"name": "cat", "box": [0, 0, 0.5, 1]},
        {"name": "daisy", "box": [0.5, 0, 1, 1]},
    ]
    (tmp_path / "objects.jsonl").write_text(json.dumps({"image": "two.png", "objects": objects}))
    done = uoisc("benchmark", "relevance", "--data", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["photos"] == 1
    assert found["all"]["asked_wins"]["mean"] == 1
    assert found["odd"]["asked_wins"] is None
    assert len(found["reliability"]["all"]) == 2  # two objects do not fill three thirds
    assert found["absent_confidence"]["all"] is None


# patches beside the text (CLIP) -------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip() -> Backbone:
    """The paper's structure with random weights: enough for shapes and sums, not for sense."""
    return load_backbone(read_recipe(Path("tiny")).codec.backbone, [1], 32)


def test_patches_see_themselves_alone(clip: Backbone) -> None:
    """Against the last block written down: values through, no look at any other patch."""
    pictures = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = PatchTextMapper(clip).patch_vectors(pictures)
    visual = clip.towers.visual
    kept: list[Tensor] = []
    hook = visual.transformer.resblocks[-1].register_forward_pre_hook(
        lambda _, given: kept.append(given[0])
    )
    with torch.no_grad():
        visual((pictures - clip.mean) / clip.std)
    hook.remove()
    x, block = kept[0][:, 1:], visual.transformer.resblocks[-1]  # without the class token
    with torch.no_grad():
        width = x.shape[-1]
        weight, bias = block.attn.in_proj_weight[2 * width :], block.attn.in_proj_bias[2 * width :]
        x = x + block.attn.out_proj(block.ln_1(x) @ weight.T + bias)
        x = x + block.mlp(block.ln_2(x))
        by_hand = visual.ln_post(x) @ visual.proj
    by_hand = by_hand / by_hand.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(found, by_hand, atol=1e-5, rtol=1e-4)


def test_patch_maps_follow_the_text(clip: Backbone) -> None:
    mapper = PatchTextMapper(clip)
    pictures = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)).expand(
        2, -1, -1, -1
    )
    cat, dog = mapper(pictures, ["a cat", "a dog"], 8)
    assert cat.shape == (8, 8)
    assert float(cat.min()) >= 0
    assert float(cat.max()) <= 1
    assert float(cat.mean()) == pytest.approx(MEAN_RELEVANCE, abs=1e-3)
    assert float((cat - dog).abs().max()) > 0.05
    # What is asked for by the neutral text itself is nowhere in particular.
    (flat,) = mapper(pictures[:1], [NEUTRAL_TEXT], 4)
    torch.testing.assert_close(flat, torch.full((4, 4), MEAN_RELEVANCE))
    with pytest.raises(ValueError, match="1 pictures, 2 queries"):
        mapper(pictures[:1], ["a", "b"], 4)
    found = mapper.find(pictures, ["Is there a cat?", "Ist da eine Katze?"], 8)
    alone = mapper(pictures[:1], ["Is there a cat?"], 8)
    torch.testing.assert_close(found.maps[:1], alone, atol=1e-4, rtol=0)
    assert found.confidence.tolist() == [1, 0]


def test_patch_maps_of_rectangles_are_those_of_the_squeezed_square(clip: Backbone) -> None:
    mapper = PatchTextMapper(clip)
    wide = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(2))
    found = mapper(wide, ["a cat"], (4, 6))
    assert found.shape == (1, 4, 6)
    assert torch.equal(found, mapper(enlarge(wide, 32), ["a cat"], (4, 6)))


def test_patch_maps_of_other_towers_are_refused(mapper: RelevanceMapper) -> None:
    with pytest.raises(ValueError, match="vision transformer"):
        PatchTextMapper(mapper.backbone)
