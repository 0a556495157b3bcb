"""Tiny models of many families, built from their configurations: sizes that coincide where real ones do."""

from __future__ import annotations

from typing import Any

# vocab 96; hidden 32 = max_position_embeddings of some; intermediate 48
_LLAMA: dict[str, Any] = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
                          "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
                          "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_SQUARE = {**_LLAMA, "max_position_embeddings": 32}  # like LLaMA 2 7B: positions = hidden size
_MLP = {**_LLAMA, "max_position_embeddings": 48}  # positions = intermediate size
_TIED = {**_LLAMA, "tie_word_embeddings": True, "vocab_size": 48}  # words = intermediate size
_EXPERTS = {**_LLAMA, "num_experts": 4, "num_local_experts": 4, "moe_intermediate_size": 16, "num_experts_per_tok": 2,
            "shared_expert_intermediate_size": 24, "decoder_sparse_step": 1}
_BERT = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
         "num_attention_heads": 4, "max_position_embeddings": 32, "type_vocab_size": 2}
_VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
           "image_size": 16, "patch_size": 8}

# class of the model, class of its configuration, what the configuration is given
ZOO: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", _LLAMA),
    "llama, positions = hidden": ("LlamaForCausalLM", "LlamaConfig", _SQUARE),
    "llama, positions = intermediate": ("LlamaForCausalLM", "LlamaConfig", _MLP),
    "llama, tied, words = intermediate": ("LlamaForCausalLM", "LlamaConfig", _TIED),
    "llama, no head": ("LlamaModel", "LlamaConfig", _SQUARE),
    "llama, classifier": ("LlamaForSequenceClassification", "LlamaConfig", _SQUARE),
    "mistral": ("MistralForCausalLM", "MistralConfig", _SQUARE),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", _SQUARE),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", {**_SQUARE, "head_dim": 8}),
    "gemma": ("GemmaForCausalLM", "GemmaConfig", {**_SQUARE, "head_dim": 8}),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", {**_SQUARE, "head_dim": 8}),
    "phi": ("PhiForCausalLM", "PhiConfig", _SQUARE),
    "phi3": ("Phi3ForCausalLM", "Phi3Config", _SQUARE),
    "starcoder2": ("Starcoder2ForCausalLM", "Starcoder2Config", _SQUARE),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4,
                                               "n_positions": 96, "bos_token_id": 1, "eos_token_id": 2}),
    "gpt_bigcode": ("GPTBigCodeForCausalLM", "GPTBigCodeConfig",
                    {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32,
                     "bos_token_id": 1, "eos_token_id": 2}),
    "gpt_neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", {**_BERT, "bos_token_id": 1, "eos_token_id": 2}),
    "gptj": ("GPTJForCausalLM", "GPTJConfig", {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4,
                                               "n_positions": 32, "rotary_dim": 4, "bos_token_id": 1,
                                               "eos_token_id": 2}),
    "opt": ("OPTForCausalLM", "OPTConfig", {"vocab_size": 96, "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2,
                                            "num_attention_heads": 4, "max_position_embeddings": 32,
                                            "word_embed_proj_dim": 16}),
    "bloom": ("BloomForCausalLM", "BloomConfig", {"vocab_size": 96, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "falcon": ("FalconForCausalLM", "FalconConfig", {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2,
                                                     "num_attention_heads": 4}),
    "bert": ("BertModel", "BertConfig", _BERT),
    "bert, masked": ("BertForMaskedLM", "BertConfig", _BERT),
    "bert, classifier": ("BertForSequenceClassification", "BertConfig", _BERT),
    "roberta": ("RobertaForMaskedLM", "RobertaConfig", _BERT),
    "deberta": ("DebertaV2Model", "DebertaV2Config", {**_BERT, "relative_attention": True, "pos_att_type": ["c2p"],
                                                      "position_buckets": 16, "type_vocab_size": 0}),
    "distilbert": ("DistilBertForQuestionAnswering", "DistilBertConfig",
                   {"vocab_size": 96, "dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4,
                    "max_position_embeddings": 32}),
    "vit": ("ViTForImageClassification", "ViTConfig", _VISION),
    "t5": ("T5ForConditionalGeneration", "T5Config", {"vocab_size": 96, "d_model": 32, "d_kv": 8, "d_ff": 48,
                                                      "num_layers": 2, "num_heads": 4}),
    "bart": ("BartForConditionalGeneration", "BartConfig",
             {"vocab_size": 96, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4,
              "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
              "max_position_embeddings": 32}),
    "whisper": ("WhisperForConditionalGeneration", "WhisperConfig",
                {"vocab_size": 96, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1,
                 "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48,
                 "decoder_ffn_dim": 48, "max_source_positions": 32, "max_target_positions": 48, "num_mel_bins": 8,
                 "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}),
    "clip": ("CLIPModel", "CLIPConfig", {"text_config": {**_BERT, "projection_dim": 24},
                                         "vision_config": {**_VISION, "projection_dim": 24}, "projection_dim": 24}),
    "mixtral": ("MixtralForCausalLM", "MixtralConfig", _EXPERTS),
    "qwen2_moe": ("Qwen2MoeForCausalLM", "Qwen2MoeConfig", _EXPERTS),
    "qwen3_moe": ("Qwen3MoeForCausalLM", "Qwen3MoeConfig", {**_EXPERTS, "head_dim": 8}),
    "olmoe": ("OlmoeForCausalLM", "OlmoeConfig", _EXPERTS),
    "gpt_oss": ("GptOssForCausalLM", "GptOssConfig", {**_EXPERTS, "head_dim": 8,
                                                      "layer_types": ["full_attention"] * 2}),
    "mamba": ("MambaForCausalLM", "MambaConfig", {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2,
                                                  "state_size": 4}),
}


def build(name: str) -> Any:
    """The model of a family, with random weights."""
    import torch
    import transformers

    model, config, given = ZOO[name]
    torch.manual_seed(0)
    return getattr(transformers, model)(getattr(transformers, config)(**given)).eval()
