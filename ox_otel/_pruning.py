"""A batch in fewer functions and nodes than it has: for backends that have limits of their own."""

from collections.abc import Mapping
from dataclasses import replace

from ox_otel.recorders import NOTHING, REST, TOKEN_LENGTH, Batch, Function, Node, Usage


class Pruning:
    """Lets at most so many *functions* and *nodes* through; the first ones stay.

    What other functions used counts under `REST`, where a stack with several of them counts
    several times but for its self figures. What other nodes used counts for the nearest above.
    """

    def __init__(self, functions: int, nodes: int) -> None:
        self._limits = functions, nodes
        self._functions = {REST}
        self._nodes: dict[str, Node] = {}  # by path

    def retire(self, batch: Batch) -> None:
        """Let go of what ends with *batch*; heirs have the places of those that had one."""
        for ended, heir in batch.retired.items():
            if ended in self._functions:
                self._functions.remove(ended)
                self._functions.add(heir)
        for node, its_heir in batch.retired_nodes.items():
            if self._nodes.pop(node.path, None):
                self._nodes[its_heir.path] = its_heir

    def prune(self, batch: Batch) -> Batch:
        """Return *batch* in what is let through."""
        functions, tree = self._pruned(batch.functions), self._pruned_tree(batch.tree)
        exemplars = {f: e for f, e in batch.exemplars.items() if f in self._functions}
        return replace(batch, functions=functions, tree=tree, exemplars=exemplars)

    def _pruned(self, functions: Mapping[Function, Usage]) -> dict[Function, Usage]:
        pruned: dict[Function, Usage] = {}
        for function, usage in functions.items():
            if len(self._functions) < self._limits[0]:
                self._functions.add(function)
            home = function if function in self._functions else REST
            pruned[home] = pruned.get(home, NOTHING).plus(usage)
        return pruned

    def _pruned_tree(self, tree: Mapping[Node, int]) -> dict[Node, int]:
        """Return *tree*, which may be a part with the root, in nodes that are let through."""
        pruned: dict[Node, int] = {}
        for node, time in sorted(tree.items()):  # from the root upward
            path, parent = node.path, node.path[:-TOKEN_LENGTH]
            if len(self._nodes) < self._limits[1] and (not parent or parent in self._nodes):
                self._nodes[path] = node
            while path not in self._nodes:
                path = path[:-TOKEN_LENGTH]
            home = self._nodes[path]
            pruned[home] = pruned.get(home, 0) + time
        return pruned
