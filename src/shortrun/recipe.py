"""The recipe: everything that decides a run, as one frozen, typed tree.

Ranges and what can't work together are checked here; `recipe_file` reads recipes from TOML and says what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from shortrun.disk import json_sha256

GPT2_VOCABULARY = 50_257


class Section(BaseModel):
    """What sections have in common: no other fields, no other types. TOML's and JSON's lists stand for tuples."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _lists_are_tuples(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


class DataConfig(Section):
    """Which documents, and how they are split."""

    source: Literal["hackernews", "file", "synthetic", "corpus"] = "hackernews"
    """Where documents come from: the hub data set of Hacker News titles, a file of yours, the built-in headline grammar, or a
    corpus that `shortrun data prepare` made, with the split that it made."""
    path: tuple[str, ...] = ()
    """Files to read (.parquet, .csv, .tsv, .jsonl, .txt, each also .gz); giving one sets source to "file". With source "corpus",
    the folder of the corpus."""
    column: str = "title"
    """The column that holds the documents, where the file has columns."""
    revision: str | None = None
    """A commit of the hub data set to pin; it was refreshed in June 2026, so losses before and after differ."""
    normalise: tuple[Literal["nfc", "nfkc", "lowercase", "no-accents", "single-spaces"], ...] = ()
    """Lossy changes to every document, in this order, counted in the manifest; losses then don't compare with the original's."""
    num_titles: PositiveInt | Literal["all"] = 100_000
    """How many documents to take after the shuffle (Mainrun's name for it); "all" for every one the source has, as a corpus does
    if left out. Of a corpus, training and validation documents in proportion."""
    shuffle: bool = True
    """Shuffle the source before taking num_titles, as `datasets.Dataset.shuffle(seed)` does."""
    seed: int = Field(1337, ge=0)
    """Seed of that shuffle (and of the synthetic corpus); apart from train.seed, so that seeds share one split."""
    val_frac: float = Field(0.1, gt=0, lt=1)
    """Share of the documents, at the end, that is only ever scored."""
    tuning_titles: int = Field(0, ge=0)
    """Documents cut from the end of the training documents, to choose settings on."""
    heldout_titles: int = Field(0, ge=0)
    """Documents taken from beyond num_titles, as a test set that neither training nor the tokenizer sees."""

    @model_validator(mode="before")
    @classmethod
    def _a_path_means_a_file(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not values.get("path"):
            return values
        path = values["path"]
        sizes = {"num_titles": "all"} if values.get("source") == "corpus" else {}
        return {"source": "file", **sizes, **values, "path": (path,) if isinstance(path, str) else path}

    @model_validator(mode="after")
    def _can_work(self) -> DataConfig:
        if self.source == "file" and not self.path:
            raise ValueError('data.source = "file" needs data.path, the file to read')
        if self.source == "corpus" and len(self.path) != 1:
            raise ValueError('data.source = "corpus" needs one data.path, the folder that `shortrun data prepare` made')
        if self.source not in ("file", "corpus") and self.path:
            raise ValueError(f'data.source = "{self.source}" does not read data.path; leave one of them out')
        if self.source == "synthetic" and self.normalise:
            raise ValueError("data.normalise would make the synthetic corpus another than the one whose floor is known")
        if self.source == "synthetic" and self.num_titles == "all":
            raise ValueError("the synthetic corpus has no end: give data.num_titles a number")
        if self.num_titles == "all":
            if self.heldout_titles:
                raise ValueError('data.num_titles = "all" leaves no titles for data.heldout_titles')
            return self
        if self.source == "corpus":  # whose split is its own
            return self
        train = int(self.num_titles * (1 - self.val_frac))
        if train == 0 or train == self.num_titles:
            raise ValueError(
                f"data.num_titles = {self.num_titles} with data.val_frac = {self.val_frac} leaves "
                f"{train} titles to train on and {self.num_titles - train} to validate; both need one at least"
            )
        if self.tuning_titles >= train:
            raise ValueError(f"data.tuning_titles = {self.tuning_titles} would take all {train} training titles")
        return self


class TokenizerConfig(Section):
    """How text becomes token ids."""

    kind: Literal["bpe", "unigram", "character", "gpt2"] = "bpe"
    """Byte-level BPE (with 259 entries, bytes alone); a Unigram language model; the most frequent characters; or GPT-2's own
    vocabulary. All spell what they do not know in bytes."""
    vocab_size: int = Field(16_000, ge=4, le=1_000_000)
    """Entries asked for, special tokens and bytes included; a small corpus may yield fewer. GPT-2's has 50,257."""
    case: Literal["kept", "factored"] = "kept"
    """bpe, unigram: whether "The" and "the" are two words, or one with the case factored out: a token says whether the document
    is written like a headline or a sentence, and a mark which words differ from that. Every document comes back exactly."""
    fit_on: Literal["train", "train+validation"] = "train"
    """The documents that it is learned from; Mainrun's baseline uses both splits."""
    byte_alphabet: Literal["all", "seen"] = "all"
    """bpe: which of the 256 bytes have a token: all (any text can be encoded), or only those seen in fitting, as the
    baseline."""
    whole_pieces: tuple[str, ...] = ()
    """Strings that are never split, such as "C++", "GPT-4" or "https://"; each takes two entries, with and without a space
    before it."""
    path: str | None = None
    """gpt2: the folder of its vocab.json and merges.txt; left out, they come from the hub."""

    @model_validator(mode="before")
    @classmethod
    def _gpt2_has_its_own_size(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("kind") == "gpt2":
            return {"vocab_size": GPT2_VOCABULARY, **values}
        return values

    @model_validator(mode="after")
    def _can_work(self) -> TokenizerConfig:
        if self.kind == "gpt2":
            if self.vocab_size != GPT2_VOCABULARY:
                raise ValueError(
                    f"tokenizer.vocab_size = {self.vocab_size}, but GPT-2's vocabulary has {GPT2_VOCABULARY} entries: "
                    f"set it to that"
                )
            if self.whole_pieces:
                raise ValueError('tokenizer.whole_pieces can\'t be added to tokenizer.kind = "gpt2", which is learned')
        elif self.path is not None:
            raise ValueError(f'tokenizer.kind = "{self.kind}" is learned and does not read tokenizer.path')
        if self.case == "factored" and self.kind in ("bpe", "unigram") and self.whole_pieces:
            raise ValueError(
                'tokenizer.case = "factored" spells words without their capitals, so tokenizer.whole_pieces would not be found: '
                "leave one of them out"
            )
        bad = [piece for piece in self.whole_pieces if piece != piece.strip() or not piece.isprintable() or not piece]
        bad += [piece for piece in self.whole_pieces if piece in ("<pad>", "<eos>", "<unk>")]
        if bad:
            raise ValueError(
                f"tokenizer.whole_pieces: {bad[0]!r} is empty, not printable, a special token, or has a space at its ends"
            )
        least = 3 + 2 * len(self.whole_pieces)
        least += 256 if self.byte_alphabet == "all" or self.kind != "bpe" else 1
        least += self.kind == "character"  # the space
        if self.vocab_size < least:
            pieces = f" and {len(self.whole_pieces)} whole pieces, twice each" if self.whole_pieces else ""
            raise ValueError(
                f"tokenizer.vocab_size = {self.vocab_size} can't hold 256 bytes, 3 special tokens{pieces}: "
                f"use at least {least}"
            )
        return self


class BatchesConfig(Section):
    """How token ids become batches."""

    mode: Literal["stream", "shuffled", "documents"] = "shuffled"
    """"stream": one fixed stream, as Mainrun; "shuffled": documents in a new order each epoch, end to end; "documents": the
    same, one document a row, exactly as it is scored."""
    block_size: PositiveInt = Field(128, le=2**17)
    """Tokens in a row, in "documents" at most: the longest context the model sees."""
    batch_size: PositiveInt = Field(64, le=2**20)
    """Rows in a step; in "documents" a step holds about batch_size * block_size tokens."""


class ModelConfig(Section):
    """The GPT."""

    n_layer: PositiveInt = Field(6, le=1_000)
    """Transformer blocks."""
    n_head: PositiveInt = Field(8, le=1_000)
    """Attention heads in each block."""
    d_model: PositiveInt = Field(512, le=2**16)
    """Width of the residual stream."""
    embedding_width: PositiveInt | None = Field(None, le=2**16)
    """Width of the token embeddings where it is below d_model, to which one linear map then brings them (factorised
    embeddings); a tied head goes back through that map. Left out, they are d_model wide."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Share of activations dropped in training, on embeddings, attention weights and block outputs."""
    word_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of input tokens whose embedding is zeroed, in training only; documents' ends are kept."""
    word_replacement: float = Field(0.0, ge=0, lt=1)
    """Share of input tokens that are replaced by random ones inside the model, in training only; documents' ends and all
    targets are kept."""
    positions: Literal["learned", "rotary"] = "learned"
    """How a token's place is known: a learned vector for each position, or rotated queries and keys (RoPE)."""
    rope_base: float = Field(10_000.0, gt=1)
    """Base of RoPE's wavelengths: the longest is about 2 pi times this, in tokens."""
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    """What normalises the stream before each part of a block: LayerNorm, or RMSNorm (no mean, no bias)."""
    bias: bool = True
    """Whether linear maps and LayerNorm have a bias."""
    mlp: Literal["gelu", "swiglu", "relu2"] = "gelu"
    """The feed-forward part: GELU or squared ReLU at 4 times the width, or SwiGLU at 8/3 (the same parameters)."""
    block: Literal["sequential", "parallel"] = "sequential"
    """Attention then MLP, or both on one normalised input and added together (GPT-NeoX)."""
    scale_embeddings: bool = False
    """Divide token embeddings by sqrt(d_model) on the way in, where the head uses them as they are."""
    tied_head: bool = True
    """Whether the head's weights are the token embeddings."""
    init: Literal["normal", "residual"] = "normal"
    """N(0, 0.02) everywhere (the map of factorised embeddings keeps their spread), or with the maps that write to the stream divided by sqrt(2 n_layer), as GPT-2."""
    output_gate: bool = False
    """A gate for each head, sigmoid of a linear map of the block's input, on what attention gives."""
    layer_scale: float | None = Field(None, gt=0)
    """Initial value of a learned factor for each channel of each part's output; left out, there is none."""
    qk_norm: bool = False
    """RMS-normalise each head's queries and keys, with a learned gain."""
    members: PositiveInt = Field(1, le=1_000)
    """Models of this shape, each trained on the same batches as if alone; the mean of their probabilities is what is scored
    and sampled."""

    @model_validator(mode="after")
    def _can_work(self) -> ModelConfig:
        if self.d_model % self.n_head:
            fits = [h for h in range(1, self.d_model + 1) if self.d_model % h == 0]
            nearest = min(fits, key=lambda h: abs(h - self.n_head))
            raise ValueError(
                f"model.d_model = {self.d_model} is not divisible by model.n_head = {self.n_head}; "
                f"the nearest number of heads that fits is {nearest}"
            )
        if self.embedding_width is not None and self.embedding_width >= self.d_model:
            raise ValueError(
                f"model.embedding_width = {self.embedding_width} saves nothing unless it is below model.d_model = "
                f"{self.d_model}; leave it out for embeddings as wide as the model"
            )
        if self.positions == "rotary" and self.d_model // self.n_head % 2:
            raise ValueError(
                f"rotary positions turn pairs of channels, but model.d_model = {self.d_model} over model.n_head = "
                f"{self.n_head} leaves {self.d_model // self.n_head} channels a head, an odd number"
            )
        return self


class OptimConfig(Section):
    """The optimizer."""

    name: Literal["sgd", "adamw", "muon", "lion", "soap"] = "adamw"
    """sgd (no momentum, as the baseline), adamw, muon for the blocks' matrices with adamw for everything else, or lion or
    soap (both need the extra shortrun[optimizers])."""
    lr: float = Field(5e-4, gt=0)
    """Peak learning rate (with muon, of what adamw takes care of)."""
    embedding_lr_factor: float = Field(1.0, gt=0)
    """Learning rate of token and position embeddings (a tied head is one of them), as a multiple of optim.lr."""
    head_lr_factor: float = Field(1.0, gt=0)
    """That of a head that is not tied, as a multiple of optim.lr."""
    gain_lr_factor: float = Field(1.0, gt=0)
    """That of gains, biases, LayerScale and the output gate's maps, as a multiple of optim.lr."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay rates of the first and second moment (adamw, soap), or of lion's update and its momentum."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight decay (decoupled: multiplied by the learning rate; in sgd, added to the gradient)."""
    decay: Literal["all", "matrices"] = "all"
    """What decays: every parameter, or only the linear maps, not biases, norms, gains and embeddings."""
    muon_lr: float = Field(1e-2, gt=0)
    """Peak learning rate of muon's matrices."""
    muon_momentum: float = Field(0.95, ge=0, lt=1)
    """Muon's momentum (Nesterov)."""
    muon_weight_decay: float = Field(0.1, ge=0)
    """Decoupled weight decay of muon's matrices."""
    grad_clip: float = Field(1.0, gt=0)
    """Largest global gradient norm; larger ones are scaled down to it."""
    sharpness: Literal["none", "sam", "asam"] = "none"
    """Take the gradient at the worst nearby point: SAM, or ASAM, whose neighbourhood scales with the weights. Two passes."""
    rho: float = Field(0.05, gt=0)
    """Radius of that neighbourhood (0.05 is SAM's usual; ASAM's is about ten times larger)."""

    @model_validator(mode="after")
    def _can_work(self) -> OptimConfig:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optim.betas = {list(self.betas)} must both be at least 0 and below 1")
        return self


class ScheduleConfig(Section):
    """The learning rate over the run, as a share of its peak."""

    name: Literal["constant", "linear", "cosine", "restarts", "wsd"] = "cosine"
    """constant; linear or cosine to min_lr; cosine with warm restarts; wsd (warmup, stable, then 1 - sqrt decay)."""
    warmup: int | float = Field(0, ge=0)
    """Linear warmup from 0: a whole number of steps, or a share of all steps when below 1."""
    min_lr: float = Field(0.0, ge=0)
    """Learning rate that the decay ends at (on the scale of optim.lr)."""
    weight_decay: Literal["constant", "linear", "cosine"] = "constant"
    """How weight decay goes over the run: constant, or from its value to 0 along a line or a cosine."""
    decay_frac: float = Field(0.2, gt=0, le=1)
    """wsd: share of all steps, at the end, in which the rate decays."""
    cycles: PositiveInt = 1
    """restarts: cosine cycles of equal length."""

    @model_validator(mode="after")
    def _can_work(self) -> ScheduleConfig:
        if isinstance(self.warmup, float) and self.warmup >= 1:
            raise ValueError(
                f"schedule.warmup = {self.warmup} is neither a whole number of steps nor a share of them, which is below 1"
            )
        return self


class TrainConfig(Section):
    """The training loop."""

    epochs: PositiveInt = Field(7, le=1_000_000)
    """Passes over the training documents."""
    seed: int = Field(1337, ge=0, lt=2**63)
    """Seed of the initial weights, of dropout and of the order of documents (also --seed)."""
    evals_per_epoch: PositiveInt = Field(3, le=1_000_000)
    """Evaluations in each epoch, besides those at step 1 and at the last step."""
    checkpoint_every: PositiveInt | None = None
    """Steps between checkpoints; left out, one is made at each evaluation. The last two and the best are kept."""
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    """Arithmetic of matrix products in training; weights and scores are float32 either way. auto: bfloat16 where a timed
    product is at least 1.3 times as fast in it, float32 elsewhere; a run keeps what it began with."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train; auto takes CUDA, then MPS, then the CPU, and says why."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of each target's probability spread over the vocabulary, in training only."""
    rdrop: float = Field(0.0, ge=0)
    """R-Drop: weight of the symmetric divergence between two passes with different dropout; 0 takes one pass."""
    rdrop_from: float = Field(0.0, ge=0, lt=1)
    """Share of the steps, from the first on, that go without R-Drop and take one pass; 0 has it in all of them."""
    ema: float = Field(0.0, ge=0, lt=1)
    """Decay of an exponential moving average of the weights, which is then what is scored and sampled; 0 keeps none."""
    memory_limit: float | None = Field(None, gt=0)
    """Gigabytes a step may take, about: larger batches are taken in parts whose gradients add up. Left out, no limit,
    and parts of 2,048 tokens on a CPU, which take no longer there and less memory."""
    compile: Literal["off", "on", "auto"] = "off"
    """torch.compile: off; on; or auto, which says why and goes on without where it can't."""
    threads: PositiveInt | None = Field(None, le=4_096)
    """CPU threads; left out, as many as the machine has cores. Same bits need the same number."""
    from_data: tuple[
        Literal[
            "tokenizer.vocab_size", "batches.block_size", "batches.batch_size", "model.n_layer", "model.n_head",
            "model.d_model", "model.dropout", "train.epochs",
        ], ...
    ] = ()  # fmt: skip
    """Fields whose values follow from the data when it is read; one that is given over this recipe's stays as given."""
    log_every: PositiveInt = 50
    """Steps between progress lines when the output is no terminal."""


class DatastoreConfig(Section):
    """What the model of the last step asks besides itself: what followed like contexts in the training documents."""

    weight: float = Field(0.0, ge=0, lt=1)
    """The datastore's share of each prediction (kNN-LM, Khandelwal et al. 2020); 0 for none."""
    sharpness: float = Field(22.0, gt=0, le=40)
    """By how much an entry's weight falls, as a logarithm, where the cosine of its context falls by 1."""
    width: int = Field(128, ge=2, le=2**16)
    """Numbers that are kept of each context: all but one are its places along the directions in which contexts reach furthest."""


class Recipe(Section):
    """A run, decided."""

    data: DataConfig = DataConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    batches: BatchesConfig = BatchesConfig()
    model: ModelConfig = ModelConfig()
    optim: OptimConfig = OptimConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    train: TrainConfig = TrainConfig()
    datastore: DatastoreConfig = DatastoreConfig()

    @model_validator(mode="after")
    def _can_work(self) -> Recipe:
        if self.schedule.min_lr > self.optim.lr:
            raise ValueError(f"schedule.min_lr = {self.schedule.min_lr} is above the peak, optim.lr = {self.optim.lr}")
        return self

    def value(self, field: str) -> Any:
        """The value of a field given as "section.name"."""
        section, _, name = field.partition(".")
        return getattr(getattr(self, section), name)

    def unread(self) -> Iterator[tuple[str, Reader]]:
        """Each field ("section.name") that nothing reads in this recipe, and what would read it."""
        for field, reader in READ_BY.items():
            if not reader.reads(self.value(reader.gate)):
                yield field, reader

    def fingerprint(self) -> str:
        """sha256 of what decides the result: neither where files lie, nor how a run is watched, nor what nothing reads.

        What the data is has a fingerprint of its own, so a file may move without making another recipe.
        """
        left_out = {*WITHOUT_EFFECT, *(field for field, _ in self.unread())}
        left_out |= {field for field, value in LATER.items() if self.value(field) == value}
        values = self.model_dump(mode="json")
        for field in left_out:
            section, _, name = field.partition(".")
            del values[section][name]
        return json_sha256({section: fields for section, fields in values.items() if fields})

    def changed(self, section: str, **values: Any) -> Recipe:
        """The same recipe with other values, which are not checked again, in one section."""
        return self.model_copy(update={section: getattr(self, section).model_copy(update=values)})

    def located(self) -> Recipe:
        """The same recipe with absolute paths, so that it means the same from every folder."""
        path = tuple(str(Path(name).absolute()) for name in self.data.path)
        folder = self.tokenizer.path and str(Path(self.tokenizer.path).absolute())
        return self.changed("data", path=path).changed("tokenizer", path=folder)


class Reader(NamedTuple):
    """What must hold for a field to be read at all."""

    gate: str
    """The field that decides it, "section.name"."""
    values: tuple[Any, ...] = ()
    """The gate's values with which the field is read; of a gate that is a number, none stands for all above 0."""

    def reads(self, gate: Any) -> bool:
        return gate in self.values if self.values else gate > 0


READ_BY: dict[str, Reader] = {
    "data.column": Reader("data.source", ("hackernews", "file")),
    "data.revision": Reader("data.source", ("hackernews",)),
    "data.shuffle": Reader("data.source", ("hackernews", "file", "corpus")),
    "data.val_frac": Reader("data.source", ("hackernews", "file", "synthetic")),
    "data.heldout_titles": Reader("data.source", ("hackernews", "file", "synthetic")),
    "tokenizer.fit_on": Reader("tokenizer.kind", ("bpe", "unigram", "character")),
    "tokenizer.case": Reader("tokenizer.kind", ("bpe", "unigram")),
    "tokenizer.byte_alphabet": Reader("tokenizer.kind", ("bpe",)),
    "model.rope_base": Reader("model.positions", ("rotary",)),
    "optim.head_lr_factor": Reader("model.tied_head", (False,)),
    "optim.betas": Reader("optim.name", ("adamw", "muon", "lion", "soap")),
    "optim.muon_lr": Reader("optim.name", ("muon",)),
    "optim.muon_momentum": Reader("optim.name", ("muon",)),
    "optim.muon_weight_decay": Reader("optim.name", ("muon",)),
    "optim.rho": Reader("optim.sharpness", ("sam", "asam")),
    "schedule.min_lr": Reader("schedule.name", ("linear", "cosine", "restarts", "wsd")),
    "schedule.decay_frac": Reader("schedule.name", ("wsd",)),
    "schedule.cycles": Reader("schedule.name", ("restarts",)),
    "train.rdrop_from": Reader("train.rdrop"),
    "datastore.sharpness": Reader("datastore.weight"),
    "datastore.width": Reader("datastore.weight"),
}
"""Fields that only some values of another field make use of."""

LATER: dict[str, Any] = {
    "tokenizer.case": "kept", "model.embedding_width": None, "model.members": 1, "model.word_replacement": 0.0,
    "optim.embedding_lr_factor": 1.0, "optim.head_lr_factor": 1.0,
    "optim.gain_lr_factor": 1.0, "train.rdrop_from": 0.0, "datastore.weight": 0.0,
}  # fmt: skip
"""Fields that came after format 3 of run folders, with the value that every run before them had: the fingerprint leaves
them out with it, so that those runs keep theirs."""

WITHOUT_EFFECT = (
    "data.path", "tokenizer.path", "train.checkpoint_every", "train.device", "train.threads", "train.log_every",
)  # fmt: skip
"""Fields that don't decide what a run learns: two runs that differ in these alone are the same run."""
