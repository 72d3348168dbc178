"""Whole models: a stack of blocks with an embedding below and a head above, alone or as encoder and decoder."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from cutaway.axes import Bool, Float, Int
from cutaway.errors import ConfigError
from cutaway.parts.call import behind, check, check_padding, context, count, where_padding
from cutaway.parts.context import Context
from cutaway.parts.embedding import Embedding, Segments
from cutaway.parts.local_global import mark
from cutaway.parts.pool import pick_last
from cutaway.parts.state import State


class Stack(nn.Module):
    """embedding → blocks → norm (where there is a last one)."""

    def __init__(self, embedding: Embedding, blocks: Sequence[nn.Module], norm: nn.Module | None = None) -> None:
        super().__init__()
        self.embedding, self.blocks, self.norm = embedding, nn.ModuleList(blocks), norm

    def forward(self, ids: Int[Tensor, "b t"], ctx: Context) -> Float[Tensor, "b t d"]:
        return self.through(self.embedding(ids, ctx), ctx)

    def through(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b t o"]:
        """The blocks, and the norm after them."""
        for i, block in enumerate(self.blocks):
            x = block(x, ctx.enter(f"blocks.{i}"))
        return x if self.norm is None else self.norm(x, ctx)

    def called(
        self,
        ids: Tensor,
        padding: Tensor | None,
        state: State | None,
        max_positions: int | None,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        documents: Tensor | None = None,
    ) -> Context:
        """The context of a call, after checking that this stack can take it."""
        if self.embedding.tokens.weight.is_meta and not ids.is_meta:
            raise ConfigError(
                "a model on the meta device has no weights to run with; build or load it on another device"
            )
        if segments is not None:
            if not self.segments:
                raise ConfigError("this model tells no segments apart; leave them out")
            check(segments, self.segments, "segments", ids)
        return context(self.vocab, ids, padding, positions, state, max_positions, segments, documents)

    @property
    def segments(self) -> int:
        """How many segments it tells apart (BERT: sentences A and B); 0 where it knows of none."""
        return next((part.count for part in self.modules() if isinstance(part, Segments)), 0)

    @property
    def vocab(self) -> int:
        return self.embedding.tokens.num_embeddings

    @property
    def width(self) -> int:
        return self.embedding.width


class Model(nn.Module):
    """A decoder (`causal`) or an encoder: `model(ids)` is logits (B, T, V) with a language head, else states (B, T, D).

    Other heads give what they say: (B, T, C) a token, (B, C) a sequence. `pooler` is BERT's extra layer over the
    first token, part of the published model though only `model.pooled(ids)` uses it.
    """

    def __init__(
        self,
        stack: Stack,
        head: nn.Module | None = None,
        *,
        causal: bool,
        pooler: nn.Module | None = None,
        max_positions: int | None = None,
    ) -> None:
        super().__init__()
        self.stack, self.head, self.pooler = stack, head, pooler
        self.causal, self.max_positions = causal, max_positions
        self.vocab, self.width = stack.vocab, stack.width

    def forward(
        self,
        ids: Int[Tensor, "b t"],
        padding: Bool[Tensor, "b t"] | None = None,
        *,
        positions: Int[Tensor, "#b t"] | None = None,
        segments: Int[Tensor, "#b t"] | None = None,
        documents: Int[Tensor, "#b t"] | None = None,
        global_mask: Bool[Tensor, "#b t"] | None = None,
        state: State | None = None,
        last: bool = False,
        head: bool = True,
    ) -> Tensor:
        """
        Args:
            ids: token ids, int64 or int32.
            padding: True on real tokens; None where all are. Left, right, anywhere: the result is the same.
            positions: absolute positions; counted over the real tokens by default. Masks go by them and not by columns:
                a causal model's token looks at all whose position is not above its own.
            segments: sentence A (0) or B (1) of each token, for models that tell them apart.
            documents: which document each token is of, where several share a row: any numbers from 0. None sees another's
                tokens, and positions are counted in each by itself, so it gets the numbers it would get alone. Refused
                where a part cannot do so, such as a scan; parts of your own that mix tokens must heed `ctx.documents`,
                or say so by `keeps_documents = False`.
            global_mask: True on tokens that all look at and that look at all, for models with global attention.
            state: what came before; is updated. `State(batch, capacity)` starts.
            last: only each row's last real token, whatever its position, (B, 1, ...): spares the head the others.
            head: False gives the states below the head, (B, T, D): a loss may then go through it in pieces.

        Raises:
            ConfigError: a wrong shape, dtype or id; segments, of a model that has none; documents, where a part cannot
                keep them apart or a state goes on; weights on `meta`.
            CapacityError: more tokens than the model has positions, or than the state has room for.

        A call that is refused leaves the state as it was.
        """
        x, ctx = self._states(ids, padding, positions, segments, state, global_mask, documents)
        if last:
            x = pick_last(x, ctx)[:, None]
        return self.head(x, ctx) if head and self.head is not None else x

    @property
    def mixes_documents(self) -> list[str]:
        """The kinds of its parts that cannot keep several documents in a row apart."""
        return sorted({type(part).__name__ for part in self.modules() if not getattr(part, "keeps_documents", True)})

    def pooled(self, ids: Int[Tensor, "b t"], padding: Bool[Tensor, "b t"] | None = None) -> Float[Tensor, "b d"]:
        """BERT's pooled vector of each sequence, (B, D)."""
        if self.pooler is None:
            raise ConfigError("this model has no pooler; use its states, or a head that pools")
        return self.pooler(*self._states(ids, padding))

    def _states(
        self,
        ids: Tensor,
        padding: Tensor | None,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        state: State | None = None,
        global_mask: Tensor | None = None,
        documents: Tensor | None = None,
    ) -> tuple[Tensor, Context]:
        if documents is not None and (parts := self.mixes_documents):
            raise ConfigError(
                f"{', '.join(parts)} cannot keep several documents in a row apart; give each a row of its own"
            )
        ctx = self.stack.called(ids, padding, state, self.max_positions, positions, segments, documents)
        ctx = ctx if global_mask is None else mark(ctx, global_mask, self.stack)
        return self.stack(ids, ctx), ctx


class EncoderDecoder(nn.Module):
    """An encoder reads the source, a decoder writes the target looking at it: `model(source_ids, target_ids)` → (B, T, V).

    `start` is the id every target begins with (T5: the padding token). To score a target, shift it right yourself:
    row t of the logits is the prediction for target token t + 1. Without a head the decoder's states come out. Heads
    that classify read a text twice, as source and as target (Lewis et al. 2020, section 3): `model(source_ids)`.
    """

    mixes_documents = ("EncoderDecoder",)  # takes one text a row

    def __init__(
        self,
        encoder: Stack,
        decoder: Stack,
        head: nn.Module | None = None,
        *,
        start: int,
        max_positions: int | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.head = encoder, decoder, head
        self.start, self.max_positions, self.causal = start, max_positions, True
        self.vocab, self.width = decoder.vocab, decoder.width

    def forward(
        self,
        source_ids: Int[Tensor, "b s"],
        target_ids: Int[Tensor, "b t"] | None = None,
        source_padding: Bool[Tensor, "b s"] | None = None,
        target_padding: Bool[Tensor, "b t"] | None = None,
        *,
        global_mask: Bool[Tensor, "#b s"] | None = None,
        state: State | None = None,
        last: bool = False,
        head: bool = True,
    ) -> Tensor:
        """Both at once; arguments as for `Model`. Without a target it is the source, moved on by one behind `start`."""
        memory = self.encode(source_ids, source_padding, global_mask)
        if target_ids is None:
            target_ids, target_padding = behind(self.start, source_ids, source_padding), source_padding
        return self.decode(target_ids, memory, source_padding, target_padding, state=state, last=last, head=head)

    def encode(
        self,
        source_ids: Int[Tensor, "b s"],
        source_padding: Bool[Tensor, "b s"] | None = None,
        global_mask: Bool[Tensor, "#b s"] | None = None,
    ) -> Float[Tensor, "b s d"]:
        """The encoder's states, which the decoder looks at."""
        ctx = self.encoder.called(source_ids, source_padding, None, self.max_positions)
        ctx = ctx if global_mask is None else mark(ctx, global_mask, self.encoder)
        return self.encoder(source_ids, ctx.enter("encoder"))

    def decode(
        self,
        target_ids: Int[Tensor, "b t"],
        memory: Float[Tensor, "b s d"],
        source_padding: Bool[Tensor, "b s"] | None = None,
        target_padding: Bool[Tensor, "b t"] | None = None,
        *,
        state: State | None = None,
        last: bool = False,
        head: bool = True,
    ) -> Tensor:
        """Logits of the target, given the encoder's states. With a `state`, cross-attention's keys are computed once."""
        if memory.shape[0] != target_ids.shape[0]:
            raise ConfigError(f"{memory.shape[0]} sources for {target_ids.shape[0]} targets: a batch has one for each")
        check_padding(source_padding, memory.shape[:2])
        own = self.decoder.called(target_ids, target_padding, state, self.max_positions)
        ctx = Context(
            own.pos,
            own.packing,
            state,
            own.fresh,
            site="decoder",
            ids=own.ids,
            memory=memory,
            memory_pos=count(memory.shape[1], source_padding, memory.device),
            memory_packing=where_padding(source_padding),
        )
        x = self.decoder(target_ids, ctx)
        if last:
            x = pick_last(x, ctx)[:, None]
        return self.head(x, ctx) if head and self.head is not None else x


def initialise(model: nn.Module, std: float = 0.02) -> None:
    """Small normal weights and zero biases, as BERT and GPT-2 begin (Radford et al. 2018, section 4.1)."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=std)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
