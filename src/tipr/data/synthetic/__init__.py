"""Rendered people: attributes, the renderer, captions in four languages and the benchmark built from them."""
