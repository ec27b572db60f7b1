"""Pictures of what is inside a model: what was probed in each layer, and where attention looks."""

from pathlib import Path

from matplotlib.colors import PowerNorm

from common.report.labels import headline, name_end
from common.report.plots import STYLE, WIDTH, draw, drawer, plt, save, write_table

FUTURE = "#e8e8e8"


# ---- layers --------------------------------------------------------------------------------------


def layers(probes: list, title: str, path: Path) -> Path:
    """Draw what was probed in each layer while training, one panel per quantity, on a log axis.

    probes: [step, {quantity: [value of layer 1, 2, ...]}] in order. Returns the picture's path.
    """
    lines = [
        (step, name, layer, value)
        for step, probed in probes
        for name, values in probed.items()
        for layer, value in enumerate(values, 1)
    ]
    write_table(path, ["step", "quantity", "layer", "value"], lines)
    return draw({"drawer": "draw_layers", "title": title}, path)


@drawer
def draw_layers(table, title: str):
    """A line for each layer, a panel for each quantity."""
    panels, shades = list(table.groupby("quantity", sort=False)), plt.get_cmap("viridis_r")
    figure, column = plt.subplots(
        len(panels), 1, figsize=(WIDTH, 1.1 + 3.1 * len(panels)), squeeze=False, sharex=True
    )
    for axes, (name, panel) in zip(column[:, 0], panels, strict=True):
        axes.set(yscale="log", title=name, xlim=(0, table.step.max()))
        for layer, line in panel.groupby("layer"):
            colour = shades(0.15 + 0.8 * (layer - 1) / max(1, table.layer.max() - 1))
            axes.plot(line.step, line.value, "o-", ms=4, color=colour)
            name_end(axes, (line.step.iloc[-1], line.value.iloc[-1]), f"block {layer}", colour)
    column[-1, 0].set_xlabel("steps")
    headline(figure, title)
    return figure


# ---- attention -----------------------------------------------------------------------------------


def shown(symbol: str) -> str:
    """A token as a label: spaces and line breaks that can be seen, nothing that the library would read as
    mathematics.
    """
    marks = {" ": "␣", "\n": "↵", "\t": "⇥", "$": r"\$"}
    return "".join(marks.get(c, c if c.isprintable() else "·") for c in symbol)


def attention(weights, symbols: list[str], path: Path) -> Path:
    """Draw attention weights (T, T) over T tokens. Returns the picture's path."""
    lines = [
        (t, symbols[t], s, symbols[s], f"{weight:.6f}")
        for t, row in enumerate(weights.detach().cpu().tolist())
        for s, weight in enumerate(row[: t + 1])
    ]
    write_table(path, ["row", "from", "column", "to", "weight"], lines)
    return draw({"drawer": "draw_attention"}, path)


@drawer
def draw_attention(table):
    """The weights as colours, which follow the square root, so that small weights can be told apart."""
    weights = table.pivot(index="row", columns="column", values="weight")
    labels = [shown(str(symbol)) for symbol in table[table.row == table.column]["from"]]
    figure, axes = plt.subplots(figsize=(WIDTH, WIDTH))
    axes.grid(visible=False)
    axes.set_facecolor(FUTURE)
    image = axes.imshow(weights, cmap="cividis", norm=PowerNorm(0.5, 0, weights.max(axis=None)))
    long = max(map(len, labels)) > 2
    axes.set_xticks(range(len(labels)), labels, rotation=90 if long else 0)
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(length=0, pad=3, labelsize=min(13, 480 / len(labels)))
    axes.set(xlabel="what is looked at", ylabel="who looks (each row sums to 1)")
    axes.text(0.97, 0.95, "the future:\nweight exactly 0", transform=axes.transAxes, ha="right", va="top")
    scale = axes.inset_axes((0.93, 0.42, 0.035, 0.4))
    bar = figure.colorbar(
        image, cax=scale, label="attention weight\n(scale: square root)", ticks=[0, 0.01, 0.1, 0.3, 0.6, 1]
    )
    scale.yaxis.set_ticks_position("left")
    scale.yaxis.set_label_position("left")
    bar.outline.set_visible(False)
    headline(figure, "Where does each character look?")
    return figure


def attention_grid(layers: list, symbols: list[str], title: str, path: Path) -> Path:
    """Draw the weights of every head, (H, T, T) per layer, one row of panels for each layer; the future stays
    grey. Each panel has a scale of its own, whose end stands in its title. Returns the path.
    """
    heads, length = max(len(weights) for weights in layers), len(symbols)
    side = max(2.3, min(3.4, 0.12 * length), (WIDTH - 1) / heads)
    size = (max(WIDTH, side * heads), (side + 0.4) * len(layers) + 1.2)
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(len(layers), heads, figsize=size, squeeze=False)
        for row, (weights, panels) in enumerate(zip(layers, grid, strict=True), 1):
            for head, axes in enumerate(panels):
                if head >= len(weights):
                    axes.axis("off")
                    continue
                top = _head(axes, weights[head], symbols)
                axes.set_title(f"layer {row}, head {head + 1}\n0 to {top:.2f}", fontweight="normal")
        headline(figure, title)
        note = "dark: weight 0; light: the largest weight of the panel,\nin its title (each row sums to 1)"
        figure.supxlabel(note, fontsize="small")
        save(figure, path)
    return path


def _head(axes, weights, symbols: list[str]) -> float:
    """The weights of one head, on a scale from 0 to its largest weight of a row that has a choice: the first
    token can only look at itself. Returns that weight.
    """
    length = len(symbols)
    past = weights.masked_fill(weights.new_ones(length, length).triu(1).bool(), float("nan"))
    top = weights[1:].max().item() if length > 1 else 1.0
    axes.grid(visible=False)
    axes.set_facecolor(FUTURE)
    axes.imshow(past.cpu().numpy(), cmap="cividis", vmin=0, vmax=top)
    labels = [shown(symbol) for symbol in symbols] if length <= 24 else []
    axes.set_xticks(range(len(labels)), labels, rotation=90 if max(map(len, symbols)) > 2 else 0)
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(length=0, pad=1, labelsize=8)
    return top
