"""Files: written whole or not at all in one way, read strictly in one way. It loads neither torch nor safetensors.

Here: writing, reading and interrupted work, whatever is in the files.
Imports: nothing of the toolkit.
"""
