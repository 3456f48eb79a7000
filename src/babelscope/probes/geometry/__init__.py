"""How languages lie to each other in the stream and in the embeddings: alignment, similarity, trees, subspaces."""
