"""Axis names used in every shape of this library, and the array types that carry them.

batch     one document in a batch
token     one position in a document
layer     transformer block, from 0
depth     place in the residual stream: 0 before the first block, i + 1 after block i
neuron    index at `mlp_gate` or `mlp_inner`
unit      index at any site: a neuron, a residual dimension, a router's expert
hidden    dimension of the residual stream
head      attention head
language  in the order of the artifact that holds the axis
shard     blake2b(document id) mod shards
document  in the order of the corpus
sentence  row of parallel text: the same content in every language
set       one language's neuron set, in the order of the NeuronSet
draw      one random control set or resample
expert    of a mixture of experts; top_k: places among those that a token was given to
row       of a batch in steering; a neuron's row of a weight matrix in subnetworks and kernels; a line of evidence
chosen    neurons that a set selects
vocab     entry of the vocabulary
"""

from jaxtyping import Bool, Float, Float32, Float64, Int, Int32, Int64
from torch import Tensor

__all__ = ["Bool", "Float", "Float32", "Float64", "Int", "Int32", "Int64", "Tensor"]
