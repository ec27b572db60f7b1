"""Sampling text from a model, one token after the other."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.data.tokenizer import TiktokenTokenizer
from common.errors import UserError

SMALLEST = 1e-30  # a temperature below is 0, as 32 bits have it after a division


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen from the model's probabilities.

    The defaults choose in proportion to these.
    """

    temperature: float = 1.0
    """0 takes the most likely token every time; above 1 is wilder than the training text."""
    top_k: int | None = None
    """Choose among the k most likely tokens only."""
    top_p: float | None = None
    """Choose among the likeliest tokens that together have this probability."""
    min_p: float | None = None
    """Choose among the tokens that are at least this share as likely as the likeliest."""
    repetition_penalty: float = 1.0
    """Above 1, tokens that the text already has become less likely."""

    def check(self) -> None:
        """Raises UserError for what cannot be meant."""
        wrong = {
            "temperature": (not 0 <= self.temperature < float("inf"), "0 or above"),
            "top_k": (self.top_k is not None and self.top_k < 1, "at least 1"),
            "top_p": (self.top_p is not None and not 0 < self.top_p <= 1, "above 0 and at most 1"),
            "min_p": (self.min_p is not None and not 0 <= self.min_p <= 1, "at least 0 and at most 1"),
            "repetition_penalty": (not 1e-6 <= self.repetition_penalty <= 1e6, "from 1e-6 to 1e6"),
        }
        for name, (bad, rule) in wrong.items():
            if bad:
                raise UserError(
                    f"--{name.replace('_', '-')} {getattr(self, name)} makes no sense; it must be {rule}"
                )


def filtered(
    logits: Tensor, top_k: int | None = None, top_p: float | None = None, min_p: float | None = None
) -> Tensor:
    """Logits (..., V) with all at -inf but the `top_k` most likely, the smallest set of probability `top_p`,
    those above `min_p`.

    min_p is relative to the likeliest token. Source: top-p is nucleus sampling, Holtzman et al. 2020,
    arXiv:1904.09751; min-p is Nguyen et al. 2024, arXiv:2407.01082.
    """
    if top_k is not None:
        smallest = logits.topk(min(top_k, logits.size(-1))).values[..., -1:]
        logits = logits.masked_fill(logits < smallest, -torch.inf)
    if top_p is not None and top_p < 1:
        ordered, places = logits.sort(descending=True)
        # probability of all likelier tokens
        before = F.softmax(ordered, dim=-1).cumsum(dim=-1) - F.softmax(ordered, dim=-1)
        within = before < top_p
        within[..., 0] = True  # the likeliest, however small top_p is
        keep = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, places, within)
        logits = logits.masked_fill(~keep, -torch.inf)
    if min_p is not None:
        weights = F.softmax(logits, dim=-1)
        logits = logits.masked_fill(weights < min_p * weights.amax(dim=-1, keepdim=True), -torch.inf)
    return logits


def penalised(logits: Tensor, ids: Tensor, penalty: float) -> Tensor:
    """Logits (B, V) in which what `ids` (B, T) already has is `penalty` times further down: divided where
    above 0, else multiplied.

    Source: Keskar et al. 2019, arXiv:1909.05858.
    """
    seen = logits.gather(1, ids)  # (B, T)
    return logits.scatter(1, ids, torch.where(seen > 0, seen / penalty, seen * penalty))


def choose(logits: Tensor, ids: Tensor, how: Sampling, generator: torch.Generator | None) -> Tensor:
    """The next token (B,) from logits (B, V), after a text of ids (B, T)."""
    if how.repetition_penalty != 1:
        logits = penalised(logits, ids, how.repetition_penalty)
    if how.temperature < SMALLEST:
        return logits.argmax(dim=-1)
    logits = logits - logits.amax(dim=-1, keepdim=True)  # at most 0: no small temperature makes it infinite
    if logits.isnan().any():
        raise UserError("the model gives no probabilities (nan): its weights are damaged; train again")
    weights = F.softmax(filtered(logits / how.temperature, how.top_k, how.top_p, how.min_p), dim=-1)
    return torch.multinomial(weights, 1, generator=generator).squeeze(1)


@torch.no_grad()
def generate(
    model: nn.Module,
    ids: Tensor,
    block_size: int,
    length: int,
    how: Sampling = Sampling(),
    generator: torch.Generator | None = None,
    cached: bool = True,
    unused: Tensor | None = None,
) -> Iterator[Tensor]:
    """Yield `length` tokens (B,), one at a time, that go on from `ids` (B, T).

    The model sees the last `block_size` tokens. As long as the text is no longer than that, a model with a
    cache is shown only what is new (not with `cached` off); beyond, every token has another position than
    before, and all are computed again. Either way the same tokens come out. `generator` lives on the CPU, so
    that a seed gives the same text on every device. unused: ids that stand for no token and are never chosen.
    """
    training, cache = model.training, None
    model.eval()
    try:
        for _ in range(length):
            if cached and hasattr(model, "new_cache") and ids.size(1) <= block_size:
                new = ids if cache is None else ids[:, -1:]
                cache = cache or model.new_cache()
                logits = model(new, cache)
            else:
                logits = model(ids[:, -block_size:])  # (B, T, V) or (B, V)
            logits = (logits[:, -1] if logits.ndim == 3 else logits).float().cpu()
            if unused is not None:
                logits = logits.index_fill(-1, unused, -torch.inf)
            chosen = choose(logits, ids.cpu(), how, generator).to(ids.device)
            ids = torch.cat([ids, chosen[:, None]], dim=1)
            yield chosen
    finally:
        model.train(training)


# ---- text ----------------------------------------------------------------------------------------


def stream(
    model: nn.Module,
    tokenizer,
    block_size: int,
    prompt: str,
    length: int,
    seed: int,
    device: str = "cpu",
    stop: str = "",
    **how,
) -> Iterator[str]:
    """What follows `prompt`, in pieces of whole characters as they come, up to `stop` if that is not empty.
    how: see `Sampling`.

    Raises UserError for an empty prompt, and when the vocabulary lacks a character of it.
    """
    ids = torch.from_numpy(_encode(tokenizer, prompt))[None].to(device)
    generator = torch.Generator().manual_seed(seed)
    tokens, shown = [], 0
    unused = unused_ids(tokenizer)
    for token in generate(model, ids, block_size, length, Sampling(**how), generator, unused=unused):
        tokens.append(int(token))
        text = tokenizer.decode(tokens)
        end = text.find(stop, max(0, shown - len(stop))) if stop else -1
        if end >= 0:
            if end > shown:
                yield text[shown:end]
            return
        # the rest of a character may be yet to come
        safe = len(text.rstrip("\ufffd")) if len(tokens) < length else len(text)
        safe -= _overlap(text[:safe], stop) if len(tokens) < length else 0
        if safe > shown:
            yield text[shown:safe]
            shown = safe


@cache
def unused_ids(tokenizer) -> Tensor | None:
    """The ids of a published encoding that stand for no token, as 16 of cl100k_base do; None where there are
    none.
    """
    if not isinstance(tokenizer, TiktokenTokenizer):
        return None
    encoding = tokenizer.encoding
    tokens = [*encoding.token_byte_values(), *encoding.special_tokens_set]
    if len(tokens) == tokenizer.vocab_size:
        return None
    return torch.tensor(sorted({*range(tokenizer.vocab_size)} - {*map(encoding.encode_single_token, tokens)}))


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of a text may be the beginning of `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


def _encode(tokenizer, prompt: str):
    ids = tokenizer.encode(prompt)
    if not len(ids):
        raise UserError("the prompt is empty; give at least one character to go on from")
    return ids


def text(
    model: nn.Module,
    tokenizer,
    block_size: int,
    prompt: str,
    length: int,
    seed: int,
    device: str = "cpu",
    **how,
) -> str:
    """`prompt` and what follows it. Raises as `stream`."""
    return prompt + "".join(stream(model, tokenizer, block_size, prompt, length, seed, device, **how))


def texts(
    model: nn.Module,
    tokenizer,
    block_size: int,
    prompts: Iterable[str],
    length: int,
    seed: int,
    device: str = "cpu",
    stop: str = "",
    **how,
) -> list[str]:
    """Each prompt and what follows it.

    Prompts of equally many tokens go through the model together. Raises as `stream`.
    """
    ids = [torch.from_numpy(_encode(tokenizer, prompt)) for prompt in prompts]
    by_place: dict[int, list[int]] = {}
    for size in sorted({len(prompt_ids) for prompt_ids in ids}):
        places = [place for place, prompt_ids in enumerate(ids) if len(prompt_ids) == size]
        generator = torch.Generator().manual_seed(seed)
        start = torch.stack([ids[place] for place in places]).to(device)
        said = generate(
            model, start, block_size, length, Sampling(**how), generator, unused=unused_ids(tokenizer)
        )
        rows = torch.stack(list(said), dim=1)
        by_place |= dict(zip(places, rows.tolist(), strict=True))
    after = [tokenizer.decode(by_place[place]) for place in range(len(ids))]
    return [
        prompt + (text.split(stop)[0] if stop else text) for prompt, text in zip(prompts, after, strict=True)
    ]


def names(
    model: nn.Module,
    tokenizer,
    block_size: int,
    known: frozenset[str],
    count: int,
    seed: int,
    prompt: str = "",
    device: str = "cpu",
    **how,
) -> list[str]:
    """`count` different names that are not in `known`, each beginning with `prompt`; fewer if the model
    hardly invents any.
    """
    generator = torch.Generator().manual_seed(seed)
    start = torch.from_numpy(tokenizer.encode("\n" * block_size + prompt))
    kept: dict[str, None] = {}
    for _ in range(20):
        ids = start.repeat(2 * count, 1).to(device)
        # (B, 30)
        rows = torch.stack(list(generate(model, ids, block_size, 30, Sampling(**how), generator)), dim=1)
        for row in rows.tolist():
            name = prompt + tokenizer.decode(row).split("\n")[0]
            if name != prompt and name not in known and len(kept) < count:
                kept[name] = None
        if len(kept) == count:
            break
    return list(kept)


def start_of(tokenizer) -> str:
    """What a sample begins with without a prompt: a new line, or what has id 0 where there is no new line."""
    try:
        return "\n" if len(tokenizer.encode("\n")) else ""
    except UserError:
        return tokenizer.decode([0])


def sample(
    parts: tuple, seed: int, prompt: str, length: int, device: str, known: frozenset[str] | None, **how
) -> str:
    """What a model writes: text that goes on from `prompt` (empty: from a new line); or, where `known` names
    are given, ten others. parts: model, tokenizer, block size. Raises as `stream`.
    """
    model, tokenizer, size = parts
    if known is not None:
        return " ".join(names(model, tokenizer, size, known, 10, seed, prompt, device, **how))
    prompt = prompt or start_of(tokenizer)
    return text(model, tokenizer, size, prompt, length, seed, device, **how).strip("\n")
