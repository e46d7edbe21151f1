"""What a run needs on disk before its first step: corpus, tokenizer and ids, made once a machine and shared by all runs.

The cache keeps each by what it was made from, so a run with another model or another learning rate starts at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shortrun.recipe import Recipe
from shortrun.score.evaluate import ScoringSet
from shortrun.text.corpus import Corpus, load_corpus
from shortrun.tokens.encoded import EncodedDocuments, encoded_split
from shortrun.tokens.kinds import tokenizer_for
from shortrun.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class Prepared:
    """Documents and ids in memory-mapped files, and the tokenizer between them."""

    corpus: Corpus
    tokenizer: Tokenizer
    train: EncodedDocuments
    validation: ScoringSet
    tuning: ScoringSet | None

    def manifest(self) -> dict[str, Any]:
        """What a run's manifest says of them."""
        return {
            "data": self.corpus.manifest,
            "tokenizer": {
                "sha256": self.tokenizer.sha256,
                "vocab_size": self.tokenizer.vocab_size,
                "train_tokens": len(self.train.ids_N),
                "validation_tokens": len(self.validation.stream),
            },
            "denominators": {"characters": self.validation.characters, "bytes": self.validation.bytes},
        }


def prepare(recipe: Recipe, tokenizer: Tokenizer | None = None) -> Prepared:
    """Takes corpus, tokenizer and ids of a recipe from the cache, or makes them and puts them there.

    tokenizer: that of a run which goes on; left out, it is the one that the recipe learns from its corpus. Raises UserError
    for data that can't be read and for a tokenizer that does not give back every document that is scored.
    """
    corpus = load_corpus(recipe.data)
    tokenizer = tokenizer or tokenizer_for(corpus, recipe.tokenizer)
    return Prepared(
        corpus=corpus,
        tokenizer=tokenizer,
        train=encoded_split(corpus, "train", tokenizer),
        validation=ScoringSet.of_split(corpus, "validation", tokenizer),
        tuning=ScoringSet.of_split(corpus, "tuning", tokenizer) if "tuning" in corpus.ranges else None,
    )
