"""Our GPT in the forms that other software knows: the names and shapes of Llama's weights, and of GPT-2's.

Which form a model has is seen from its parts. Sources: Touvron et al. 2023, arXiv:2302.13971 (Llama); Radford
et al. 2019 (GPT-2); the names of weights are those of the transformers library.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import UserError
from common.model.attention import (
    ExplicitAttention,
    GroupedQueryAttention,
    MultiHeadAttention,
    TiledAttention,
)
from common.model.embedding import BigramEmbedding
from common.model.feed_forward import FeedForward, GatedFeedForward
from common.model.gpt import GPT
from common.model.head import TiedHead, UntiedHead
from common.model.norm import LayerNorm, RMSNorm
from common.model.position import LearnedPosition, RoPE

SOFTMAX = (MultiHeadAttention, GroupedQueryAttention, ExplicitAttention, TiledAttention)  # one function


@dataclass(frozen=True)
class Form:
    """A model as another library has it: `config` is what its config.json says, `tensors` its weights by
    name.
    """

    name: str
    config: dict
    tensors: dict[str, Tensor]


def form_of(model: nn.Module, block_size: int) -> Form:
    """The form that a model has. Raises UserError, one line, with the parts that fit neither."""
    if type(model) is not GPT:
        raise UserError(
            "the model is written out in its script, and only models of the parts of common.model have a "
            "form that other "
            "libraries know; train one with 08_micro_arch/assemble.py"
        )
    misfits = {"Llama": llama_misfits(model), "GPT-2": gpt2_misfits(model)}
    if not misfits["Llama"]:
        return llama(model, block_size)
    if not misfits["GPT-2"]:
        return gpt2(model, block_size)
    reasons = "; ".join(f"{name} has no {', no '.join(parts)}" for name, parts in misfits.items())
    raise UserError(
        f"no form fits this model: {reasons}; assemble one of the parts of "
        "08_micro_arch/configs/llama.yaml or gpt2.yaml"
    )


# ---- Llama ---------------------------------------------------------------------------------------


def llama_misfits(model: GPT) -> list[str]:
    """The parts of a model that Llama does not have, in words."""
    block = model.blocks[0]
    misfits = _common_misfits(model) + [_called(norm) for norm in _norms(model) if type(norm) is not RMSNorm]
    if type(model.position) is not RoPE:
        misfits.append(_called(model.position))
    elif model.position.interleaved:
        misfits.append("RoPE of pairs (2i, 2i + 1)")
    if type(block.feed_forward) is not GatedFeedForward:
        misfits.append(_called(block.feed_forward))
    elif type(block.feed_forward.activation) is not nn.SiLU:
        misfits.append(f"gate through {_called(block.feed_forward.activation)}")
    return list(dict.fromkeys(misfits))


def llama(model: GPT, block_size: int) -> Form:
    """Norms with RMS, RoPE, SwiGLU; as many heads of keys and values as the model has."""
    attention, V = model.blocks[0].attention, model.token.num_embeddings
    C, H, K = model.token.embedding_dim, attention.n_head, attention.n_kv_head
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": V, "hidden_size": C,
        "num_hidden_layers": len(model.blocks), "num_attention_heads": H, "num_key_value_heads": K,
        "head_dim": C // H,
        "intermediate_size": model.blocks[0].feed_forward.gate.out_features, "hidden_act": "silu",
        "rms_norm_eps": model.norm.eps, "max_position_embeddings": block_size, "attention_bias": False,
        "mlp_bias": False,
        "rope_theta": model.position.theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": model.position.theta},
    }  # fmt: skip
    tensors = {"model.embed_tokens.weight": model.token.weight, "model.norm.weight": model.norm.weight}
    for number, block in enumerate(model.blocks):
        q, k, v = block.attention.qkv.weight.split([C, K * C // H, K * C // H])
        layer = {"self_attn.q_proj": q, "self_attn.k_proj": k, "self_attn.v_proj": v}
        layer |= {"self_attn.o_proj": block.attention.projection.weight}
        layer |= {
            f"mlp.{name}_proj": getattr(block.feed_forward, name).weight for name in ("gate", "up", "down")
        }
        layer |= {"input_layernorm": block.norm1.weight, "post_attention_layernorm": block.norm2.weight}
        tensors |= {f"model.layers.{number}.{name}.weight": weight for name, weight in layer.items()}
    return _with_head("Llama", model, config, tensors, "lm_head.weight")


# ---- GPT-2 ---------------------------------------------------------------------------------------


def activation_of(layer: FeedForward) -> str | None:
    """The name of its activation in a config.json; None for one that has none."""
    activation = layer[1]
    if type(activation) is nn.GELU:
        return "gelu_new" if activation.approximate == "tanh" else "gelu"
    return {nn.ReLU: "relu", nn.SiLU: "silu"}.get(type(activation))


def gpt2_misfits(model: GPT) -> list[str]:
    """The parts of a model that GPT-2 does not have, in words."""
    block = model.blocks[0]
    misfits = _common_misfits(model) + [
        _called(norm) for norm in _norms(model) if type(norm) is not LayerNorm
    ]
    if type(model.position) is not LearnedPosition:
        misfits.append(_called(model.position))
    if type(block.feed_forward) is not FeedForward:
        misfits.append(_called(block.feed_forward))
    elif activation_of(block.feed_forward) is None:
        misfits.append(f"activation {_called(block.feed_forward[1])}")
    if getattr(block.attention, "n_kv_head", None) != getattr(block.attention, "n_head", None):
        misfits.append("keys and values shared by heads")
    return list(dict.fromkeys(misfits))


def gpt2(model: GPT, block_size: int) -> Form:
    """Its matrices are stored the other way round (in, out), and its biases are zero."""
    C, first = model.token.embedding_dim, model.blocks[0]
    config = {
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": model.token.num_embeddings,
        "n_embd": C,
        "n_layer": len(model.blocks), "n_head": first.attention.n_head, "n_positions": block_size,
        "n_inner": first.feed_forward[0].out_features,
        "activation_function": activation_of(first.feed_forward),
        "layer_norm_epsilon": model.norm.eps, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
    }  # fmt: skip
    tensors = {"transformer.wte.weight": model.token.weight, "transformer.wpe.weight": model.position.weight}
    norms: dict[str, Any] = {"transformer.ln_f": model.norm}
    matrices: dict[str, Any] = {}
    for number, block in enumerate(model.blocks):
        start = f"transformer.h.{number}"
        norms |= {f"{start}.ln_1": block.norm1, f"{start}.ln_2": block.norm2}
        matrices |= {
            f"{start}.attn.c_attn": block.attention.qkv,
            f"{start}.attn.c_proj": block.attention.projection,
        }
        matrices |= {f"{start}.mlp.c_fc": block.feed_forward[0], f"{start}.mlp.c_proj": block.feed_forward[2]}
    for name, norm in norms.items():
        tensors |= {f"{name}.weight": norm.weight, f"{name}.bias": torch.zeros(C)}
    for name, matrix in matrices.items():
        tensors |= {f"{name}.weight": matrix.weight.T, f"{name}.bias": torch.zeros(matrix.out_features)}
    return _with_head("GPT-2", model, config, tensors, "lm_head.weight")


# ---- what both share -----------------------------------------------------------------------------


def _with_head(name: str, model: GPT, config: dict, tensors: dict[str, Tensor], head: str) -> Form:
    """The form with the matrix of an untied head, and without one where the embedding serves."""
    tied = type(model.head) is TiedHead
    tensors = tensors if tied else tensors | {head: model.head.weight}
    config = config | {"tie_word_embeddings": tied, "dtype": "float32"}
    config |= {"bos_token_id": None, "eos_token_id": None}  # else the library fills in ids of its own
    return Form(
        name, config, {key: tensor.detach().float().contiguous().clone() for key, tensor in tensors.items()}
    )


def _common_misfits(model: GPT) -> list[str]:
    attention, misfits = model.blocks[0].attention, []
    if type(attention) not in SOFTMAX:
        misfits.append(_called(attention))
    elif type(attention.query_norm) is not nn.Identity:
        misfits.append("norm of queries and keys")
    if isinstance(model.token, BigramEmbedding):
        misfits.append(_called(model.token))
    if type(model.head) not in (TiedHead, UntiedHead):
        misfits.append(_called(model.head))
    return misfits


def _norms(model: GPT) -> list[nn.Module]:
    return [model.norm, *(norm for block in model.blocks for norm in (block.norm1, block.norm2))]


def _called(part: nn.Module) -> str:
    """The name of a part's class; of one that a script writes out, with the script."""
    kind = type(part)
    if kind.__module__.startswith("stage_"):
        return f"{kind.__name__} of a script of its own"
    return {"NoNorm": "block without norms", "Position": "model without positions"}.get(
        kind.__name__, kind.__name__
    )
