"""The names themselves, what each is called in which release, and the error where none of them is there."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

from babelscope.errors import PrerequisiteError

NAMES: dict[str, tuple[str, ...]] = {
    # Arguments of a model's forward.
    "forward.ids": ("input_ids",),
    "forward.embeds": ("inputs_embeds",),
    "forward.mask": ("attention_mask",),
    "forward.positions": ("position_ids",),
    # `past_key_values` until 5.23, `cache` from 5.24.
    "forward.cache": ("cache", "past_key_values"),
    "forward.use_cache": ("use_cache",),
    # Arguments of the modules inside.
    "block.hidden": ("hidden_states",),
    "experts.chosen": ("top_k_index",),
    "experts.weights": ("top_k_weights",),
    # gpt-oss's bounds of gate and up, and the slope of its gate.
    "experts.limit": ("limit",),
    "experts.slope": ("alpha",),
    # How near the best score another must be for Phi-MoE's router to weigh them together.
    "router.slack": ("router_jitter_noise",),
    "attention.scale": ("scaling",),
    "attention.window": ("sliding_window",),
    "attention.softcap": ("softcap",),
    "attention.layer": ("layer_idx",),
    # Fields of what a forward returns.
    "output.hidden": ("last_hidden_state",),
    "output.logits": ("logits",),
    # `past_key_values` until 5.23, `cache` from 5.24.
    "output.cache": ("cache", "past_key_values"),
    "output.states": ("hidden_states",),
    # The argument of an encoder's forward that asks for them; where a decorator takes it, no signature has it.
    "encoder.states": ("output_hidden_states",),
    # Methods of a cache.
    "cache.length": ("get_seq_length",),
    "cache.select": ("batch_select_indices",),
    # The class of the cache of continuous batching.
    "cache.paged": ("PagedAttentionCache",),
    # Keywords of `generate`.
    "generate.disable_compile": ("disable_compile",),
    "generate.processors": ("logits_processor",),
    # Fields of a model's configuration.
    "config.type": ("model_type",),
    "config.layers": ("num_hidden_layers",),
    "config.hidden": ("hidden_size",),
    "config.heads": ("num_attention_heads",),
    "config.vocabulary": ("vocab_size",),
    "config.positions": ("max_position_embeddings",),
    "config.parallel": ("use_parallel_residual",),
    "config.norm_first": ("do_layer_norm_before",),
    "config.tensor_parallel": ("pretraining_tp",),
    "config.slow_but_exact": ("slow_but_exact",),
    "config.name": ("_name_or_path",),
    "config.commit": ("_commit_hash",),
    "config.attention": ("_attn_implementation",),
    "config.architectures": ("architectures",),
    "config.encoder_decoder": ("is_encoder_decoder",),
    "config.grouping": ("_experts_implementation",),
    "config.text": ("get_text_config",),
    "config.tied": ("tie_word_embeddings",),
    "config.dtype": ("dtype",),
    "config.mlp_biases": ("mlp_bias",),
    "config.attention_biases": ("attention_bias",),
    "config.llama": ("LlamaConfig",),
    "config.width": ("intermediate_size",),
    "config.head_width": ("head_dim",),
    # Fields of a mixture of experts whose first layers are dense.
    "config.qwen2_moe": ("Qwen2MoeConfig",),
    "config.qwen3_moe": ("Qwen3MoeConfig",),
    "config.experts": ("num_experts",),
    "config.chosen_experts": ("num_experts_per_tok",),
    "config.expert_width": ("moe_intermediate_size",),
    "config.shared_width": ("shared_expert_intermediate_size",),
    "config.shares": ("norm_topk_prob",),
    "config.dense_layers": ("mlp_only_layers",),
    "config.sparse_step": ("decoder_sparse_step",),
    "config.query_biases": ("qkv_bias",),
    # Methods and marks of a model.
    "model.head": ("get_output_embeddings",),
    "model.decoder": ("get_decoder",),
    "model.encoder": ("get_encoder",),
    "model.body": ("base_model",),
    "model.renamings": ("_weight_conversions",),
    "model.group_experts": ("set_experts_implementation",),
    "model.attention_backend": ("_supports_attention_backend",),
    "model.embedding": ("get_input_embeddings",),
    "model.generation": ("generation_config",),
    "experts.gated_product": ("_apply_gate",),
    "loading.missing": ("missing_keys",),
    "loading.surplus": ("unexpected_keys",),
    # Registries and helpers.
    "transformers.encoders": ("MODEL_FOR_MASKED_LM_MAPPING_NAMES",),
    "transformers.text_encoders": ("MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES",),
    "transformers.writers": ("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",),
    "transformers.writing_wrappers": ("MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES",),
    "transformers.mxfp4": ("Mxfp4Config",),
    "transformers.fp8": ("FineGrainedFP8Config",),
    "transformers.conv1d": ("Conv1D",),
    "transformers.files": ("cached_file",),
    "tokenizer.backend": ("backend_tokenizer",),
    "tokenizer.fast": ("is_fast",),
    "transformers.utils.logging": ("disable_progress_bar",),
    "transformers.modeling_utils": ("ALL_ATTENTION_FUNCTIONS",),
    "transformers.masking_utils": ("ALL_MASK_ATTENTION_FUNCTIONS",),
    "transformers.masking_utils.sdpa": ("sdpa_mask",),
    "transformers.rope.update": ("dynamic_rope_update",),
    "rope.kind": ("rope_type",),
    "server.models": ("ModelManager",),
    "server.state": ("GenerationState",),
    "server.kind": ("Modality",),
    "server.build": ("build_server",),
    "server.chat_completion": ("ChatCompletionHandler",),
    "server.completion": ("CompletionHandler",),
    "server.response": ("ResponseHandler",),
    "server.transcription": ("TranscriptionHandler",),
    "server.systemone": ("SystemOneHandler",),
    "accelerate.empty": ("init_empty_weights",),
    "accelerate.hooks.device": ("AlignDevicesHook",),
    "accelerate.hooks.sequence": ("SequentialHook",),
    "accelerate.hooks.place": ("execution_device",),
    "accelerate.utils.fetch": ("align_module_device",),
    "accelerate.hooks.add": ("add_hook_to_module",),
    "accelerate.hooks.plain": ("ModelHook",),
    "peft.tuner": ("BaseTuner",),
    "peft.layer": ("BaseTunerLayer",),
    "peft.configs": ("PEFT_TYPE_TO_CONFIG_MAPPING",),
    "peft.tuners": ("PEFT_TYPE_TO_TUNER_MAPPING",),
    "peft.prefixes": ("PEFT_TYPE_TO_PREFIX_MAPPING",),
    "torch._dynamo.utils": ("counters",),
    "torch._dynamo.module": ("OptimizedModule",),
    "torch._dynamo.origin": ("innermost_fn",),
    # A mark on a module. One without it is the ordinary case, so it is first looked for on a module that was given one.
    "mark.accelerate": ("_hf_hook",),
    "torch.nn.compiled_call": ("_compiled_call_impl",),
}
"""What a thing is called upstream, the newest name first; the keys are this library's own."""


def release(library: str) -> str:
    """Installed release of a library, with its name."""
    try:
        return f"{library} {version(library)}"
    except PackageNotFoundError:
        return f"{library}, which is not installed"


def supported(library: str) -> str:
    """The releases this library was tested with, as its own metadata gives them."""
    try:
        lines = requires("babelscope") or []
    except PackageNotFoundError:
        lines = []
    requirements = [line.split(";")[0].strip() for line in lines if line.startswith(library) and "extra ==" not in line]
    return requirements[0] if requirements else library


def missing_name(key: str, owner: str, library: str = "transformers") -> PrerequisiteError:
    """The one line for a name that is not there."""
    expected = " or ".join(repr(name) for name in NAMES[key])
    return PrerequisiteError(
        f"{release(library)}: {owner} has no {expected} (for {key}); expected a release in which it has; install one "
        f"that babelscope was tested with ({supported(library)}; the README says up to which), and report this one"
    )


def attribute(owner: Any, key: str, *, library: str = "transformers") -> Any:
    """The attribute of an object that has one of a key's names."""
    for name in NAMES[key]:
        if hasattr(owner, name):
            return getattr(owner, name)
    raise missing_name(key, owner.__name__ if isinstance(owner, type) else f"a {type(owner).__name__}", library)


def imported(module: str, key: str) -> Any:
    """A name of a module of another library."""
    library = module.split(".")[0]
    try:
        return attribute(import_module(module), key, library=library)
    except ImportError as err:
        raise missing_name(key, f"module {module}", library) from err
    except PrerequisiteError:
        raise missing_name(key, f"module {module}", library) from None


def parameter_name(parameters: Any, key: str, owner: str) -> str:
    """Which of a key's names a function takes."""
    for name in NAMES[key]:
        if name in parameters:
            return name
    raise missing_name(key, owner)
