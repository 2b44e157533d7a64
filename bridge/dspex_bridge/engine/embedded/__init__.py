"""The embedded models: small programs in a language model's place, for first runs and tests."""

from .knn import MODEL, AsyncKnnEngine, KnnEngine

__all__ = ["MODEL", "AsyncKnnEngine", "KnnEngine"]
