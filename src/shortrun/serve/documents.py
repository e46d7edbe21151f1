"""The validation documents of a run, from the hardest to the easiest, filtered by a word.

Shapes: D documents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shortrun.errors import UserError
from shortrun.runs.folder import Nats, RunFolder
from shortrun.text.documents import Documents

Order = Literal["hardest", "easiest"]


@dataclass(frozen=True)
class ScoredDocuments:
    """A run's validation documents, and how its last step scored each."""

    documents: Documents
    nats: Nats | None
    """None of a run without scores."""
    note: str
    """Why there are none, or ""."""
    order_D: NDArray[np.int64]
    """Their numbers, hardest first by nats per character; as they stand where there are no nats."""

    @classmethod
    def of(cls, folder: RunFolder) -> ScoredDocuments:
        """Reads them again; raises UserError where they can't be or are no longer the same."""
        documents = folder.corpus().split("validation")
        try:
            nats = folder.nats()
        except UserError:
            note = "The run has not ended, so its documents have no scores yet and stand in their own order."
            return cls(documents, None, note, np.arange(len(documents)))
        if len(nats.nats_D) != len(documents):
            raise UserError(f"{folder.nats_file} is not of the run's validation documents")
        order_D = np.argsort(-nats.nats_D / nats.characters_D, kind="stable")
        return cls(documents, nats, "", order_D.astype(np.int64))

    def page(self, *, word: str, order: Order, offset: int, count: int) -> dict[str, Any]:
        """`count` of the documents that hold `word`, whatever its case, from the `offset`-th on; JSON-ready."""
        order_D = self.order_D
        if word:
            texts = self.documents.column.cast(pa.large_string())
            found_D = pc.match_substring(texts, word, ignore_case=True).to_numpy()
            order_D = order_D[found_D[order_D]]
        if order == "easiest":
            order_D = order_D[::-1]
        return {
            "documents": [self.document(number) for number in order_D[offset : offset + count].tolist()],
            "matching": len(order_D),
            "total": len(self.documents),
            "note": self.note,
        }

    def document(self, number: int) -> dict[str, Any]:
        """One of them by its number, JSON-ready; nats and loss are None where there are no scores."""
        nats = float(self.nats.nats_D[number]) if self.nats else None
        characters = int(self.nats.characters_D[number]) if self.nats else None
        loss = nats / characters if nats is not None and characters else None
        return {"number": number, "text": self.documents[number], "nats": nats, "characters": characters, "loss": loss}
