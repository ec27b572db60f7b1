"""Stage 09: solutions written in other ways keep every promise; with a mistake in them they get its hint."""

from textwrap import dedent, indent

import pytest

from common.exercises import judge
from common.exercises.catalogue import exercise, nodes

INIT = {
    "initialise": """
def initialise(model, std, writing):
    layers = [part for part in model.modules() if hasattr(part, "writes_to_stream")]
    smaller = [layer.weight for layer in layers if layer.writes_to_stream]
    for p in model.parameters():
        if len(p.shape) < 2:
            continue
        width = std
        if any(p is one for one in smaller):
            width = width * writing
        with torch.no_grad():
            p.copy_(torch.randn(*p.shape) * width)
""",
    "model": """
def model(s, vocab_size, std=0.02, writing=None):
    made = GPT(s, vocab_size)
    if writing is None:
        writing = (s.n_layer + s.n_layer) ** -0.5
    initialise(made, std=std, writing=writing)
    return made
""",
}
SCHEDULE = {
    "constant": "def constant(x):\n    return 1",
    "cosine": "def cosine(x):\n    return math.cos(x * math.pi / 2) ** 2",
    "linear": "def linear(x):\n    left = 1.0 - x\n    return left",
    "stable_decay": """
def stable_decay(x):
    if x <= 4 / 5:
        return 1.0
    return (1 - x) / 0.2
""",
    "learning_rate": """
def learning_rate(n, s):
    rate, share = s.lr / (s.warm_up + 1) * (n + 1), 0.0
    if n >= s.warm_up:
        rate = s.lr
        share = (n - s.warm_up) / (s.steps - s.warm_up)
    return SCHEDULES[s.schedule](share) * rate
""",
    "train": """
def train(model, data, s, recorder):
    weights = list(model.parameters())
    adam = torch.optim.AdamW(weights, betas=(0.9, s.beta2))
    for n in recorder.steps(model, adam):
        x, y = data.batch(n)
        logits = model(x)
        loss = F.cross_entropy(logits.transpose(1, 2), y)
        for p in weights:
            p.grad = None
        loss.backward()
        if s.clip > 0:
            length = sum(p.grad.square().sum() for p in weights).sqrt()
            for p in weights:
                p.grad *= min(1.0, s.clip / length)
        adam.param_groups[0]["lr"] = learning_rate(n, s)
        adam.step()
        recorder.record(loss)
""",
}
ADAMW = {
    "Muon.step": """
def step(self):
    for part in self.param_groups:
        kept = 1 - part["lr"] * part["weight_decay"]
        for p in part["params"]:
            p.copy_(p * kept)
        if part["orthogonal"]:
            self.turn(part)
        else:
            self.adam(part)
""",
    "Muon.adam": """
def adam(self, part):
    part["t"] = t = part.get("t", 0) + 1
    b1, b2 = part["betas"]
    for p in part["params"]:
        g, zeros = p.grad, torch.zeros_like(p)
        m, v = self.state[p].get("moments", (zeros, zeros))
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        self.state[p]["moments"] = m, v
        root = math.sqrt(1 - b2**t)
        p -= part["lr"] * root / (1 - b1**t) * m / (torch.sqrt(v) + root * 1e-8)
""",
}
MUON = {
    "orthogonal": """
def orthogonal(g):
    rows, columns = g.shape[-2:]
    if rows > columns:
        return orthogonal(g.transpose(-2, -1)).transpose(-2, -1)
    length = torch.einsum("...ij,...ij->...", g, g).sqrt()[..., None, None]
    x = g / (length + 1e-7)
    for _ in range(5):
        cube = torch.einsum("...ij,...kj,...kl->...il", x, x, x)
        fifth = torch.einsum("...ij,...kj,...kl->...il", x, x, cube)
        x = 3.4445 * x - 4.7750 * cube + 2.0315 * fifth
    return x
""",
    "Muon.step": ADAMW["Muon.step"],
    "Muon.turn": """
def turn(self, part):
    mu = part["momentum"]
    for p in part["params"]:
        state = self.state[p]
        state["m"] = p.grad.clone() if "m" not in state else mu * state["m"] + p.grad
        update = orthogonal(p.grad + mu * state["m"])
        p -= 0.2 * part["lr"] * max(p.size(0), p.size(1)) ** 0.5 * update
""",
}
GROUPS = {
    "groups": """
def groups(model):
    first, second = [], []
    for name, p in model.named_parameters():
        (first if name.startswith("blocks.") and p.dim() == 2 else second).append(p)
    return first, second
""",
    "adamw": """
def adamw(model, s):
    first, second = groups(model)
    optimizer = torch.optim.AdamW(first, lr=s.lr, betas=(0.9, s.beta2), weight_decay=s.weight_decay)
    decay = 0.0
    if not s.decay_matrices:
        decay = s.weight_decay
    optimizer.add_param_group({"params": second, "weight_decay": decay})
    return optimizer
""",
    "muon": """
def muon(model, s):
    first, second = groups(model)
    others = dict(params=second, weight_decay=0, orthogonal=False)
    turned = dict(params=first, weight_decay=s.weight_decay, orthogonal=True)
    return Muon([others, turned], lr=s.lr, betas=(0.9, s.beta2))
""",
}
PRECISION = {
    "train": """
def train(model, data, s, recorder):
    device = torch.device(data.device).type
    model.to(dtype={"float32": torch.float32, "bfloat16": torch.bfloat16}[s.weights])
    half = s.dtype == "float16"
    adam = torch.optim.AdamW(model.parameters(), lr=s.lr, betas=(0.9, s.beta2))
    scaler = torch.amp.GradScaler(device) if half else None
    for n in recorder.steps(model, adam):
        if half and recorder.state.get("scaler"):
            scaler.load_state_dict(recorder.state["scaler"])
        for part in adam.param_groups:
            part["lr"] = s.lr * (n + 1) / (s.warm_up + 1) if n < s.warm_up else s.lr
        x, y = data.batch(n)
        model.zero_grad()
        if s.dtype == "float32":
            loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        else:
            with torch.autocast(device, dtype=torch.float16 if half else torch.bfloat16):
                loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        if half:
            scaler.scale(loss).backward()
            scaler.unscale_(adam)
        else:
            loss.backward()
        if s.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=s.clip)
        if half:
            scaler.step(adam)
            scaler.update()
            recorder.state["scaler"] = scaler.state_dict()
        else:
            adam.step()
        recorder.record(loss)
"""
}
LOSS = {
    "CappedHead": """
class CappedHead(TiedHead):
    def __init__(self, s, token):
        super().__init__(s, token)
        self.highest = s.soft_cap

    def forward(self, x):
        logits = torch.einsum("btc,vc->btv", x, self.weight)
        if self.highest == 0:
            return logits
        return self.highest * (2 * torch.sigmoid(2 * logits / self.highest) - 1)
""",
    "loss_of": """
def loss_of(logits, y, s):
    log_z = logits.exp().sum(dim=1).log()
    logs = logits - log_z[:, None]
    right = logs.gather(1, y[:, None]).mean()
    alike = logs.mean()
    smooth = s.label_smoothing
    wanted = -(1 - smooth) * right - smooth * alike + s.z_loss * (log_z**2).mean()
    return -right, wanted
""",
    "train": """
def train(model, data, s, recorder):
    adam = torch.optim.AdamW(model.parameters(), betas=(0.9, s.beta2))
    for n in recorder.steps(model, adam):
        adam.param_groups[0]["lr"] = s.lr * min(s.warm_up + 1, n + 1) / (s.warm_up + 1)
        x, y = data.batch(n)
        reported, wanted = loss_of(model(x).reshape(x.numel(), -1), y.reshape(-1), s)
        adam.zero_grad(set_to_none=False)
        wanted.backward()
        if s.clip:
            nn.utils.clip_grad_norm_(model.parameters(), s.clip)
        adam.step()
        recorder.record(reported)
""",
}
BIGRAMS = {
    "BigramEmbedding": """
class BigramEmbedding(nn.Embedding):
    def __init__(self, s, vocab_size):
        super().__init__(vocab_size, s.n_embd)
        self.rows, self.nothing = s.n_bigram, vocab_size
        self.pairs = nn.Embedding(self.rows, s.n_embd)
        self.pairs.starts_at_zero = True

    def row(self, previous, ids):
        return torch.remainder(previous * 7919 + ids, self.rows)

    def forward(self, ids, before=None):
        earlier = nn.functional.pad(ids, (1, 0), value=self.nothing)[:, : ids.size(1)]
        if before is not None:
            earlier[:, 0] = before.squeeze(1)
        return self.weight[ids] + self.pairs.weight[self.row(earlier, ids)]
"""
}
DECAY = {
    "train": """
def train(model, data, s, recorder):
    named = dict(model.named_parameters())
    table = named.pop("token.pairs.weight")
    adam = torch.optim.AdamW(named.values(), betas=(0.9, s.beta2), weight_decay=s.weight_decay)
    adam.add_param_group({"params": [table], "weight_decay": 0.0})
    for n in recorder.steps(model, adam):
        rate = learning_rate(s, n)
        x, y = data.batch(n)
        loss = F.cross_entropy(model(x).transpose(1, 2), y)
        model.zero_grad()
        loss.backward()
        if s.clip:
            nn.utils.clip_grad_norm_(model.parameters(), s.clip)
        with torch.no_grad():
            table *= 1 - rate * s.pair_decay
        for part in adam.param_groups:
            part["lr"] = rate
        adam.step()
        recorder.record(loss)
"""
}
SOLUTIONS = {
    "init": INIT, "schedule": SCHEDULE, "adamw": ADAMW, "muon": MUON, "param_groups": GROUPS,
    "precision": PRECISION, "loss": LOSS, "bigrams": BIGRAMS, "decay": DECAY,
}  # fmt: skip
# exercise, what stands in the solution above, what a mistake makes of it, and what its hint says
MISTAKES = [
    ("init", "(s.n_layer + s.n_layer) ** -0.5", "s.n_layer ** -0.5", "counted once"),
    ("init", "width = width * writing", "pass", "No weight is recognised"),
    (
        "schedule",
        "math.cos(x * math.pi / 2) ** 2",
        "math.sin(x * math.pi / 2) ** 2",
        "rises from 0 to the peak",
    ),
    (
        "schedule",
        "share = (n - s.warm_up) / (s.steps - s.warm_up)",
        "share = (n - s.warm_up) / s.steps",
        "divided by all steps",
    ),
    ("schedule", "            p.grad = None\n", "            pass\n", "never set to zero"),
    ("adamw", "(torch.sqrt(v) + root * 1e-8)", "torch.sqrt(v + root**2 * 1e-8)", "inside the root"),
    ("adamw", "(torch.sqrt(v) + root", "(v / root + root", "no square root"),
    ("adamw", "root / (1 - b1**t) * m", "root * m", "The mean of the gradients is not corrected"),
    ("adamw", 'kept = 1 - part["lr"] * part', "kept = 1 - part", "the whole decay"),
    ("muon", "orthogonal(p.grad + mu * state", "orthogonal(0 * p.grad + mu * state", "Nesterov"),
    ("muon", 'else mu * state["m"]', 'else state["m"]', "forgets nothing"),
    (
        "muon",
        '"...ij,...ij->...", g, g).sqrt()[..., None, None]',
        '"...ij,...ij->...i", g, g).sqrt()[..., None]',
        "Each row",
    ),
    ("muon", "4.7750 * cube + 2.0315 * fifth", "4.7750 * fifth + 2.0315 * cube", "Two coefficients"),
    ("param_groups", 'name.startswith("blocks.") and p.dim() == 2', "p.dim() == 2", "Embeddings have two"),
    ("param_groups", "if not s.decay_matrices", "if s.decay_matrices", "the wrong way round"),
    ("precision", "            scaler.unscale_(adam)\n", "", "still multiplied"),
    ("precision", '            recorder.state["scaler"] = scaler.state_dict()\n', "", "is not kept"),
    ("loss", "(log_z**2).mean()", "log_z.mean() ** 2", "The mean is squared"),
    ("loss", "return -right, wanted", "return wanted, wanted", "Both numbers"),
    ("bigrams", "value=self.nothing", "value=0", "counts as token 0"),
    (
        "bigrams",
        "        if before is not None:\n            earlier[:, 0] = before.squeeze(1)\n",
        "",
        "is not used",
    ),
    ("decay", "rate * s.pair_decay", "rate * s.weight_decay", "decays like all else"),
    (
        "decay",
        "named.values(), betas=(0.9, s.beta2), weight_decay=s.weight_decay",
        "named.values(), betas=(0.9, s.beta2)",
        "gets 0.01 from AdamW",
    ),
]


def written(name: str, old: str = "", new: str = "") -> str:
    """The script of an exercise with the solution above in it, in which `old` has become `new`."""
    one = exercise(name)
    text = one.source.read_text(encoding="utf-8").replace(
        "import torch\n", "import math\n\nimport torch\n", 1
    )
    if old:
        assert sum(old in own for own in SOLUTIONS[name].values()) == 1
    for node in reversed(nodes(text, one.write)):
        short = next(key for key in SOLUTIONS[name] if key.split(".")[-1] == node.name)
        own = dedent(SOLUTIONS[name][short]).strip("\n")
        lines = text.splitlines()
        own = indent(own.replace(old, new) if old else own, " " * node.col_offset)
        lines[node.lineno - 1 : node.end_lineno] = own.splitlines()
        text = "\n".join(lines) + "\n"
    return text


def seen_in(name: str, text: str) -> list[judge.Seen]:
    return judge.look_at(text, exercise(name), exercise(name).source)


@pytest.mark.parametrize("name", SOLUTIONS)
def test_another_way_to_write_it_keeps_every_promise(name):
    seen = seen_in(name, written(name))
    assert not [f"{one.observation.promise}: {one.wrong}" for one in seen if not one.holds]


@pytest.mark.long
@pytest.mark.parametrize(("name", "old", "new", "said"), MISTAKES)
def test_a_mistake_in_another_way_to_write_it_gets_its_hint(name, old, new, said):
    seen = seen_in(name, written(name, old, new))
    assert not all(one.holds for one in seen)
    (found,) = judge.looks_like(seen, exercise(name))
    assert said in found.hint
