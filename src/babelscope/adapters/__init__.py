"""Foreign formats and libraries, one file each.

Here: one file per foreign format or library; what is read by name from transformers itself is in `upstream`.
Imports: artifacts, corpus, files, languages, models, probes, recording, sites, steering, subnetworks, upstream,
vocabulary.
"""
