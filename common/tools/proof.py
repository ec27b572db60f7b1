"""What lines of the course compute in their first steps, as digests: run by `common.tools.prove` in two
versions of the project.

It reads a list of lines from standard input as JSON and prints one JSON object for each. It uses only what
every version has.
"""

import contextlib
import hashlib
import importlib
import json
import sys
import tempfile
from pathlib import Path

import torch

SCORED = 8_192  # tokens of a split whose scores are compared


class Watch:
    """Stands in for what happens around the steps of a run, and notes what they compute.

    First come real steps: the first few, those around the end of the warm-up, one in the middle, the last.
    Then the rate of every step is asked, with a model that costs nothing.
    """

    def __init__(self, s, score):
        self.total = s.steps if not getattr(s, "seconds", 0) else 300
        warm_up = getattr(s, "warm_up", 0)
        chosen = {0, 1, 2, 3, warm_up - 1, warm_up, warm_up + 1, self.total // 2, self.total - 1}
        self.real = sorted(step for step in chosen if 0 <= step < self.total)
        self.score, self.facts, self.rates, self.optimizer = score, [], [], None
        self.step: int | None = 0  # None where only the rate is asked
        # for a loop that keeps a log of its own, or the best weights
        self.kept = tempfile.TemporaryDirectory()  # removed with this object
        self.folder, self.loss, self.dashboard = Path(self.kept.name), 0.0, None
        self.path = self.folder / "checkpoint"
        with contextlib.suppress(ModuleNotFoundError):  # an earlier version knew no other processes
            self.group = importlib.import_module("common.training.distributed").ALONE
        self.state: dict = {"curve": []}

    def steps(self, model, optimizer=None):
        self.optimizer = optimizer
        for step in self.real:
            self.step = step
            yield step
        self.facts.append(["after these steps", weights(model)])
        self.facts.append(["scores", self.score(model)])
        if optimizer is None:
            return
        kept = {
            k: repr(v)
            for group in optimizer.param_groups
            for k, v in group.items()
            if k not in ("params", "lr")
        }
        self.facts.append(["optimiser", json.dumps(kept, sort_keys=True)])
        for part in model.modules():  # of the steps so far, which are over
            if hasattr(part, "auxiliary_loss"):
                part.auxiliary_loss = 0.0
        model.forward = cheap(model)
        for step in range(self.total):
            self.step = None
            yield step
        self.facts.append(["rate of every step", digest(repr(self.rates))])

    def record(self, loss) -> None:
        self.loss = loss.item()
        if self.step is not None:
            self.facts.append([f"loss at step {self.step}", loss.item().hex()])
        if self.optimizer is not None:
            self.rates.append([group["lr"] for group in self.optimizer.param_groups])


class Beginning:
    """The first batches of a split, as it cuts them; its end, `tail`, is cut the same way."""

    def __init__(self, split):
        self.split, self.characters = split, split.characters

    def __len__(self):
        return len(self.split)

    def tail(self, tokens):
        return Beginning(self.split.tail(tokens))

    def in_order(self):
        seen = 0
        for x, y in self.split.in_order():
            yield x, y
            seen += y.numel()
            if seen >= SCORED:
                return


class Batches:
    """The data of a run; while only rates are asked for, its batches are one token."""

    def __init__(self, data, watch):
        self.data, self.watch = data, watch
        x, y = data.batch(0)
        self.token = (x[:1, :1], y[:1, :1]) if y.ndim == 2 else (x[:1], y[:1])

    def __getattr__(self, name):
        return getattr(self.data, name)

    def batch(self, step):
        return self.token if self.watch.step is None else self.data.batch(step)


def cheap(model):
    """A forward pass that takes no time: logits of the right shape, with a gradient of zero for every
    parameter.
    """
    parameters, shapes = list(model.parameters()), {}

    def forward(x):
        if x.shape not in shapes:
            with torch.no_grad():
                shapes[x.shape] = type(model).forward(model, x).shape
        return torch.zeros(shapes[x.shape]) + 0 * sum(p.flatten()[0] for p in parameters)

    return forward


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def weights(model) -> str:
    """A digest of every tensor of a model, by name."""
    state = sorted(model.state_dict().items())
    return digest(
        repr([(name, tuple(v.shape), hashlib.sha256(in_memory(v)).hexdigest()) for name, v in state])
    )


def in_memory(x) -> bytes:
    """The bytes of a tensor, also of one whose numbers numpy does not know (bfloat16)."""
    return x.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def texts(data) -> str:
    """A digest of what is learned from and measured on, and of the vocabulary."""
    parts = [json.dumps(data.tokenizer.state(), sort_keys=True), data.corpus.name]
    for split in (data.train, data.validation, data.test):
        tensors = [getattr(split, name) for name in ("tokens", "contexts", "targets") if hasattr(split, name)]
        parts.append(
            repr(
                [hashlib.sha256(t.contiguous().numpy().tobytes()).hexdigest() for t in tensors]
                + [len(split), split.characters]
            )
        )
    return digest(repr(parts))


def version(*names: str):
    """The first of these modules that a version of the project has: some have moved."""
    for name in names:
        with contextlib.suppress(ModuleNotFoundError):
            return importlib.import_module(name)
    raise ModuleNotFoundError(f"no module {' or '.join(names)}")


def prove(line: dict, loaded: dict) -> dict:
    """The facts of one line, in the order in which they come about."""
    lessons = version("common.lessons", "common.lesson")
    plan = lessons.course_plan(line["experiment"])
    s = plan.settings(line["flags"])
    s = plan.own(line["arm"], s) if hasattr(plan, "own") else s
    key = (
        line["experiment"],
        *(
            getattr(s, n, None)
            for n in ("corpus", "tokenizer", "block_size", "batch_size", "keep_duplicates", "drop_leaked")
        ),
    )
    if key not in loaded:
        loaded.clear()
        loaded[key] = plan.load(s, "cpu", None)
    data = loaded[key]
    model = build(lessons, plan.arms[line["arm"]], s, data.tokenizer.vocab_size)

    watch = Watch(s, lambda trained: scores(trained, data))
    watch.state["arm"] = line["arm"]
    before = [
        ["data", texts(data)],
        ["tokens that are scored", in_order(data)],
        ["untrained weights", weights(model)],
        ["batches", batches(data, watch.total)],
    ]
    plan.train(model, Batches(data.with_seed(1), watch), s, watch)
    if not watch.facts:  # nothing is trained
        watch.facts = [["fitted", weights(model)], ["scores", scores(model, data)]]
    code = lessons.Reference(line["experiment"], line["arm"], line["flags"]).code
    return {"facts": before + watch.facts, "steps": len(watch.real), "code": code}


def build(lessons, arm, s, vocab_size: int):
    """The untrained model of seed 1, as the version builds it."""
    if hasattr(lessons, "build_model"):
        return lessons.build_model(arm, s, vocab_size, 1)
    torch.manual_seed(1)
    return arm(s, vocab_size)


class Short:
    """The data of a run with splits that take little time to score."""

    def __init__(self, data):
        self.train, self.validation, self.test = (
            Beginning(split) for split in (data.train, data.validation, data.test)
        )
        self.device = data.device


def scores(model, data) -> str:
    """What the version measures at the end of a run; those that had no module for it scored the same three
    parts of the text.
    """
    short = Short(data)
    measure = getattr(version("common.results.row", "common.record", "common.metrics"), "measure", None)
    if not measure:
        parts = {
            "train": short.train.tail(len(short.validation)),
            "validation": short.validation,
            "test": short.test,
        }
        measured = {
            name: version("common.training.metrics", "common.metrics").score(model, part, "cpu")
            for name, part in parts.items()
        }
    else:
        measured = measure(model, short, False)
    return repr(
        [
            (name, f.nats.hex(), f.tokens, f.correct, f.loss, f.bpc, f.accuracy)
            for name, f in sorted(measured.items())
        ]
    )


def in_order(data) -> str:
    """A digest of every token that is scored, and of what stands before it, in each split and at the end of
    the training text.
    """
    windows = []
    for split in (data.validation, data.test, data.train.tail(len(data.validation))):
        pairs = list(split.in_order())
        for side in (0, 1):
            tokens = torch.cat([pair[side].flatten() for pair in pairs])
            windows.append((len(tokens), hashlib.sha256(tokens.contiguous().numpy().tobytes()).hexdigest()))
    return digest(repr(windows))


def batches(data, total: int) -> str:
    """A digest of some batches of two seeds."""
    chosen = [data.with_seed(seed).batch(step) for seed in (1, 2) for step in (0, 1, total - 1)]
    return digest(
        repr([hashlib.sha256(t.contiguous().numpy().tobytes()).hexdigest() for pair in chosen for t in pair])
    )


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    loaded: dict = {}
    for line in json.load(sys.stdin):
        try:
            answer = prove(line, loaded)
        except Exception as error:  # of whatever kind: it is told, and the other lines go on
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
