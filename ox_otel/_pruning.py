"""A tree within fewer nodes than it has: for backends that have a limit of their own."""

from collections.abc import Mapping

from ox_otel.recorders import TOKEN_LENGTH, Node


class Pruning:
    """Lets at most *limit* nodes through; what others use counts for the nearest above them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: dict[str, Node] = {}  # by path

    def retire(self, retired: Mapping[Node, Node]) -> None:
        """Let go of nodes that have ended; their heirs have their places."""
        for ended, heir in retired.items():
            if self._kept.pop(ended.path, None):
                self._kept[heir.path] = heir

    def prune(self, tree: Mapping[Node, int]) -> dict[Node, int]:
        """Return *tree*, which may be a part with the root, in nodes that are let through."""
        pruned: dict[Node, int] = {}
        for node, time in sorted(tree.items()):  # from the root upward
            path, parent = node.path, node.path[:-TOKEN_LENGTH]
            if len(self._kept) < self._limit and (not parent or parent in self._kept):
                self._kept[path] = node
            while path not in self._kept:
                path = path[:-TOKEN_LENGTH]
            home = self._kept[path]
            pruned[home] = pruned.get(home, 0) + time
        return pruned
