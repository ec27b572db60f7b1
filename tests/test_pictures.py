"""Pictures can be read: on a page and on a phone, on a dark page; and each is drawn from its table alone."""

import ast
import io
import json
import re
import shutil
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.text import Text
from PIL import Image

from common.errors import UserError
from common.paths import ROOT
from common.report import (
    figures,
    inside,
    labels,
    overviews,
    pictures,
    plots,
    redraw,
    size_law,
    staircase,
    update,
)

FOLDER = ROOT / "logs/plots"
ALL = sorted(path.stem for path in FOLDER.glob("*.png"))
OWN = [stem for stem in ALL if pictures.owner(stem)]


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """The figure of a call, as it is when it is saved: `drawn(figures.stage_curves, frame, ...)`."""

    def draw(function, *words):
        kept = []
        monkeypatch.setattr(plots.plt, "close", kept.append)
        monkeypatch.setattr(plots, "DPI", 60)
        function(*words)
        monkeypatch.undo()
        (figure,) = kept
        figure.draw_without_rendering()
        return figure

    yield draw
    plots.plt.close("all")


@pytest.fixture
def tracked_figure(drawn, tmp_path):
    """The figure of a tracked picture, drawn anew from its table."""

    def draw(stem: str):
        table = tmp_path / f"{stem}.csv"
        shutil.copyfile(FOLDER / table.name, table)
        if stem in OWN:
            return drawn(plots.draw, plots.read_how(FOLDER / f"{stem}.png"), table)
        return drawn(update.draw, table, table.read_text(encoding="utf-8"))

    return draw


def texts(figure) -> list[Text]:
    """What can be read in a figure; what is turned by an angle has no box of its own."""
    hidden = set()
    for axes in figure.findobj(Axes):
        for axis in (axes.xaxis, axes.yaxis):
            shown = axis._update_ticks() if axes.axison else []  # others wait outside the limits
            waiting = [tick for tick in (*axis.majorTicks, *axis.minorTicks) if tick not in shown]
            hidden |= {label for tick in waiting for label in (tick.label1, tick.label2)}
    return [
        text
        for text in figure.findobj(Text)
        if text not in hidden
        and text.get_visible()
        and text.get_text().strip()
        and text.get_rotation() % 90 == 0
    ]


def box_of(text: Text):
    """Its letters, without the thread of an annotation."""
    return Text.get_window_extent(text)


def collisions(figure) -> list[tuple[str, str]]:
    """Pairs of texts that lie on one another by more than a pixel of a page."""
    boxes = [(text.get_text(), box_of(text)) for text in texts(figure)]
    pixel = figure.bbox.width / 830
    return [
        (a, b)
        for (a, one), (b, two) in combinations(boxes, 2)
        if min(one.x1, two.x1) - max(one.x0, two.x0) > 2 * pixel
        and min(one.y1, two.y1) - max(one.y0, two.y0) > 2 * pixel
    ]


def cut_off(figure) -> list[str]:
    """Texts that do not lie within the figure."""
    whole = figure.bbox
    return [
        text.get_text()
        for text in texts(figure)
        if (box := box_of(text)).x0 < whole.x0 or box.y0 < whole.y0 or box.x1 > whole.x1 or box.y1 > whole.y1
    ]


def readable(figure) -> list[str]:
    """Texts that are lower than seven pixels where the picture is 390 wide, but the letters of an attention
    map.
    """
    inches = figure.get_size_inches()[0]
    return [
        text.get_text()
        for text in texts(figure)
        if text.get_fontsize() / 72 * 390 / inches < 7 and len(text.get_text()) > 1
    ]


# ---- every tracked picture -----------------------------------------------------------------------


@pytest.mark.parametrize("stem", ALL)
def test_no_text_of_a_picture_lies_on_another_or_is_cut_off_or_too_small(stem, tracked_figure):
    figure = tracked_figure(stem)
    assert collisions(figure) == []
    assert cut_off(figure) == []
    assert readable(figure) == []


@pytest.mark.parametrize("stem", ALL)
def test_a_picture_is_twice_as_wide_as_a_page_opaque_and_has_a_white_margin(stem):
    with Image.open(FOLDER / f"{stem}.png") as image:
        assert image.width == plots.WIDTH * plots.DPI >= 1660
        pixels = np.asarray(image.convert("RGBA"))
    assert pixels[..., 3].min() == 255
    frame = [pixels[:6], pixels[-6:], pixels[:, :6], pixels[:, -6:]]
    assert all((edge == 255).all() for edge in frame)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.svg")), ids=lambda path: path.stem)
def test_a_drawing_has_a_white_ground_as_large_as_itself(path):
    svg = path.read_text(encoding="utf-8")
    box = re.search(r'viewBox="(\S+) (\S+) (\S+) (\S+)"', svg).groups()
    ground = re.search(r'<rect x="(\S+)" y="(\S+)" width="(\S+)" height="(\S+)" fill="white"/>', svg).groups()
    assert ground == box and float(box[0]) <= -6 and float(box[1]) <= -6


@pytest.mark.parametrize("stem", OWN)
def test_a_picture_says_how_it_is_drawn_in_the_words_of_its_script(stem):
    how = plots.read_how(FOLDER / f"{stem}.png")
    assert how["drawer"] in plots.DRAWERS
    script = ast.parse((ROOT / f"{pictures.owner(stem)}.py").read_text(encoding="utf-8"))
    parts = [  # of each text of the script; of an f-string those that are fixed
        [node.value]
        if isinstance(node, ast.Constant)
        else [p.value for p in node.values if hasattr(p, "kind")]
        for node in ast.walk(script)
        if isinstance(node, ast.JoinedStr) or isinstance(getattr(node, "value", 0), str)
    ]
    title = how.get("title", "")
    assert not title or any(
        title == texts[0] or (len(texts) > 1 and title.startswith(texts[0]) and title.endswith(texts[-1]))
        for texts in parts
        if texts
    )


def test_the_gradient_goes_over_a_dozen_decades_at_most(tracked_figure):
    figure = tracked_figure("05_residual_norm_depth_map_gradient")
    for axes in figure.axes:
        low, high = axes.get_ylim()
        assert np.log10(high / low) <= 12
    powers = [text.get_text() for axes in figure.axes for text in axes.texts if "10^" in text.get_text()]
    assert "$10^{-40}$" in powers  # what is below is written


# ---- names at the ends of lines ------------------------------------------------------------------


def test_names_are_moved_apart_no_further_than_needed():
    assert labels.apart([10, 50, 90], 10, 0, 100) == [10, 50, 90]
    assert labels.apart([50, 50], 10, 0, 100) == [45, 55]
    assert labels.apart([99, 100, 20], 10, 0, 100) == [85, 95, 20]
    crowded = labels.apart([3.0] * 17, 5, 0, 100)
    assert min(np.diff(crowded)) >= 5 - 1e-9 and min(crowded) >= 2.5 and max(crowded) <= 97.5


def stage(lines: int, arms: bool, far: tuple = ()) -> pd.DataFrame:
    """Curves of so many lines of two seeds that end within a hundredth of a bit of one another; but for the
    last, which end so many bits above.
    """
    rows = []
    for number in range(lines):
        name = ("09_x/script", f"a-long-name-{number}") if arms else (f"09_x/a_script_{number}", "default")
        for seed in (1, 2):
            for step in range(0, 700, 100):
                bits = 2 + 2 / (1 + step / 100) + 0.0005 * number + 0.001 * seed
                bits += dict(zip(range(lines - 1, 0, -1), far, strict=False)).get(number, 0)
                rows.append((*name, seed, step, bits, "measured"))
    return pd.DataFrame(rows, columns=["experiment", "arm", "seed", "step", "val_bpc", "state"])


@pytest.mark.parametrize("arms", [True, False])
def test_the_names_of_seventeen_lines_do_not_lie_on_one_another(arms, drawn, tmp_path):
    figure = drawn(figures.stage_curves, stage(17, arms, (0.5, 0.4)), "09_x", tmp_path / "a.png", "")
    names = [text for axes in figure.axes for text in axes.texts if text.get_gid() == labels.END]
    assert len(names) == 1 + 17
    assert collisions(figure) == [] and cut_off(figure) == []
    # and they would, were they not moved
    lower = figure.axes[1]
    ends = [lower.transData.transform((0, name.xy[1]))[1] for name in names if name.axes is lower]
    assert min(np.diff(sorted(ends))) < box_of(names[0]).height


def test_curves_that_lie_on_one_another_are_drawn_as_differences(drawn, tmp_path):
    figure = drawn(figures.stage_curves, stage(3, True), "09_x", tmp_path / "a.png", "")
    (bottom, top) = figure.axes[1].get_ylim()
    assert top - bottom < 0.02 and bottom < 0 < 0.001 < top


def test_one_line_far_off_does_not_press_the_others_flat(drawn, tmp_path):
    figure = drawn(figures.stage_curves, stage(5, True, (1.0,)), "09_x", tmp_path / "a.png", "")
    (bottom, top) = figure.axes[1].get_ylim()
    assert top - bottom < 0.05
    assert [text.get_text() for text in figure.axes[1].texts][-1] == "a-long-name-4  +1.002 ↑"


def test_a_line_that_ends_outside_has_an_arrow(drawn, tmp_path):
    def picture():
        figure, axes = plots.plt.subplots()
        axes.set(xlim=(0, 1), ylim=(0, 1))
        for y in (-3, 0.5, 3):
            labels.name_end(axes, (1, y), "name", "#0072B2")
        plots.save(figure, tmp_path / "a.png")

    names = [text.get_text() for text in drawn(picture).axes[0].texts]
    assert names == ["name ↓", "name", "name ↑"]


# ---- what single pictures show -------------------------------------------------------------------


def test_each_head_of_an_attention_grid_has_a_scale_of_its_own(drawn, tmp_path):
    weights = torch.eye(6).repeat(2, 1, 1)
    weights[1, 1:] = torch.ones(5, 6).tril(1) / torch.arange(2, 7)[:, None]
    figure = drawn(inside.attention_grid, [weights], list("abcdef"), "where?", tmp_path / "a.png")
    tops = [axes.images[0].get_clim() for axes in figure.axes]
    assert tops == [(0, 1), (0, 0.5)]
    assert [axes.get_title(loc="left").split("\n")[1] for axes in figure.axes] == ["0 to 1.00", "0 to 0.50"]


def test_the_best_size_at_each_compute_is_one_of_those_trained_so_far():
    points = {"small": ([1, 10], [3.0, 2.0]), "large": ([1, 100], [4.0, 1.0])}
    means = pd.Series(
        {(arm, x): y for arm, (xs, ys) in points.items() for x, y in zip(xs, ys, strict=True)}
    ).rename_axis(["arm", "x"])
    (first, start, end), (second, _, last) = size_law.best_arms(means)
    assert (first, second) == ("small", "large") and start == pytest.approx(1) and last == pytest.approx(100)
    assert end == pytest.approx(10, rel=0.01)
    crossing = pd.Series({("a", 1): 3.0, ("a", 100): 2.0, ("b", 1): 4.0, ("b", 100): 1.0})
    (_, _, cross), _ = size_law.best_arms(crossing.rename_axis(["arm", "x"]))
    assert cross == pytest.approx(10, rel=0.01)


def test_six_lonely_points_are_bars(drawn, tmp_path):
    points = [(panel, name, x, x * 10) for panel in ("p", "q") for name, x in (("a", 1), ("b", 2), ("c", 3))]
    words = (("panel", "name", "x", "y"), ("x", "y"), "How many?", tmp_path / "a")
    figure = drawn(overviews.scaling, points, *words)
    assert [len(axes.patches) for axes in figure.axes] == [3, 3] and not figure.axes[0].lines
    assert figure.axes[0].get_ylim()[0] == 0


def test_runs_at_one_place_each_have_a_row(drawn, tmp_path):
    row = {"arm": "a", "seed": 1, "test_bpc": 2.0}
    marks = [overviews.Mark(name, 0.5, 2 + seed / 10, row) for name in ("a", "b") for seed in (1, 2)]
    figure = drawn(overviews.points, marks, ("millions", "bits"), "Which?", tmp_path / "a")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a  (0.5)", "b  (0.5)"]


def test_the_staircase_says_what_is_missing_and_what_is_old(drawn, tmp_path):
    lines = "label,kind,test_bpc,half,state\n2-gram,floor,3.6,0.0,measured\n"
    lines += "01_a/one,stage,3.0,0.1,stale\n01_a/two,stage,,,missing\n02_b/three,stage,2.5,0.1,measured\n"
    figure = drawn(staircase.staircase, pd.read_csv(io.StringIO(lines)), tmp_path / "a.png", "")
    said = [text.get_text() for text in texts(figure)]
    assert "not measured yet" in said and "01 one †" in said and any("earlier version" in s for s in said)
    assert collisions(figure) == [] and cut_off(figure) == []


# ---- a picture is drawn from its table -----------------------------------------------------------


def test_a_table_is_read_as_it_was_written(tmp_path):
    cells = [("1", 2, 0.1 + 0.2, ""), ("a,b", 3, float("nan"), ""), ("", 4, 1e-30, "")]
    plots.write_table(tmp_path / "t", ["text", "whole", "number", "empty"], cells)
    table = plots.read_table(tmp_path / "t")
    assert list(table.text) == ["1", "a,b", ""] and list(table.whole) == [2, 3, 4]
    assert table.number[0] == 0.1 + 0.2 and np.isnan(table.number[1]) and list(table["empty"]) == ["", "", ""]


@pytest.fixture
def own(tracked):
    """The table of a tracked picture that a script drew."""
    return tracked / "plots/09_pretraining_optimizer_share.csv"


def test_a_picture_is_drawn_anew_and_keeps_what_it_says(own):
    picture = own.with_suffix(".png")
    before = plots.read_mark(picture), plots.read_how(picture)
    with Image.open(picture) as image:
        image.resize((400, 300)).save(picture, pnginfo=_header(*before))
    redraw.redraw(own)
    assert (plots.read_mark(picture), plots.read_how(picture)) == before
    with Image.open(picture) as image:
        assert image.width == plots.WIDTH * plots.DPI


def _header(mark: str, how: dict):
    from PIL import PngImagePlugin

    header = PngImagePlugin.PngInfo()
    header.add_text("Description", mark)
    if how:
        header.add_text("Comment", json.dumps(how))
    return header


def test_a_picture_that_does_not_say_how_is_an_error(own):
    with Image.open(own.with_suffix(".png")) as image:
        image.save(own.with_suffix(".png"), pnginfo=_header("a b", {}))
    with pytest.raises(UserError, match="run its script and the report again"):
        redraw.redraw(own)


def test_what_a_run_drew_is_taken_over_and_drawn_by_the_present_code(own, tmp_path):
    picture, run = own.with_suffix(".png"), tmp_path / "share.csv"
    run.write_text(own.read_text(encoding="utf-8").replace("sgd", "SGD"), encoding="utf-8")
    how = plots.read_how(picture) | {"title": "Another?"}
    with Image.open(picture) as image:
        image.resize((400, 300)).save(run.with_suffix(".png"), pnginfo=_header("", how))
    redraw.take_over(run, own, "source")
    assert own.read_text(encoding="utf-8") == run.read_text(encoding="utf-8")
    assert plots.read_how(picture) == how
    assert plots.read_mark(picture) == plots.mark(run.read_text(encoding="utf-8"), "source")
    with Image.open(picture) as image:
        assert image.width == plots.WIDTH * plots.DPI


def test_an_old_picture_of_a_run_does_not_replace_one_that_says_how_it_is_drawn(own, tmp_path):
    picture, run, before = own.with_suffix(".png"), tmp_path / "share.csv", own.read_bytes()
    run.write_text("an older table\n", encoding="utf-8")
    with Image.open(picture) as image:
        image.save(run.with_suffix(".png"), pnginfo=_header("", {}))
    redraw.take_over(run, own, plots.read_mark(picture).partition(" ")[2])
    assert own.read_bytes() == before
    redraw.take_over(run, own, "other code")
    assert own.read_text(encoding="utf-8") == "an older table\n" and plots.read_how(picture) == {}


@pytest.mark.parametrize("values", [(2.0, 2.0), (2.0, 3.0), (np.nan, np.nan)])
def test_axes_fit_what_they_show_also_a_single_value(values):
    axes = plots.plt.subplots()[1]
    labels.fit_height(axes, *values)
    low, high = axes.get_ylim()
    assert low < high and (np.isnan(values[0]) or low < values[0] and values[1] < high)
    plots.plt.close("all")
