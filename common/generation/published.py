"""Published GPT-2 weights, in our GPT: from a folder with config.json and model.safetensors, as the
transformers library writes it.
"""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import safetensors
import torch
from torch import Tensor, nn

from common.errors import UserError
from common.model import part
from common.model.gpt import GPT
from common.settings import Settings

FEED_FORWARD = {
    "gelu_new": "gelu-tanh",
    "gelu_pytorch_tanh": "gelu-tanh",
    "gelu": "gelu",
    "relu": "relu",
    "silu": "silu",
}


class LibraryTokenizer:
    """A tokenizer.json, read by the tokenizers library: `encode` and `decode` as those of
    common.data.tokenizer.
    """

    def __init__(self, made):
        self.name, self.made, self.vocab_size = "tokenizer.json", made, made.get_vocab_size()
        self.made.encode_special_tokens = True  # a special token in a text is plain text, as with ours

    def encode(self, text: str) -> np.ndarray:
        """Ids as int64."""
        return np.array(self.made.encode(text, add_special_tokens=False).ids, np.int64)

    def decode(self, ids) -> str:
        return self.made.decode([int(i) for i in ids], skip_special_tokens=False)


@dataclass
class Published:
    """A model that was trained elsewhere, and what is needed to sample from it."""

    model: nn.Module
    tokenizer: LibraryTokenizer
    settings: Settings
    folder: Path
    device: str = "cpu"

    def banner(self) -> str:
        count, s = sum(p.numel() for p in self.model.parameters()), self.settings
        facts = [
            f"{count:,} parameters",
            f"vocabulary of {self.tokenizer.vocab_size:,}",
            f"{s.n_layer} layers",
        ]
        return f"{self.folder}: GPT-2, {' · '.join([*facts, 'not trained here'])}"


def is_published(name: str) -> bool:
    """Whether a name is a folder with a model of another library."""
    return (Path(name) / "config.json").is_file()


def load_gpt2(folder: Path) -> Published:
    """Read a folder of GPT-2 weights.

    Raises UserError, one line, for another kind of model and for files that are not whole.
    """
    config = _json(folder / "config.json")
    if config.get("model_type") != "gpt2":
        raise UserError(
            f"{folder} holds a model of type {config.get('model_type')!r}; only gpt2 is read here"
        )
    activation = config.get("activation_function", "gelu_new")
    if activation not in FEED_FORWARD:
        raise UserError(f"{folder}: activation {activation!r} is not one of {', '.join(FEED_FORWARD)}")
    try:
        s = Settings(
            n_layer=config["n_layer"],
            n_embd=config["n_embd"],
            n_head=config["n_head"],
            block_size=config["n_positions"],
        )
        vocab_size, inner = config["vocab_size"], config.get("n_inner") or 4 * s.n_embd
        tied = config.get("tie_word_embeddings", True)
    except KeyError as error:
        raise UserError(f"{folder / 'config.json'} says nothing of {error}; fetch the file again") from None
    feed_forward = partial(part("feed_forward", FEED_FORWARD[activation]), multiple=inner / s.n_embd)
    model = GPT(s, vocab_size, feed_forward=feed_forward, head=part("head", "tied" if tied else "untied"))
    with_biases(model, config.get("layer_norm_epsilon", 1e-5))
    _load_into(model, _tensors(folder / "model.safetensors"), folder)
    return Published(model.eval(), _tokenizer(folder, vocab_size), s, folder)


def with_biases(model: GPT, eps: float) -> None:
    """Give every linear layer but the head, and every norm, the bias that ours leaves out."""
    for module in model.modules():
        if isinstance(module, nn.Linear) and module is not model.head:
            module.bias = nn.Parameter(torch.zeros(module.out_features))
        if isinstance(module, nn.LayerNorm):
            module.bias, module.eps = nn.Parameter(torch.zeros(module.normalized_shape)), eps


def _load_into(model: GPT, tensors: dict[str, Tensor], folder: Path) -> None:
    """Put weights by GPT-2's names into our model; its matrices are stored (in, out)."""
    ours = {"token": "wte", "position": "wpe", "norm": "ln_f"}
    for number in range(len(model.blocks)):
        names = {
            "norm1": "ln_1",
            "norm2": "ln_2",
            "attention.qkv": "attn.c_attn",
            "attention.projection": "attn.c_proj",
        }
        names |= {"feed_forward.0": "mlp.c_fc", "feed_forward.2": "mlp.c_proj"}
        ours |= {f"blocks.{number}.{name}": f"h.{number}.{theirs}" for name, theirs in names.items()}
    for name, parameter in model.named_parameters():
        module, _, kind = name.rpartition(".")
        wanted = "lm_head.weight" if module == "head" else f"{ours[module]}.{kind}"
        if wanted not in tensors:
            raise UserError(
                f"{folder / 'model.safetensors'} has no {wanted}; it is not the whole of this model, fetch "
                "it again"
            )
        tensor = tensors[wanted].T if parameter.ndim == 2 and ".h." in f".{wanted}" else tensors[wanted]
        if tensor.shape != parameter.shape:
            shapes = f"{tuple(tensor.shape)}, and config.json asks for {tuple(parameter.shape)}"
            raise UserError(
                f"{folder / 'model.safetensors'}: {wanted} is {shapes}; the two files are not of one model"
            )
        parameter.data.copy_(tensor)


def _tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, without the prefix that some have."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            names = list(file.keys())
            return {name.removeprefix("transformer."): file.get_tensor(name) for name in names}
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; fetch the weights in safetensors form") from None
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is not a whole file of weights ({error}); fetch it again") from None


def _tokenizer(folder: Path, vocab_size: int):
    """tokenizer.json of the folder, else vocab.json and merges.txt, else, if the size fits, GPT-2's."""
    from common.data.tokenizer import TiktokenTokenizer

    if (folder / "tokenizer.json").is_file() or (folder / "merges.txt").is_file():
        try:
            import tokenizers
        except ImportError:
            raise UserError(
                "the folder's tokenizer needs the package tokenizers; install it: pip install tokenizers"
            ) from None
        if (folder / "tokenizer.json").is_file():
            return LibraryTokenizer(
                tokenizers.Tokenizer.from_str((folder / "tokenizer.json").read_text(encoding="utf-8"))
            )
        made = tokenizers.ByteLevelBPETokenizer.from_file(
            str(folder / "vocab.json"), str(folder / "merges.txt")
        )
        return LibraryTokenizer(made._tokenizer)
    if vocab_size == 50_257:
        return TiktokenTokenizer("gpt2")
    raise UserError(f"{folder} holds no tokenizer; put tokenizer.json beside the weights")


def _json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); fetch it again") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no settings; fetch it again")
    return content
