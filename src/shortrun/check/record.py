"""Checks that the folder's own record answers, in milliseconds: recipe, manifest, log and scores.

A record can be forged as a whole, by somebody who changes all of its files alike. The checks that recompute from weights and
data are in `documents`, `reported` and `conditions`.
"""

from __future__ import annotations

import math

from shortrun.check.subject import Subject
from shortrun.check.titles import revision_of
from shortrun.check.verdict import Case, Finding, shown
from shortrun.errors import counted
from shortrun.runs.events import number, whole
from shortrun.score.losses import Loss

EOS_CHARACTERS = 5


def epochs(run: Subject, *, epochs: int) -> Finding:
    """Held against the recipe as it stands and as it was, the log, the scores, the number of steps and the targets seen.

    A run makes epochs * N targets of N training tokens; Mainrun's stream makes epochs * (N // S) steps of S. Somebody whose
    code takes several batches in what it calls a step could write the same record; `times_seen` counts documents.
    """
    case, recipe, scores = Case(), run.recipe, run.scores
    info = run.log.first("dataset_info")
    case.same(
        "epochs",
        epochs,
        {
            "recipe.toml": run.recipe_now.train.epochs,
            "manifest.json": recipe.train.epochs,
            "metrics.jsonl": whole(info, "epochs"),
            "scores.json": scores.get("epochs"),
        },
    )
    steps = [whole(event, "step") for event in run.log.all("training_step")]
    case.holds(
        steps == list(range(1, int(scores["steps"]) + 1)),
        f"metrics.jsonl holds {counted(len(steps), 'training step')}, not steps 1 to {scores['steps']:,} once each",
    )
    tokens = int(run.manifest["tokenizer"]["train_tokens"])
    a_step = recipe.batches.batch_size * recipe.batches.block_size
    expected = epochs * (tokens // a_step * a_step if recipe.batches.mode == "stream" else tokens)
    last = run.log.last("training_step")
    case.same("training tokens", expected, {"metrics.jsonl": whole(last, "tokens"), "scores.json": scores["tokens"]})
    case.same("tokens in an epoch", tokens, {"metrics.jsonl": whole(info, "tokens_per_epoch")})
    return case.finding(
        f"{counted(len(steps), 'step')} of {a_step:,} tokens make {expected:,} targets, {epochs} times the training documents"
    )


def seed(run: Subject, *, seed: int) -> Finding:
    """Held against the recipe (the seed of the titles' order and that of training), the log and the scores.

    Somebody could train with many seeds and keep the best; nothing in one folder shows that.
    """
    case = Case()
    case.same(
        "seed",
        seed,
        {
            "recipe.toml (train.seed)": run.recipe_now.train.seed,
            "manifest.json (train.seed)": run.recipe.train.seed,
            "manifest.json (data.seed)": run.recipe.data.seed,
            "the data's manifest": run.manifest["data"].get("seed"),
            "metrics.jsonl": whole(run.log.first("hyperparameters_configured"), "seed"),
        },
    )
    if run.folder.scores_file.exists():
        case.same("seed", seed, {"scores.json": run.scores.get("seed")})
    return case.finding(f"{seed} orders the titles and seeds weights, dropout and batches")


def data(run: Subject, *, accepted: dict[str, str], dataset: str | None = None) -> Finding:
    """Held against the manifest: a fingerprint (sha256 of the selected titles) that the rules accept, or the hub's `dataset`.

    The record is believed here; checks that read the data again refuse titles with another fingerprint. `revision` counts
    tokens to say which revision of the hub's data set it is.
    """
    case, found, counts = Case(), run.manifest["data"], run.manifest["tokenizer"]
    case.holds(
        not run.recipe.data.normalise, f"titles were changed by {', '.join(run.recipe.data.normalise)} (data.normalise)"
    )
    source, sha256 = found["source"], str(found["sha256"])
    name = accepted.get(sha256)
    tokens = f"; its own tokenizer makes {counts['train_tokens']:,} training tokens of them"
    revision = revision_of(counts["train_tokens"])
    if revision and run.recipe.tokenizer.vocab_size == 16_000:
        tokens += f", as many as of {revision.name}"
    if name is None and source == "synthetic":
        case.against.append("the titles are synthetic")
    elif name is None and source == "hackernews" and dataset is not None:
        case.same("data set", dataset, {"manifest.json": found.get("dataset")})
        name = f"{found.get('dataset')}, commit {found.get('version')}"
    elif name is None:
        what = "from a file" if source == "file" else "the hub's"
        case.unsaid.append(f"the titles are {what}, and their sha256 {sha256[:12]} is none that the rules know{tokens}")
    case.same("sha256 of the titles", sha256, {"scores.json": run.scores["data"]["sha256"]} if _ended(run) else {})
    return case.finding(f"{name}, sha256 {sha256[:12]}{tokens}")


def share(run: Subject, *, titles: int, validation: float) -> Finding:
    """Held against the splits that the manifest counts: so many titles, shuffled, the last share of them for validation.

    Tuning titles are cut from the end of the training titles, so they lower the share that is trained on, and that is said.
    """
    case, splits, recipe = Case(), run.manifest["data"]["splits"], run.recipe.data
    count = {name: int(split["documents"]) for name, split in splits.items()}
    trained, tuned, validated = count["train"], count.get("tuning", 0), count["validation"]
    case.same("number of titles", titles, {"manifest.json": trained + tuned + validated})
    # as Mainrun cuts: the first int(n * (1 - share)) titles are for training
    case.same("number of validation titles", titles - int(titles * (1 - validation)), {"manifest.json": validated})
    case.holds(recipe.shuffle, "the titles were not shuffled, so they are not in Mainrun's order")
    tuning = f" and {tuned:,} to tune on" if tuned else ""
    return case.finding(
        f"{trained:,} titles to train on{tuning}, the last {validated:,} to validate, in the order of seed {recipe.seed}"
    )


def evaluation_untouched(run: Subject) -> Finding:
    """Held against the record's arithmetic: coverage follows from geometry and tokens, the denominator from the titles.

    Every evaluation in the log must have that coverage, the last one must be what the scores say, and no loss may be below
    0. Somebody could write numbers that fit; `official_loss` recomputes them from the weights.
    """
    case, scores, counts = Case(), run.scores, run.manifest["data"]["splits"]["validation"]
    geometry, tokens = run.recipe.batches, int(run.manifest["tokenizer"]["validation_tokens"])
    a_step = geometry.batch_size * geometry.block_size
    coverage = tokens // (a_step + 1) * a_step / max(tokens - 1, 1)
    characters = int(counts["characters"]) + EOS_CHARACTERS * int(counts["documents"])
    case.same(
        "denominator",
        characters,
        {
            "manifest.json": run.manifest["denominators"]["characters"],
            "metrics.jsonl": whole(run.log.first("dataset_info"), "validation_characters"),
            "scores.json": scores["characters"],
        },
    )
    evaluations = list(run.log.all("validation_step"))
    if not evaluations:
        case.unsaid.append("metrics.jsonl holds no evaluation")
    for event in evaluations:
        step, loss, covered = event.get("step"), number(event, "loss"), number(event, "coverage")
        case.holds(
            covered is not None and math.isclose(covered, coverage, rel_tol=1e-9),
            f"the evaluation at step {step} says coverage {covered}, but the geometry gives {coverage:.4f}",
        )
        case.holds(
            loss is not None and loss >= 0 and loss == number(event, "official_loss"),
            f"the evaluation at step {step} holds a loss that is none",
        )
    if evaluations:
        case.same("official loss", number(evaluations[-1], "loss"), {"scores.json": scores["official_loss"]})
    return case.finding(
        f"all {counted(len(evaluations), 'evaluation')} in the log score {coverage:.1%} of the targets over {characters:,} "
        "characters, as the geometry gives, and the last is the one reported"
    )


def scores_agree(run: Subject) -> Finding:
    """Held against themselves: `loss`, bits per byte and perplexity are one sum of nats, that of nats.npz, over what scores.json counts.

    Whoever changes a loss and forgets what follows from it is found; `own_loss` recomputes the sum from the weights.
    """
    case, scores = Case(), run.scores
    nats, nats_D = scores["nats"], run.folder.nats().nats_D
    follows = Loss(nats, scores["characters"], scores["bytes"], scores["targets"], len(nats_D)).as_dict()
    for name in ("loss", "bits_per_byte", "perplexity", "documents"):
        said, value = scores[name], follows[name]
        case.holds(
            said == value or (said is not None and value is not None and math.isclose(said, value, rel_tol=1e-9)),
            f"scores.json says {name} {_told(said)}, but its own nats give {_told(value)}",
        )
    summed = float(nats_D.sum())
    case.holds(
        math.isclose(summed, nats, rel_tol=1e-9),
        f"scores.json says nats {nats:.6g}, but nats.npz sums up to {summed:.6g}",
    )
    return case.finding(
        f"loss, bits per byte and perplexity follow from one sum of nats, which {len(nats_D):,} documents have in nats.npz"
    )


def _told(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"


def limits(
    run: Subject,
    *,
    epochs: float | None = None,
    passes: int | None = None,
    parameters: int | None = None,
    loss: float | None = None,
    official_loss: float | None = None,
) -> Finding:
    """Held against the scores: none of what the rule limits may be above its limit. `own_loss` and others recompute them."""
    case, told = Case(), []
    asked = {"epochs": epochs, "passes": passes, "parameters": parameters, "loss": loss, "official_loss": official_loss}
    for name, most in asked.items():
        if most is not None:
            found = run.scores[name]
            case.holds(found <= most, f"{name} {shown(found)} is above {shown(most)}")
            told.append(f"{name} {shown(found)}")
    if not told:
        case.unsaid.append("the rule limits nothing: give it epochs, passes, parameters, loss or official_loss")
    return case.finding(", ".join(told))


def first_loss(run: Subject, *, at_least: float) -> Finding:
    """Held against the loss of the first step, which is taken before any update: an untrained model's is about ln V.

    `at_least` is the share of ln V that it must have. Weights whose head is untrained pass, such as embeddings or a trunk
    from elsewhere; `initial_weights` draws them again from the seed.
    """
    first, vocabulary = run.log.first("training_step"), int(run.manifest["tokenizer"]["vocab_size"])
    loss, untrained = number(first, "loss"), math.log(vocabulary)
    case = Case()
    case.same("number of the first step", 1, {"metrics.jsonl": whole(first, "step")})
    if loss is None:
        case.unsaid.append("metrics.jsonl does not say the loss of step 1")
    else:
        case.holds(
            loss >= at_least * untrained,
            f"the loss of step 1 is {loss:.2f} nats a token, but a model that knows nothing has ln({vocabulary:,}) = {untrained:.2f}",
        )
    return case.finding(f"step 1 begins at {loss or 0:.2f} nats a token, where ln({vocabulary:,}) is {untrained:.2f}")


def no_augmentation(run: Subject) -> Finding:
    """Held against the recipe and the tokens of an epoch: they are those of the training titles, and no text is changed.

    What the log calls an epoch's tokens must be what the manifest counted. Dropout, also of whole input tokens, makes no
    text. Where the model replaces input tokens (`model.word_replacement`), a reader has to say whether that is
    augmentation. Somebody could change texts inside the loader without a record; `times_seen` encodes the titles again.
    """
    case, recipe = Case(), run.recipe
    case.holds(not recipe.data.normalise, f"data.normalise changes titles: {', '.join(recipe.data.normalise)}")
    if share := recipe.model.word_replacement:
        case.unsaid.append(
            f"model.word_replacement replaces {share:g} of the input tokens inside the model, which some call augmentation"
        )
    tokens, titles = (
        int(run.manifest["tokenizer"]["train_tokens"]),
        run.manifest["data"]["splits"]["train"]["documents"],
    )
    info = run.log.first("dataset_info")
    case.same("tokens in an epoch", tokens, {"metrics.jsonl": whole(info, "tokens_per_epoch")})
    case.same("number of training titles", titles, {"metrics.jsonl": whole(info, "titles_count")})
    return case.finding(
        f"an epoch is the {tokens:,} tokens of the {titles:,} training titles, and the recipe changes no text"
    )


def _ended(run: Subject) -> bool:
    return run.folder.scores_file.exists()
