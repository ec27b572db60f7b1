"""An independent check: with the same random weights, our GPT has the logits of the library's Llama and
GPT-2.

The library is a development extra; without it these tests are skipped.
"""

from functools import partial

import pytest
import torch

from common.model import part
from common.model.gpt import GPT
from common.model.position import RoPE
from common.settings import Settings

transformers = pytest.importorskip(
    "transformers", reason="the extra `dev` brings transformers, which is not installed"
)
V = 97


def perturbed(model: torch.nn.Module) -> torch.nn.Module:
    """Weights larger than at the start, scales that are not 1."""
    torch.manual_seed(3)
    for p in model.parameters():
        p.data.add_(0.06 * torch.randn_like(p))
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize("theta", [10_000.0, 500_000.0])
@pytest.mark.parametrize(("n_embd", "n_head", "n_kv_head"), [(48, 4, 2), (64, 4, 4), (96, 6, 1), (128, 2, 1)])
def test_with_rmsnorm_rope_swiglu_and_grouped_queries_it_is_llama(theta, n_embd, n_head, n_kv_head):
    s = Settings(n_layer=3, n_embd=n_embd, n_head=n_head, n_kv_head=n_kv_head, block_size=300)
    parts = {
        "norm": part("norm", "rmsnorm"),
        "feed_forward": part("feed_forward", "swiglu"),
        "position": partial(RoPE, theta=theta),
    }
    ours = perturbed(GPT(s, V, **parts))
    config = transformers.LlamaConfig(
        vocab_size=V, hidden_size=n_embd, num_hidden_layers=3, num_attention_heads=n_head,
        num_key_value_heads=n_kv_head,
        intermediate_size=round(8 * n_embd / 3), rms_norm_eps=1e-5, tie_word_embeddings=True,
        max_position_embeddings=300,
        rope_parameters={"rope_type": "default", "rope_theta": theta}, attn_implementation="eager",
    )  # fmt: skip
    theirs = transformers.LlamaForCausalLM(config).eval()
    weights = {
        "model.embed_tokens.weight": ours.token.weight,
        "lm_head.weight": ours.token.weight,
        "model.norm.weight": ours.norm.weight,
    }
    size = n_embd // n_head
    for number, block in enumerate(ours.blocks):
        q, k, v = block.attention.qkv.weight.split([n_embd, n_kv_head * size, n_kv_head * size])
        own = {
            "self_attn.q_proj": q,
            "self_attn.k_proj": k,
            "self_attn.v_proj": v,
            "self_attn.o_proj": block.attention.projection.weight,
        }
        own |= {
            f"mlp.{name}_proj": getattr(block.feed_forward, name).weight for name in ("gate", "up", "down")
        }
        own |= {"input_layernorm": block.norm1.weight, "post_attention_layernorm": block.norm2.weight}
        weights |= {f"model.layers.{number}.{name}.weight": weight for name, weight in own.items()}
    missing = theirs.load_state_dict(weights, strict=True)
    assert not missing.missing_keys
    ids = torch.randint(V, (2, 300))
    expected = theirs(ids).logits
    assert expected.std() > 0.3  # a model that says nothing would agree with anything
    torch.testing.assert_close(ours(ids), expected, rtol=0, atol=1e-5)
    for other in ({"theta": 2 * theta}, {"theta": theta, "interleaved": True}):  # the check tells these apart
        ours.position = RoPE(s, **other)
        assert (ours(ids) - expected).abs().max() > 1e-4


@torch.no_grad()
@pytest.mark.parametrize(("name", "theirs_name"), [("gelu", "gelu"), ("gelu-tanh", "gelu_new")])
def test_with_layernorm_gelu_and_learned_positions_it_is_gpt_2(name, theirs_name):
    """GPT-2 has biases, which ours leaves out: they are zero there."""
    s = Settings(n_layer=3, n_embd=48, n_head=4, block_size=64)
    ours = perturbed(GPT(s, V, feed_forward=part("feed_forward", name)))
    config = transformers.GPT2Config(
        vocab_size=V,
        n_positions=64,
        n_embd=48,
        n_layer=3,
        n_head=4,
        activation_function=theirs_name,
        attn_implementation="eager",
    )
    theirs = transformers.GPT2LMHeadModel(config).eval()
    for weight_name, weight in theirs.named_parameters():
        if weight_name.endswith(".bias"):
            weight.zero_()
    pairs = [(theirs.transformer.wte, ours.token.weight), (theirs.transformer.wpe, ours.position.weight)]
    pairs += [(theirs.transformer.ln_f, ours.norm.weight)]
    for block, own in zip(theirs.transformer.h, ours.blocks, strict=True):
        pairs += [(block.ln_1, own.norm1.weight), (block.ln_2, own.norm2.weight)]
        pairs += [
            (block.attn.c_attn, own.attention.qkv.weight.T),
            (block.attn.c_proj, own.attention.projection.weight.T),
        ]
        pairs += [
            (block.mlp.c_fc, own.feed_forward[0].weight.T),
            (block.mlp.c_proj, own.feed_forward[2].weight.T),
        ]
    for module, weight in pairs:
        module.weight.copy_(weight)
    ids = torch.randint(V, (2, 64))
    expected = theirs(ids).logits
    assert expected.std() > 0.3
    torch.testing.assert_close(ours(ids), expected, rtol=0, atol=1e-5)
    other = GPT(s, V, feed_forward=part("feed_forward", "gelu-tanh" if name == "gelu" else "gelu")).eval()
    other.load_state_dict(ours.state_dict())
    assert (other(ids) - expected).abs().max() > 1e-4  # the check tells the two forms of GELU apart


@torch.no_grad()
def test_the_two_pairings_of_rope_are_those_of_llama_and_gpt_j():
    from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb as of_gpt_j
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb as of_llama

    s, q = Settings(n_embd=32, n_head=2), torch.randn(2, 2, 9, 16)
    angles = torch.arange(9)[:, None] / 10_000 ** (torch.arange(8) / 8)
    cos, sin = (torch.cat([f, f], dim=-1)[None] for f in (angles.cos(), angles.sin()))
    torch.testing.assert_close(RoPE(s).rotate(q, q)[0], of_llama(q, q, cos, sin)[0], rtol=0, atol=1e-5)
    expected = of_gpt_j(q.transpose(1, 2), angles.sin()[None], angles.cos()[None]).transpose(1, 2)
    torch.testing.assert_close(RoPE(s, interleaved=True).rotate(q, q)[0], expected, rtol=0, atol=1e-5)
