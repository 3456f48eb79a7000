"""The one seam to transformers, accelerate and torch internals: every name of theirs that this library reads.

Such names change between releases. Each stands in `names.NAMES`, is looked up when a model is opened or a steering is
installed, and a missing one is a PrerequisiteError in one line. There are no soft defaults: a name that is read softly
gives a wrong result in silence when it is renamed, as `past_key_values` did in transformers 5.24.

Here: every name of another library that may change between releases.
Imports: nothing of the toolkit.
"""
