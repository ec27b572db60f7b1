"""Our tokenizers as a tokenizer.json, which the tokenizers library reads."""

import re

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as HFTokenizer

from common.data.tokenizer import BPETokenizer, ByteTokenizer, CharTokenizer, TiktokenTokenizer, Tokenizer


def byte_symbols() -> dict[int, str]:
    """The character that stands for each byte, as GPT-2 writes its vocabulary: itself where it can be seen,
    else one above 255.
    """
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = (byte for byte in range(256) if byte not in seen)
    return {byte: chr(byte) for byte in seen} | {byte: chr(256 + place) for place, byte in enumerate(others)}


def as_hf(tokenizer: Tokenizer) -> HFTokenizer:
    """The same tokenizer in the library's form: the same ids for every text that ours can write, and the same
    text back.
    """
    if isinstance(tokenizer, CharTokenizer):
        made = HFTokenizer(
            models.WordLevel({c: place for place, c in enumerate(tokenizer.alphabet)}, unk_token="[none]")
        )
        made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
        made.decoder = decoders.Fuse()
        return made
    if isinstance(tokenizer, ByteTokenizer):
        made = HFTokenizer(models.BPE({symbol: byte for byte, symbol in byte_symbols().items()}, []))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        made.decoder = decoders.ByteLevel()
        return made
    return _byte_pairs(tokenizer)


def ranks_of(tokenizer: BPETokenizer | TiktokenTokenizer) -> dict[bytes, int]:
    """The bytes and id of every entry of a byte-pair encoding but the special ones."""
    return dict(tokenizer.encoding._mergeable_ranks)


def merges_of(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Every way to make an entry of two others, in the order of the entries: tiktoken joins whatever makes
    the lowest.
    """
    pairs = []
    for token, rank in ranks.items():
        for cut in range(1, len(token)):
            a, b = token[:cut], token[cut:]
            if a in ranks and b in ranks:
                pairs.append((rank, ranks[a], ranks[b], (a, b)))
    return [pair for *_, pair in sorted(pairs)]


def _byte_pairs(tokenizer: BPETokenizer | TiktokenTokenizer) -> HFTokenizer:
    symbols, ranks = byte_symbols(), ranks_of(tokenizer)

    def symbol(token: bytes) -> str:
        return "".join(symbols[byte] for byte in token)

    special = dict(tokenizer.encoding._special_tokens)
    vocabulary = {symbol(token): rank for token, rank in ranks.items()} | special
    unused = set(range(tokenizer.vocab_size)) - set(vocabulary.values())
    vocabulary |= {f"<|unused {number}|>": number for number in unused}
    pairs = [(symbol(a), symbol(b)) for a, b in merges_of(ranks)]
    made = HFTokenizer(models.BPE(vocabulary, pairs, ignore_merges=not isinstance(tokenizer, BPETokenizer)))
    pieces = pre_tokenizers.Split(Regex(pattern_of(tokenizer)), behavior="isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pieces, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    return made


def pattern_of(tokenizer: BPETokenizer | TiktokenTokenizer) -> str:
    """The pattern that cuts a text into pieces, in the words of the library: it has no possessive `++`, and
    `$` ends a line there.
    """
    pattern = re.sub(r"([?+*]|\d})\+", r"\1", tokenizer.encoding._pat_str)
    return pattern.replace("$", r"\z")


def config_of(tokenizer: Tokenizer, block_size: int) -> dict:
    """What tokenizer_config.json says: nothing is added or tidied, and a special token in a text is plain
    text, as with ours.
    """
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": block_size,
        "split_special_tokens": True,
    }
    config |= {"clean_up_tokenization_spaces": False, "add_bos_token": False, "add_eos_token": False}
    special = list(getattr(getattr(tokenizer, "encoding", None), "_special_tokens", {}))
    return config | ({"eos_token": special[0]} if special else {})
