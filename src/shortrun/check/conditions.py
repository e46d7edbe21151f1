"""The four conditions that a public record contest arrived at, after a cache whose probabilities summed to 277.

The model is asked, not read: whatever its class, only what it answers counts. Tokens come from the run's validation
documents, and a generator with a fixed seed says where they are changed.

Shapes: B rows, T positions, V vocabulary, N positions of rows without padding.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from shortrun.check.subject import Subject
from shortrun.check.verdict import Case, Finding
from shortrun.errors import UserError, counted
from shortrun.model.ensemble import Ensemble
from shortrun.model.language_model import LanguageModel, LinearHead, logits_from
from shortrun.runs.checkpoints import weights_sha256
from shortrun.score.cross_entropy import token_nats
from shortrun.tokens.rows import IGNORE, Rows

SLACK = 1e-4
"""How far logits may move, as a share of the largest: sums in another order move them by about 1e-6."""
ROWS = 4
CUTS = 8
"""Places in each row behind which all tokens are changed."""
AT_ONCE = 256


@torch.no_grad()
def causal(run: Subject) -> Finding:
    """Changes all tokens behind a place, cuts them off, and changes other rows: no logit at or before the place may move.

    The same is asked of rows without padding, as scoring packs documents, and of the targets that travel with them: neither a
    neighbour nor a target may move a hidden state. Some places of a few rows are tried; a leak that only some tokens set off
    could be missed.
    """
    rows_BT, generator = _rows(run, ROWS), np.random.default_rng(1337)
    model, V, T = run.model, run.model.vocab_size, rows_BT.shape[1]
    worst = {"a later token": 0.0, "the length of a row": 0.0, "another row": 0.0}
    for row_T in rows_BT:
        whole_TV = model(row_T[None])[0]
        cuts = sorted({int(cut) for cut in generator.integers(1, T, CUTS)} | {1, T - 1})
        changed_CT = row_T.repeat(len(cuts), 1)
        for changed_T, cut in zip(changed_CT, cuts, strict=True):
            changed_T[cut:] = (changed_T[cut:] + _other(generator, T - cut, V)) % V
        for found_TV, cut in zip(model(changed_CT), cuts, strict=True):
            _note(worst, "a later token", found_TV[:cut], whole_TV[:cut])
            _note(worst, "the length of a row", model(row_T[None, :cut])[0], whole_TV[:cut])
        others_BT = (rows_BT + _other(generator, rows_BT.numel(), V).view_as(rows_BT)) % V
        _note(worst, "another row", model(torch.cat([others_BT, row_T[None], others_BT]))[len(others_BT)], whole_TV)
    for part in model.each if isinstance(model, Ensemble) else [model]:
        if isinstance(part, LinearHead):
            _packed(run, part, worst)
    case = Case()
    for what, moved in worst.items():
        case.holds(moved <= SLACK, f"{what} moves logits by {moved:.2g} of the largest")
    return case.finding(
        f"{', '.join(worst)}: the most that any of them moves a logit is {max(worst.values()):.1e} of the largest, in "
        f"{counted(ROWS, 'row')} of {T} tokens"
    )


def _packed(run: Subject, model: LanguageModel, worst: dict[str, float]) -> None:
    """Documents side by side as scoring has them, against each on its own, by the run's model or a member of it."""
    documents, eos = _documents(run, 3)
    assert isinstance(model, LinearHead)
    inputs = [torch.tensor([eos, *ids]) for ids in documents]
    targets = [torch.tensor([*ids, eos]) for ids in documents]
    order = sorted(range(len(inputs)), key=lambda each: len(inputs[each]))
    inputs, targets = [inputs[each] for each in order], [targets[each] for each in order]
    lengths = np.array([len(each) for each in inputs], dtype=np.int64)

    def hidden(x: list[Tensor], y: list[Tensor]) -> list[Tensor]:
        device = next(run.model.parameters()).device
        rows = Rows(torch.cat(x), torch.cat(y), lengths).to(device)
        return list(torch.split(logits_from(model, model.hidden(rows)), lengths.tolist()))

    together = hidden(inputs, targets)
    for found_TV, x_T in zip(together, inputs, strict=True):
        _note(worst, "a neighbour in scoring", found_TV, model(x_T[None].to(found_TV.device))[0])
    for found_TV, blind_TV in zip(together, hidden(inputs, [torch.full_like(y, IGNORE) for y in targets]), strict=True):
        _note(worst, "a target", found_TV, blind_TV)


@torch.no_grad()
def normalised(run: Subject, *, within: float) -> Finding:
    """Asks for a whole distribution before any target is known, and then for the nats of every token there is as the target.

    The logits of a forward pass must be finite and one for each token of the tokenizer. What scoring charges for each of the
    V tokens behind a context must be the nats of a distribution: their probabilities sum to 1. Two contexts are asked for all
    tokens; scoring that is only wrong elsewhere would show as another `official_loss`.
    """
    case, model, tokenizer = Case(), run.model, run.trained.tokenizer
    (documents, eos), device = _documents(run, 1), next(run.model.parameters()).device
    logits_TV = model(torch.tensor([[eos, *documents[0]]], device=device))[0]
    case.holds(bool(torch.isfinite(logits_TV).all()), "some logits are not finite")
    case.same("number of tokens", tokenizer.vocab_size, {"the model's answer": logits_TV.shape[1]})
    sums = []
    for context in ([eos], [eos, *documents[0][:3]]):
        total = 0.0
        for first in range(0, tokenizer.vocab_size, AT_ONCE):
            every = torch.arange(first, min(first + AT_ONCE, tokenizer.vocab_size))
            x_BT = torch.tensor([context]).repeat(len(every), 1)
            y_BT = torch.full_like(x_BT, IGNORE)
            y_BT[:, -1] = every
            nats_N = token_nats(model, Rows.of(x_BT, y_BT).to(device))
            total += float((-nats_N.view(y_BT.shape)[:, -1]).exp().sum())
        sums.append(total)
        charged, own = (
            float(nats_N[-1]),
            float(F.cross_entropy(model(x_BT[-1:].to(device))[0, -1:].float(), every[-1:].to(device))),
        )
        case.holds(
            abs(charged - own) <= max(within, SLACK) * max(own, 1.0),
            f"scoring charges {charged:.4f} nats where the model's own distribution gives {own:.4f}",
        )
    for total in sums:
        case.holds(
            abs(total - 1) <= within,
            f"what scoring charges for all {tokenizer.vocab_size:,} tokens sums to a probability of {total:.6g}",
        )
    return case.finding(
        f"the probabilities of all {tokenizer.vocab_size:,} tokens sum to {', '.join(f'{total:.7f}' for total in sums)} behind two contexts"
    )


@torch.no_grad()
def unchanged(run: Subject) -> Finding:
    """Scores a document, then all others, then that document again: the nats must be the same bits, and so must the weights.

    So a model that learns from what it is scored on, or remembers it, is found, whatever it keeps it in. What it would
    write outside of itself, into a file for a later process, is not.
    """
    case, model = Case(), run.model
    (documents, eos), device = _documents(run, ROWS), next(run.model.parameters()).device

    def nats() -> list[float]:
        rows = [Rows.of(torch.tensor([[eos, *ids]]), torch.tensor([[*ids, eos]])).to(device) for ids in documents]
        return [float(token_nats(model, each).sum()) for each in rows]

    before = nats()
    _ = run.official  # scores the whole stream
    again, after = nats(), weights_sha256(model)
    moved = max(abs(one - other) for one, other in zip(before, again, strict=True))
    case.holds(before == again, f"after all others were scored, a document takes {moved:.2g} nats more or fewer")
    case.holds(not model.training, "scoring left the model in training mode")
    case.holds(after == run.weights_as_read, "being scored has changed the weights")
    return case.finding(
        f"{counted(len(documents), 'document')} take the same nats before and after {run.official.scored:,} targets were scored, "
        "and no weight has changed"
    )


@torch.no_grad()
def left_to_right(run: Subject, *, documents: int) -> Finding:
    """Scores some documents token by token: each distribution is asked for before the next token is given, once.

    The sum must be what the run reported for that document. The reported number of targets must be that of the validation
    titles' tokens and ends, and the official loss must have scored whole spans, so none was visited twice or left out.
    """
    case, tokenizer, geometry = Case(), run.trained.tokenizer, run.recipe.batches
    case.same("targets", sum(len(ids) + 1 for ids in run.validation_ids), {"scores.json": run.scores["targets"]})
    a_span = geometry.batch_size * geometry.block_size
    stream = int(run.manifest["tokenizer"]["validation_tokens"])
    scored = run.scores["coverage"] * max(stream - 1, 1)
    case.holds(
        abs(scored - stream // (a_span + 1) * a_span) < 0.5,
        f"coverage stands for {scored:,.1f} targets, which are no whole spans",
    )
    reported_D, worst, chosen = run.folder.nats().nats_D, 0.0, _chosen(run, documents)
    device = next(run.model.parameters()).device
    for index in chosen:
        ids, cache, nats = run.validation_ids[index], run.model.new_cache(), 0.0
        given = tokenizer.eos
        for target in [*ids, tokenizer.eos]:
            logits_V = run.model(torch.tensor([[given]], device=device), cache)[0, -1].float()
            nats -= float(F.log_softmax(logits_V, dim=-1)[target])
            given = target
        worst = max(worst, abs(nats - float(reported_D[index])) / max(nats, 1.0))
    case.holds(
        worst <= 10 * SLACK,
        f"token by token, a document takes {worst:.2%} more or fewer nats than the run reported for it",
    )
    return case.finding(
        f"{counted(len(chosen), 'document')} token by token take the reported nats within {worst:.1e}, and each of "
        f"{run.scores['targets']:,} targets counts once"
    )


def _rows(run: Subject, count: int) -> Tensor:
    """The first rows of the validation stream, as long as the block where it has so many tokens."""
    stream_N, T = run.stream_N, run.model.block_size
    T = min(T, len(stream_N) // count)
    if T < 2:
        raise UserError("the validation documents are too few, or the block is too short, for anything to be later")
    device = next(run.model.parameters()).device
    return torch.from_numpy(stream_N[: count * T].copy()).view(count, T).to(device)


def _chosen(run: Subject, count: int) -> list[int]:
    """Some documents of three tokens or more that fit the block, from all over the split."""
    fit = [index for index, ids in enumerate(run.validation_ids) if 2 < len(ids) < run.model.block_size]
    if not fit:
        raise UserError("no validation document of three tokens or more fits the block")
    return [fit[place] for place in sorted({round(at) for at in np.linspace(0, len(fit) - 1, count)})]


def _documents(run: Subject, count: int) -> tuple[list[list[int]], int]:
    return [run.validation_ids[index] for index in _chosen(run, count)], run.trained.tokenizer.eos


def _other(generator: np.random.Generator, count: int, vocab_size: int) -> Tensor:
    """What to add to ids, modulo the vocabulary's size, so that each becomes another one."""
    return torch.from_numpy(generator.integers(1, vocab_size, count))


def _note(worst: dict[str, float], what: str, found: Tensor, expected: Tensor) -> None:
    """Remembers the most that logits have moved, as a share of the largest."""
    moved = float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-9))
    worst[what] = max(worst.get(what, 0.0), moved if moved == moved else float("inf"))
