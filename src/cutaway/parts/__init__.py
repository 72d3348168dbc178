"""The parts every architecture is composed of. Each is a file of its own; import what you need from `cutaway.parts`."""

from cutaway.parts.adaptive import AdaptiveEmbedding, AdaptiveSoftmax, AdaptiveTokens
from cutaway.parts.attention import Attention
from cutaway.parts.axial import AxialPositions, GridPositions
from cutaway.parts.block_sparse import BlockSparseAttention
from cutaway.parts.clip import Clip
from cutaway.parts.context import Context
from cutaway.parts.convolution import CausalConvolution
from cutaway.parts.disentangled import Disentangled, RelativeTable
from cutaway.parts.dropout import Dropout
from cutaway.parts.embedding import Embedding, Segments
from cutaway.parts.feedforward import ACTIVATIONS, FeedForward, Gated, activation
from cutaway.parts.hashed import HashedNGrams
from cutaway.parts.head import (
    DetectionHead,
    EmbeddingHead,
    LanguageHead,
    MaskedTransform,
    SequenceHead,
    TokenHead,
    choose_head,
    decoder_head,
    encoder_head,
)
from cutaway.parts.linear_attention import EluPlusOne, LinearAttention
from cutaway.parts.local_global import LocalGlobalAttention
from cutaway.parts.lora import Detour, LoRALinear
from cutaway.parts.lowrank import Along, LowRankAttention
from cutaway.parts.lsh import LSHAttention
from cutaway.parts.mamba import Mamba
from cutaway.parts.mamba2 import GatedNorm, Mamba2
from cutaway.parts.model import EncoderDecoder, Model, Stack, initialise
from cutaway.parts.ngrams import Beside, NGrams
from cutaway.parts.norm import LayerNorm, RMSNorm, StdNorm
from cutaway.parts.performer import Favor, PerformerAttention
from cutaway.parts.permuted import PermutedModel
from cutaway.parts.pool import First, Last, Mean, Pooler
from cutaway.parts.position import LearnedPositions, Positions, SinusoidalPositions
from cutaway.parts.relative import ALiBi, LayerPositions, T5Bias
from cutaway.parts.relative_shift import Distances, Recall, RelativeScores
from cutaway.parts.residual import Block, Narrow, Parallel, PostNorm, PreNorm, Sandwich, Wide
from cutaway.parts.reversible import Branch, ReversibleBlock, ReversibleStack
from cutaway.parts.rotary import Rotary
from cutaway.parts.segments_memory import RecurrentAttention, ZeroMemory
from cutaway.parts.state import Cells, State
from cutaway.parts.streams import EnhancedDecoder, Streams
from cutaway.parts.swap import MakeFeedForward, MakeMixer, MakeNorm, MakePosition
from cutaway.parts.synthesizer import Synthesizer

__all__ = [
    "ACTIVATIONS",
    "ALiBi",
    "AdaptiveEmbedding",
    "AdaptiveSoftmax",
    "AdaptiveTokens",
    "Along",
    "Attention",
    "AxialPositions",
    "Beside",
    "Block",
    "BlockSparseAttention",
    "Branch",
    "CausalConvolution",
    "Cells",
    "Clip",
    "Context",
    "DetectionHead",
    "Detour",
    "Disentangled",
    "Distances",
    "Dropout",
    "EluPlusOne",
    "Embedding",
    "EmbeddingHead",
    "EncoderDecoder",
    "EnhancedDecoder",
    "Favor",
    "FeedForward",
    "First",
    "Gated",
    "GatedNorm",
    "GridPositions",
    "HashedNGrams",
    "LSHAttention",
    "LanguageHead",
    "Last",
    "LayerNorm",
    "LayerPositions",
    "LearnedPositions",
    "LinearAttention",
    "LoRALinear",
    "LocalGlobalAttention",
    "LowRankAttention",
    "MakeFeedForward",
    "MakeMixer",
    "MakeNorm",
    "MakePosition",
    "Mamba",
    "Mamba2",
    "MaskedTransform",
    "Mean",
    "Model",
    "NGrams",
    "Narrow",
    "Parallel",
    "PerformerAttention",
    "PermutedModel",
    "Pooler",
    "Positions",
    "PostNorm",
    "PreNorm",
    "RMSNorm",
    "Recall",
    "RecurrentAttention",
    "RelativeScores",
    "RelativeTable",
    "ReversibleBlock",
    "ReversibleStack",
    "Rotary",
    "Sandwich",
    "Segments",
    "SequenceHead",
    "SinusoidalPositions",
    "Stack",
    "State",
    "StdNorm",
    "Streams",
    "Synthesizer",
    "T5Bias",
    "TokenHead",
    "Wide",
    "ZeroMemory",
    "activation",
    "choose_head",
    "decoder_head",
    "encoder_head",
    "initialise",
]
