"""Small random encoders, and models that have one."""

import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    M2M100Config,
    M2M100ForConditionalGeneration,
    MT5Config,
    MT5EncoderModel,
    MT5ForConditionalGeneration,
    PreTrainedModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

SMALL = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def encoder_model(kind: str) -> PreTrainedModel:
    """BERT with its head, XLM-R without, mT5 whole and its encoder alone, and an NLLB."""
    torch.manual_seed(0)
    if kind == "bert":
        model = BertForMaskedLM(BertConfig(**SMALL, intermediate_size=48))
    elif kind == "xlm-roberta":
        model = XLMRobertaModel(XLMRobertaConfig(**SMALL, intermediate_size=48, pad_token_id=0))
    elif kind == "nllb":
        sizes = {"encoder_layers": 2, "decoder_layers": 1, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
        heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
        model = M2M100ForConditionalGeneration(
            M2M100Config(vocab_size=300, d_model=32, pad_token_id=0, **sizes, **heads)
        )
    else:
        config = MT5Config(vocab_size=300, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_decoder_layers=1, num_heads=2)
        model = (MT5ForConditionalGeneration if kind == "mt5" else MT5EncoderModel)(config)
    return model.eval()
