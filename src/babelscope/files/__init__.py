"""Files: written whole or not at all in one way, read strictly in one way. It loads neither torch nor safetensors."""
