"""What stands for the settings of a row: a hash that a new setting leaves as it is."""

import dataclasses
import hashlib
import json

from common.settings import ARCHITECTURE, FIRST, Settings

# what each later setting was when it came: with that value, a line is what it was before there was the
# setting
INTRODUCED = {
    "dropout": 0.0, "warm_up": 0, "cosine": False, "min_lr": 0.0, "beta2": 0.999, "weight_decay": 0.01,
    "decay_matrices": False,
    "clip": 0.0, "tokenizer": "char", "seconds": 0.0, "n_kv_head": 0, "init_from": None,
    "keep_duplicates": False, "drop_leaked": False,
    "n_expert": 8, "n_expert_per_token": 2, "capacity": None, "balance": 0.01,
    "attention": "flash", "feed_forward": "gelu", "norm": "layernorm", "position": "learned", "head": "tied",
    "qk_norm": False,
    "window": 32, "embedding": "token", "n_bigram": 8192,
    "schedule": "constant",
    "optimizer": "adamw",
    "weights": "float32", "label_smoothing": 0.0, "z_loss": 0.0, "soft_cap": 0.0,
    "accumulate": 1, "compile": False, "document_mask": False, "table_lr": 0.0, "pair_decay": 0.0,
}  # fmt: skip


class Reading:
    """Passes on the settings a model asks for and remembers which: only these mattered."""

    names: set[str]

    def __init__(self, settings: Settings):
        self._settings, self.names = settings, set()

    def __getattr__(self, name: str):
        value = getattr(self._settings, name)
        self.names.add(name)
        return value


def config_hash(s: Settings, reads: set[str], corpus: str | None = None) -> str:
    """12 hex digits that stand for the settings that mattered: the general ones and those the model reads.

    A setting that came later is left out at the value it had then: adding a new one to the course leaves the
    rows of old runs valid, and changing a default does not. `corpus` overrides the name, where a run went on
    with another corpus than it was asked for.
    """
    values = dataclasses.asdict(s) | ({"corpus": corpus} if corpus else {})
    kept = {k: v for k, v in values.items() if k in FIRST or v != INTRODUCED[k]}
    kept = {k: v for k, v in kept.items() if k not in ARCHITECTURE or k in reads or k == "block_size"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]
