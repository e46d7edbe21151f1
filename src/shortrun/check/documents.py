"""Checks that read the documents again: which they are, what was trained on, and what the tokenizer does with them."""

from __future__ import annotations

from collections import Counter
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from shortrun.check.near import near_duplicates
from shortrun.check.subject import Subject
from shortrun.check.titles import revision_of
from shortrun.check.verdict import Case, Finding, shown
from shortrun.errors import counted
from shortrun.recipe import TokenizerConfig
from shortrun.text.documents import Documents
from shortrun.tokens.batches import make_batches
from shortrun.tokens.kinds import KINDS, make_tokenizer

BASELINE = TokenizerConfig(vocab_size=16_000, fit_on="train+validation", byte_alphabet="seen")
"""The tokenizer by whose number of training tokens a revision of the titles is known."""
SHOWN = 3


def revision(run: Subject) -> Finding:
    """Fits the baseline's tokenizer on the titles once more and counts the training tokens that it makes.

    Revisions of the hub's data set are known by that number. Other titles could have the same one by chance.
    """
    titles = _selected(run)
    if len(titles) != 100_000:
        return Finding("unknown", f"revisions are known by 100,000 titles, and these are {len(titles):,}")
    tokenizer = make_tokenizer(titles, BASELINE)
    tokens = sum(len(ids) + 1 for ids in tokenizer.encode_each(_to_train_on(run)))
    found = revision_of(tokens)
    if found is None:
        return Finding(
            "unknown",
            f"the baseline's tokenizer makes {tokens:,} training tokens of them: neither 1,102,455 nor 1,168,720, so "
            "another revision or other titles",
        )
    return Finding("kept", f"the baseline's tokenizer makes {tokens:,} training tokens of them, as of {found.name}")


def no_leak(run: Subject, *, near: float, reposts_of: list[str]) -> Finding:
    """Reads all titles again and looks for each validation title among the training titles, exactly and nearly.

    One that stands in both breaks the rule, unless the source is one of `reposts_of`, whose own rows repeat titles. Near ones
    (a Jaccard index of their 5-character stretches of at least `near`) are reported and break nothing. A translation or a
    paraphrase would not be found, nor training on titles that the run's data does not hold.
    """
    train, validation = run.corpus.split("train"), run.validation
    inside = validation.are_in(train).tolist()
    exact = [index for index, found in enumerate(inside) if found]
    similar = [one for one in near_duplicates(list(validation), list(train), near) if not inside[one.document]]
    told = f"of {len(validation):,} validation titles, {len(exact):,} are training titles too"
    if exact:
        told += f" ({', '.join(repr(shown(validation[index])) for index in exact[:SHOWN])})"
    told += f" and {len(similar):,} more nearly (Jaccard index {near} or more)"
    if similar:
        nearest = max(similar, key=lambda one: one.jaccard)
        told += f", such as {shown(validation[nearest.document])!r} to {shown(train[nearest.other])!r} ({nearest.jaccard:.2f})"
    case, source = Case(), run.manifest["data"]["source"]
    case.holds(not exact or source in reposts_of, told)
    return case.finding(told + ("; they are reposts in the data set itself" if exact else ""))


def times_seen(run: Subject, *, times: int) -> Finding:
    """Reads from the newest checkpoint how often each training document was seen, and encodes the documents again.

    Where the recipe reads one fixed stream as Mainrun does, some titles at its end are seen less often; the counts must then
    be those that the geometry gives. The counts are what the training code wrote down: code that trains on more than it
    counts would not show, but for the tokens, whose number must be that of these documents.
    """
    case, seen_D, recipe = Case(), run.seen_D, run.recipe
    ids, steps = run.train_ids, int(run.scores["steps"])
    case.same("number of training documents", len(ids), {"state.pt": len(seen_D)})
    case.same("training tokens", len(ids.ids_N), {"manifest.json": run.manifest["tokenizer"]["train_tokens"]})
    case.same("step", steps, {"the newest checkpoint": run.checkpoint.progress.step})
    case.same("training tokens seen", run.scores["tokens"], {"the newest checkpoint": run.checkpoint.progress.tokens})
    if case.against:
        return case.finding("")
    batches = make_batches(ids, recipe.batches, recipe.train.epochs, recipe.train.seed)
    if batches.every_document_equally:
        wrong_D = seen_D != times
        case.holds(
            not wrong_D.any(),
            f"{counted(int(wrong_D.sum()), 'training document')} not seen {times} times{_often(seen_D)}",
        )
        return case.finding(f"all {len(seen_D):,} training documents were seen exactly {times} times")
    expected_D = np.zeros(len(ids), dtype=np.int64)
    for step in range(1, steps + 1):
        np.add.at(expected_D, batches.at(step).documents_ended, 1)
    differ = int((expected_D != seen_D).sum())
    case.holds(
        differ == 0, f"{counted(differ, 'training document')} not seen as often as the stream gives{_often(seen_D)}"
    )
    case.holds(recipe.train.epochs == times, f"the stream was read for {recipe.train.epochs} epochs, not {times}")
    return case.finding(f"each was seen as often as Mainrun's own stream gives{_often(seen_D)}")


def lossless(run: Subject) -> Finding:
    """Encodes and decodes every validation title by the run's tokenizer: each must come back, without `<unk>`.

    The decoder is the tokenizer's own. Ids that stand for more than their text (a table beside the tokenizer) would pass.
    """
    tokenizer, lost = run.trained.tokenizer, []
    for index, ids in enumerate(run.validation_ids):
        if tokenizer.unk in ids or tokenizer.decode(ids) != run.validation[index]:
            lost.append(index)
    case = Case()
    if lost:
        document, back = run.validation[lost[0]], tokenizer.decode(run.validation_ids[lost[0]])
        case.against.append(
            f"{counted(len(lost), 'validation title')} don't come back, such as {shown(document)!r} as {shown(back)!r}"
        )
    return case.finding(f"all {len(run.validation):,} validation titles come back exactly")


def fitted_on(run: Subject, *, allowed: list[str]) -> Finding:
    """Fits the tokenizer again on the training documents, and on training and validation: one must give the run's file.

    `allowed` may hold "train", "train+validation" and "elsewhere" (GPT-2's vocabulary, learned from web pages). Another
    version of the library may learn other pieces, and then nothing is known.
    """
    settings, case = run.recipe.tokenizer, Case()
    if settings.kind == "gpt2":
        case.holds("elsewhere" in allowed, "GPT-2's vocabulary was learned elsewhere, from web pages")
        return case.finding("GPT-2's vocabulary, learned elsewhere")
    here = run.trained.tokenizer.sha256
    fits = {"train": run.corpus.split("train"), "train+validation": _selected(run)}
    said = [settings.fit_on, *(fits.keys() - {settings.fit_on})]
    found = next((what for what in said if make_tokenizer(fits[what], settings).sha256 == here), None)
    if found is None:
        library = KINDS[settings.kind].library
        then, now = run.manifest["machine"].get(library), _version(library)
        if then == now:
            return Finding(
                "broken", f"fitting it anew on either split gives another tokenizer, by the same {library} {now}"
            )
        return Finding(
            "unknown",
            f"fitting it anew by {library} {now} gives another tokenizer; the run used {then or 'an unrecorded version'}",
        )
    case.holds(
        found == settings.fit_on, f'the recipe says fit_on = "{settings.fit_on}", but the file is what "{found}" gives'
    )
    case.holds(found in allowed, f'it was fitted on "{found}", which the rules don\'t allow')
    return case.finding(f'fitting it anew on "{found}" gives the same file')


def denominator(run: Subject) -> Finding:
    """Counts the characters of the validation titles, read again from their source, joined by `<eos>` as 5 characters each.

    Whatever is written into titles makes the denominator larger and the loss smaller. What the source itself holds is
    believed; `data` says whose fingerprint it is.
    """
    case, text = Case(), run.text
    case.holds(not run.recipe.data.normalise, "the titles that are counted are not the original ones (data.normalise)")
    case.same(
        "denominator",
        len(text),
        {
            "scores.json": run.scores["characters"],
            "manifest.json": run.manifest["denominators"]["characters"],
        },
    )
    return case.finding(f"{len(text):,} characters: {len(run.validation):,} titles as they are, and 5 for each <eos>")


def _selected(run: Subject) -> Documents:
    """All selected titles, without those that are held out."""
    return run.corpus.documents[: run.corpus.ranges["validation"][1]]


def _to_train_on(run: Subject) -> Documents:
    """What Mainrun trains on: the training titles, and those that the recipe has cut from their end for tuning."""
    return run.corpus.documents[: run.corpus.ranges["validation"][0]]


def _often(seen_D: np.ndarray) -> str:
    """How many documents were seen how often, the three most frequent numbers."""
    most = Counter(seen_D.tolist()).most_common(SHOWN)
    return " (" + ", ".join(f"{documents:,} seen {times} times" for times, documents in most) + ")"


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
