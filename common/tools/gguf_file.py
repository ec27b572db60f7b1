"""A model as one GGUF file, the form of llama.cpp.

Source: the GGUF specification (github.com/ggml-org/ggml, docs/gguf.md).
"""

from pathlib import Path

from torch import Tensor

from common.data.tokenizer import BPETokenizer, TiktokenTokenizer, Tokenizer
from common.errors import UserError
from common.tools.forms import Form
from common.tools.tokenizer_files import byte_symbols, merges_of, ranks_of


def write_gguf(form: Form, tokenizer: Tokenizer, path: Path) -> None:
    """Write `path`.

    Raises UserError where the package is missing, and for what llama.cpp computes otherwise or cannot cut.
    """
    try:
        import gguf
    except ImportError:
        raise UserError("--format gguf needs the package gguf; install it: pip install gguf") from None
    tokenizer = _checked(form, tokenizer)
    llama, config = form.name == "Llama", form.config
    writer = gguf.GGUFWriter(path, "llama" if llama else "gpt2")
    writer.add_name(f"gpt-staircase {form.name}")
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings" if llama else "n_positions"])
    writer.add_embedding_length(config["hidden_size" if llama else "n_embd"])
    writer.add_block_count(config["num_hidden_layers" if llama else "n_layer"])
    writer.add_feed_forward_length(config["intermediate_size" if llama else "n_inner"])
    writer.add_head_count(config["num_attention_heads" if llama else "n_head"])
    if llama:
        writer.add_head_count_kv(config["num_key_value_heads"])
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        writer.add_rope_dimension_count(config["head_dim"])
        writer.add_rope_freq_base(config["rope_theta"])
    else:
        writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    _add_tokenizer(writer, tokenizer)
    architecture = gguf.MODEL_ARCH.LLAMA if llama else gguf.MODEL_ARCH.GPT2
    names = gguf.get_tensor_name_map(architecture, config["num_hidden_layers" if llama else "n_layer"])
    for name, tensor in stored(form).items():
        theirs = names.get_name(name.removeprefix("transformer."), (".weight", ".bias"))
        assert theirs, f"{name} has no name in a GGUF file"
        writer.add_tensor(theirs, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def stored(form: Form) -> dict[str, Tensor]:
    """The tensors as a GGUF file has them, by their names in the form.

    GPT-2's matrices stand the other way round (out, in). Llama's queries and keys are in the order in which
    RoPE turns neighbours (2i, 2i + 1) instead of (i, i + D/2).
    """
    config, tensors = form.config, {}
    for name, tensor in form.tensors.items():
        if form.name == "GPT-2" and tensor.ndim == 2 and ".h." in name:
            tensor = tensor.T.contiguous()
        if ".q_proj." in name or ".k_proj." in name:
            heads = config["num_attention_heads" if ".q_proj." in name else "num_key_value_heads"]
            tensor = neighbours(tensor, heads)
        tensors[name] = tensor
    return tensors


def neighbours(weight: Tensor, heads: int) -> Tensor:
    """Rows (heads x D, C) with the two numbers that RoPE turns together, i and i + D/2 of a head, brought
    side by side.
    """
    return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2).contiguous()


def _checked(form: Form, tokenizer: Tokenizer) -> BPETokenizer | TiktokenTokenizer:
    """The tokenizer, if llama.cpp can cut a text as it does and compute the model."""
    if form.name == "GPT-2" and form.config["activation_function"] != "gelu_new":
        raise UserError(
            "llama.cpp computes GPT-2 with GELU by tanh only, and this model has "
            f"{form.config['activation_function']}; train "
            "one with feed_forward gelu-tanh, or use --format hf"
        )
    # llama.cpp does not load a file without merges
    if not isinstance(tokenizer, BPETokenizer | TiktokenTokenizer):
        raise UserError(
            f"a GGUF file cuts a text by merges, and tokenizer {tokenizer.name} has none; train with "
            "--tokenizer bpe-1024, or use --format hf"
        )
    if not isinstance(tokenizer, BPETokenizer) and tokenizer.name != "gpt2":  # these two cut as GPT-2 does
        raise UserError(
            f"llama.cpp does not cut a text as {tokenizer.name} does; train with bpe-SIZE or gpt2, or use "
            "--format hf"
        )
    return tokenizer


def _add_tokenizer(writer, tokenizer: BPETokenizer | TiktokenTokenizer) -> None:
    """Byte-pair encoding as GPT-2 has it: the entries in the order of their ids, and the merges."""
    symbols = byte_symbols()

    def symbol(token: bytes) -> str:
        return "".join(symbols[byte] for byte in token)

    ranks, special = ranks_of(tokenizer), dict(tokenizer.encoding._special_tokens)
    text = {rank: symbol(token) for token, rank in ranks.items()}
    text |= {number: name for name, number in special.items()}
    tokens = [text[number] for number in range(tokenizer.vocab_size)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    kinds = [3 if number in special.values() else 1 for number in range(len(tokens))]  # 3: control
    writer.add_token_types(kinds)
    writer.add_token_merges([f"{symbol(a)} {symbol(b)}" for a, b in merges_of(ranks)])
    for number in special.values():
        writer.add_eos_token_id(number)
    writer.add_add_bos_token(False)
