"""Tiny models of the reference library, one a family and head, and how to compare what they say with ours."""

from pathlib import Path
from typing import Any

import torch
import transformers as hf
from torch import Tensor

from cutaway.api import Loaded
from cutaway.parts import EncoderDecoder

LLAMA = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
BERT = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64,
}  # fmt: skip
ROBERTA = {**BERT, "max_position_embeddings": 66, "type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1}
DISTILBERT = {
    "vocab_size": 96, "dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 64,
}  # fmt: skip
ELECTRA = {**BERT, "embedding_size": 20}
ALBERT = {**BERT, "embedding_size": 20, "num_hidden_layers": 3, "num_hidden_groups": 2}
MODERNBERT = {
    **BERT, "num_hidden_layers": 4, "local_attention": 6, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "cls_token_id": 1, "sep_token_id": 2,
}  # fmt: skip
DEBERTA = {**BERT, "relative_attention": True, "pos_att_type": "c2p|p2c", "position_biased_input": False}
DEBERTA_V2 = {**DEBERTA, "position_buckets": 6, "norm_rel_ebd": "layer_norm", "share_att_key": True}
LONGFORMER = {**ROBERTA, "attention_window": [4, 8]}
BIGBIRD = {**BERT, "block_size": 1, "num_random_blocks": 1}
XLNET = {"vocab_size": 96, "d_model": 32, "d_inner": 48, "n_layer": 2, "n_head": 4, "mem_len": None}
GPT2 = {
    "vocab_size": 96,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
T5 = {
    "vocab_size": 96,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}
BART = {
    "vocab_size": 96, "d_model": 32, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 64,
    "pad_token_id": 1, "decoder_start_token_id": 2, "forced_eos_token_id": 2, "scale_embedding": True,
}  # fmt: skip
WAVES = {**BART, "pad_token_id": 95, "decoder_start_token_id": 95}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
OPENAI = {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
NEOX = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64,
}  # fmt: skip
MPT = {"vocab_size": 96, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64}
BLOOM = {"vocab_size": 96, "hidden_size": 32, "n_layer": 2, "n_head": 4}
WINDOWS = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}
GEMMA2 = {**LLAMA, "head_dim": 8, "query_pre_attn_scalar": 10, "sliding_window": 4}
MAMBA = {"vocab_size": 96, "hidden_size": 32, "state_size": 5, "num_hidden_layers": 2}
MAMBA2 = {**MAMBA, "num_heads": 8, "head_dim": 8, "n_groups": 2}

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", LLAMA),
    "llama-tied": ("LlamaForCausalLM", {**LLAMA, "tie_word_embeddings": True, "attention_bias": True, "head_dim": 16}),
    "llama-3": ("LlamaForCausalLM", {**LLAMA, "rope_parameters": LLAMA3, "mlp_bias": True}),
    "llama-sequence": ("LlamaForSequenceClassification", {**LLAMA, "num_labels": 3, "pad_token_id": 0}),
    "llama-token": ("LlamaForTokenClassification", {**LLAMA, "num_labels": 3}),
    "llama-bare": ("LlamaModel", LLAMA),
    "mamba": ("MambaForCausalLM", MAMBA),
    "mamba-untied": ("MambaForCausalLM", {**MAMBA, "tie_word_embeddings": False, "use_bias": True}),
    "mamba-bare": ("MambaModel", MAMBA),
    "mamba2": ("Mamba2ForCausalLM", {**MAMBA2, "time_step_limit": (0.0, 2.0)}),
    "mamba2-tied": ("Mamba2ForCausalLM", {**MAMBA2, "tie_word_embeddings": True, "use_conv_bias": False}),
    "mamba2-bare": ("Mamba2Model", MAMBA2),
    "mistral": ("MistralForCausalLM", {**LLAMA, "sliding_window": 5, "head_dim": 8}),
    "gpt2": ("GPT2LMHeadModel", GPT2),
    "gpt2-untied": ("GPT2LMHeadModel", {**GPT2, "tie_word_embeddings": False, "n_inner": 40}),
    "gpt2-bare": ("GPT2Model", GPT2),
    "gpt2-sequence": ("GPT2ForSequenceClassification", {**GPT2, "num_labels": 3, "pad_token_id": 0}),
    "gpt": ("OpenAIGPTLMHeadModel", OPENAI),
    "gpt-untied": ("OpenAIGPTLMHeadModel", {**OPENAI, "tie_word_embeddings": False, "afn": "silu"}),
    "gpt-sequence": ("OpenAIGPTForSequenceClassification", {**OPENAI, "num_labels": 3, "pad_token_id": 0}),
    "gpt-bare": ("OpenAIGPTModel", OPENAI),
    "gptneox": ("GPTNeoXForCausalLM", {**NEOX, "rope_parameters": {"partial_rotary_factor": 0.5}}),
    "gptneox-in-turn": ("GPTNeoXForCausalLM", {**NEOX, "use_parallel_residual": False, "attention_bias": False}),
    "gptneox-tied": ("GPTNeoXForCausalLM", {**NEOX, "tie_word_embeddings": True}),
    "gptneox-sequence": ("GPTNeoXForSequenceClassification", {**NEOX, "num_labels": 3, "pad_token_id": 0}),
    "gptneox-token": ("GPTNeoXForTokenClassification", {**NEOX, "num_labels": 3}),
    "gptneox-bare": ("GPTNeoXModel", NEOX),
    "mpt": ("MptForCausalLM", {**MPT, "attn_config": {"clip_qkv": 0.5, "softmax_scale": 0.2}}),
    "mpt-untied": ("MptForCausalLM", {**MPT, "tie_word_embeddings": False}),
    "mpt-sequence": ("MptForSequenceClassification", {**MPT, "num_labels": 3, "pad_token_id": 0}),
    "mpt-token": ("MptForTokenClassification", {**MPT, "num_labels": 3}),
    "mpt-bare": ("MptModel", MPT),
    "bloom": ("BloomForCausalLM", BLOOM),
    "bloom-untied": ("BloomForCausalLM", {**BLOOM, "tie_word_embeddings": False}),
    "bloom-sequence": ("BloomForSequenceClassification", {**BLOOM, "num_labels": 3, "pad_token_id": 0}),
    "bloom-token": ("BloomForTokenClassification", {**BLOOM, "num_labels": 3}),
    "bloom-bare": ("BloomModel", BLOOM),
    "qwen2": ("Qwen2ForCausalLM", LLAMA),
    "qwen2-windows": ("Qwen2ForCausalLM", {**LLAMA, **WINDOWS, "tie_word_embeddings": True}),
    "qwen2-sequence": ("Qwen2ForSequenceClassification", {**LLAMA, "num_labels": 3, "pad_token_id": 0}),
    "qwen2-bare": ("Qwen2Model", LLAMA),
    "qwen3": ("Qwen3ForCausalLM", {**LLAMA, "head_dim": 16}),
    "qwen3-biases": ("Qwen3ForCausalLM", {**LLAMA, **WINDOWS, "head_dim": 16, "attention_bias": True}),
    "qwen3-token": ("Qwen3ForTokenClassification", {**LLAMA, "head_dim": 8, "num_labels": 3}),
    "gemma2": ("Gemma2ForCausalLM", GEMMA2),
    "gemma2-untied": ("Gemma2ForCausalLM", {**GEMMA2, "tie_word_embeddings": False, "final_logit_softcapping": None}),
    "gemma2-sequence": ("Gemma2ForSequenceClassification", {**GEMMA2, "num_labels": 3, "pad_token_id": 0}),
    "gemma2-token": ("Gemma2ForTokenClassification", {**GEMMA2, "num_labels": 3}),
    "gemma2-bare": ("Gemma2Model", GEMMA2),
    "bert": ("BertModel", BERT),
    "bert-masked": ("BertForMaskedLM", BERT),
    "bert-sequence": ("BertForSequenceClassification", {**BERT, "num_labels": 3}),
    "bert-token": ("BertForTokenClassification", {**BERT, "num_labels": 5}),
    "bert-span": ("BertForQuestionAnswering", BERT),
    "roberta": ("RobertaModel", ROBERTA),
    "roberta-masked": ("RobertaForMaskedLM", ROBERTA),
    "roberta-sequence": ("RobertaForSequenceClassification", {**ROBERTA, "num_labels": 3}),
    "roberta-token": ("RobertaForTokenClassification", {**ROBERTA, "num_labels": 5}),
    "roberta-span": ("RobertaForQuestionAnswering", ROBERTA),
    "longformer": ("LongformerModel", LONGFORMER),
    "longformer-masked": ("LongformerForMaskedLM", LONGFORMER),
    "longformer-sequence": ("LongformerForSequenceClassification", {**LONGFORMER, "num_labels": 3}),
    "longformer-token": ("LongformerForTokenClassification", {**LONGFORMER, "num_labels": 5}),
    "bigbird": ("BigBirdModel", BIGBIRD),
    "bigbird-masked": ("BigBirdForMaskedLM", {**BIGBIRD, "attention_type": "original_full"}),
    "bigbird-sequence": ("BigBirdForSequenceClassification", {**BIGBIRD, "num_labels": 3}),
    "bigbird-token": ("BigBirdForTokenClassification", {**BIGBIRD, "num_labels": 5}),
    "xlm-roberta": ("XLMRobertaForMaskedLM", ROBERTA),
    "camembert": ("CamembertForMaskedLM", ROBERTA),
    "distilbert": ("DistilBertModel", DISTILBERT),
    "distilbert-masked": ("DistilBertForMaskedLM", DISTILBERT),
    "distilbert-sequence": ("DistilBertForSequenceClassification", {**DISTILBERT, "num_labels": 3}),
    "distilbert-token": ("DistilBertForTokenClassification", {**DISTILBERT, "num_labels": 5}),
    "distilbert-span": ("DistilBertForQuestionAnswering", DISTILBERT),
    "electra": ("ElectraModel", ELECTRA),
    "electra-discriminator": ("ElectraForPreTraining", ELECTRA),
    "electra-generator": ("ElectraForMaskedLM", {**ELECTRA, "embedding_size": 32}),
    "electra-masked": ("ElectraForMaskedLM", ELECTRA),
    "electra-sequence": ("ElectraForSequenceClassification", {**ELECTRA, "num_labels": 3}),
    "electra-token": ("ElectraForTokenClassification", {**ELECTRA, "num_labels": 5}),
    "electra-span": ("ElectraForQuestionAnswering", ELECTRA),
    "albert": ("AlbertModel", ALBERT),
    "albert-masked": ("AlbertForMaskedLM", {**ALBERT, "inner_group_num": 2}),
    "albert-sequence": ("AlbertForSequenceClassification", {**ALBERT, "num_labels": 3}),
    "albert-token": ("AlbertForTokenClassification", {**ALBERT, "num_labels": 5}),
    "albert-span": ("AlbertForQuestionAnswering", ALBERT),
    "modernbert": ("ModernBertModel", MODERNBERT),
    "modernbert-masked": ("ModernBertForMaskedLM", {**MODERNBERT, "mlp_bias": True}),
    "modernbert-sequence": ("ModernBertForSequenceClassification", {**MODERNBERT, "num_labels": 3}),
    "modernbert-token": ("ModernBertForTokenClassification", {**MODERNBERT, "num_labels": 5}),
    "modernbert-span": ("ModernBertForQuestionAnswering", MODERNBERT),
    "bart": ("BartForConditionalGeneration", BART),
    "bart-bare": ("BartModel", BART),
    "bart-span": ("BartForQuestionAnswering", BART),
    "mbart": ("MBartForConditionalGeneration", BART),
    "marian": ("MarianMTModel", WAVES),
    "pegasus": ("PegasusForConditionalGeneration", WAVES),
    "deberta": ("DebertaModel", DEBERTA),
    "deberta-masked": ("DebertaForMaskedLM", DEBERTA),
    "deberta-own-head": ("DebertaForMaskedLM", {**DEBERTA, "legacy": False}),
    "deberta-sequence": ("DebertaForSequenceClassification", {**DEBERTA, "num_labels": 3}),
    "deberta-token": ("DebertaForTokenClassification", {**DEBERTA, "num_labels": 5}),
    "deberta-span": ("DebertaForQuestionAnswering", DEBERTA),
    "deberta-v2": ("DebertaV2Model", {**DEBERTA_V2, "conv_kernel_size": 3, "conv_act": "gelu"}),
    "deberta-v2-unshared": ("DebertaV2Model", {**DEBERTA_V2, "share_att_key": False, "type_vocab_size": 2}),
    "deberta-v2-masked": ("DebertaV2ForMaskedLM", DEBERTA_V2),
    "deberta-v2-own-head": ("DebertaV2ForMaskedLM", {**DEBERTA_V2, "legacy": False}),
    "deberta-v2-sequence": ("DebertaV2ForSequenceClassification", {**DEBERTA_V2, "num_labels": 3}),
    "deberta-v2-token": ("DebertaV2ForTokenClassification", {**DEBERTA_V2, "num_labels": 5}),
    "deberta-v2-span": ("DebertaV2ForQuestionAnswering", DEBERTA_V2),
    "xlnet": ("XLNetLMHeadModel", XLNET),
    "xlnet-untied": ("XLNetLMHeadModel", {**XLNET, "tie_word_embeddings": False}),
    "xlnet-bare": ("XLNetModel", XLNET),
    "xlnet-sequence": ("XLNetForSequenceClassification", {**XLNET, "num_labels": 3}),
    "xlnet-token": ("XLNetForTokenClassification", {**XLNET, "num_labels": 5}),
    "xlnet-span": ("XLNetForQuestionAnsweringSimple", XLNET),
    "t5": ("T5ForConditionalGeneration", T5),
    "t5-unscaled": ("T5ForConditionalGeneration", {**T5, "scale_decoder_outputs": False}),
    "flan-t5": (
        "T5ForConditionalGeneration",
        {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "num_decoder_layers": 1},
    ),
    "mt5-tied": ("MT5ForConditionalGeneration", {**T5, "feed_forward_proj": "gated-gelu"}),
    "mt5": ("MT5ForConditionalGeneration", {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
}


def reference(name: str) -> Any:
    """A tiny model of the reference library with weights that are far from their initial nothing."""
    torch.manual_seed(len(name))
    kind, config = MODELS[name]
    model = getattr(hf, kind)(getattr(hf, kind).config_class(**config)).eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name not in (model._keys_to_ignore_on_save or ()):
                parameter.add_(torch.randn_like(parameter) * 0.3)
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.normal_()
        if not MODELS[name][1].get("tie_word_embeddings", True) and hasattr(model, "lm_head"):
            # the reference ties T5 whatever it is told, unless a checkpoint holds two different tables
            model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    return model


def saved(name: str, folder: Path, **options: Any) -> Any:
    """The same, written by the reference library."""
    model = reference(name)
    model.save_pretrained(folder, **options)
    return model


@torch.no_grad()
def answer(model: Any) -> Tensor:
    """What a model of the reference library says about fixed ids."""
    ids = torch.arange(2, 24).reshape(2, 11)
    extra = {"decoder_input_ids": ids.flip(1)} if model.config.is_encoder_decoder else {}
    out = model(input_ids=ids, **extra)
    if "start_logits" in out:
        return torch.stack([out.start_logits, out.end_logits], -1)
    return out.logits if "logits" in out else out.last_hidden_state


@torch.no_grad()
def our_answer(loaded: Loaded) -> Tensor:
    """What ours says about the same."""
    ids = torch.arange(2, 24).reshape(2, 11)
    return loaded.model(ids, ids.flip(1)) if isinstance(loaded.model, EncoderDecoder) else loaded.model(ids)


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())
