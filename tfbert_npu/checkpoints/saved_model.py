"""Reading a TF2 SavedModel as data: its object graph, its variables, its assets. Nothing in it is run."""

from __future__ import annotations

import functools
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from tfbert_npu.checkpoints.checkpoint import read_variables
from tfbert_npu.errors import CheckpointError, require
from tfbert_npu.paths import file_inside

SAVED_MODEL = "saved_model.pb"
_VARIABLES = "variables/variables"

# Published BERTs have a saved_model.pb of 2 to 30 MB.
_MAX_BYTES = 512 * 2**20

# Every SavedModel has these in its saver; only in what a caller can reach do they harm.
_SAVER = frozenset(
    {
        "Save", "SaveV2", "SaveSlices", "Restore", "RestoreV2", "RestoreSlice", "MergeV2Checkpoints",
        "ShardedFilename", "ShardedFilespec",
    }
)  # fmt: skip


_TABLE_OF_FILE = "InitializeTableFromTextFileV2"


@functools.cache
def allowed_ops() -> frozenset[str]:
    """TensorFlow's operations that compute and nothing else.

    A list of what is allowed and not of what is refused: TensorFlow registers some 1 900 operations, the ones
    that touch files, the network, processes or Python have no mark, and each version brings new ones.
    """
    text = (files("tfbert_npu.checkpoints") / "allowed_ops.txt").read_text(encoding="utf-8")
    return frozenset(text.split())


@dataclass(frozen=True)
class SavedModel:
    """A parsed SavedModel.

    `meta_graph` is TensorFlow's MetaGraphDef, `nodes` the nodes of its SavedObjectGraph; node 0 is the root.
    """

    directory: Path
    meta_graph: Any

    @property
    def nodes(self) -> Any:
        """The nodes of the object graph."""
        return self.meta_graph.object_graph_def.nodes

    def child(self, node: int, name: str) -> int | None:
        """Number of the node's child of that name."""
        return next((c.node_id for c in self.nodes[node].children if c.local_name == name), None)

    def concrete_functions(self, node: int, name: str = "__call__") -> list[str]:
        """Names of the traces of a node's function."""
        function = self.child(node, name)
        if function is None or self.nodes[function].WhichOneof("kind") != "function":
            return []
        return list(self.nodes[function].function.concrete_functions)

    @functools.cached_property
    def functions(self) -> dict[str, Any]:
        """The graph's FunctionDefs by name."""
        return {f.signature.name: f for f in self.meta_graph.graph_def.library.function}

    def asset(self, name: str) -> Path | None:
        """The file behind an Asset that is an attribute of the root.

        Raises:
            CheckpointError: The file is missing, or its name leads out of the directory.
        """
        node = self.child(0, name)
        if node is None or self.nodes[node].WhichOneof("kind") != "asset":
            return None
        return self.asset_file(self.nodes[node].asset.asset_file_def_index)

    def asset_file(self, index: int) -> Path:
        """The file of an AssetFileDef, by its place in the list."""
        files = self.meta_graph.asset_file_def
        if not 0 <= index < len(files):
            raise CheckpointError(f"{self.directory / SAVED_MODEL} names an asset that it does not have")
        path = file_inside(self.directory / "assets", files[index].filename)
        if not path.is_file():
            raise CheckpointError(f"{path} is missing", "download the SavedModel again")
        return path

    def variables(self) -> dict[str, np.ndarray]:
        """Every variable under its name.

        A variable is found by its path of attributes in both object graphs, the SavedModel's and the
        checkpoint's, as TensorFlow's own loader does it; where two have one name, the first is taken.

        Raises:
            CheckpointError: A file of variables/ is missing, truncated or of another model.
        """
        from tensorflow.core.protobuf import trackable_object_graph_pb2

        prefix = self.directory / _VARIABLES
        (graph,) = read_variables(prefix, ["_CHECKPOINTABLE_OBJECT_GRAPH"]).values()
        saved = trackable_object_graph_pb2.TrackableObjectGraph()
        _parse(saved, graph.item(), Path(f"{prefix}.index"))
        keys: dict[str, str] = {}
        for mine, theirs in _walk_together(self.nodes, saved.nodes):
            if mine.WhichOneof("kind") != "variable":
                continue
            for attribute in theirs.attributes:
                if attribute.name == "VARIABLE_VALUE":
                    keys.setdefault(mine.variable.name, attribute.checkpoint_key)
        values = read_variables(prefix, keys.values())
        return {name: values[key] for name, key in keys.items()}

    def ops(self) -> Iterator[Any]:
        """Every node of every graph in the file."""
        yield from self.meta_graph.graph_def.node
        for function in self.functions.values():
            yield from function.node_def

    def refuse_dangerous_ops(self, allowed: Iterable[str] = ()) -> None:
        """Make sure that every graph of the file computes and does nothing else, see `allowed_ops`.

        Args:
            allowed: Names of other operations that are allowed as well.

        Raises:
            CheckpointError: Names the ops.
        """
        # A node may call one of the file's own functions by its name; their nodes are among all. No operation
        # of TensorFlow begins with two underscores, so that a function cannot pass one off as its own.
        harmless = allowed_ops() | {name for name in self.functions if name.startswith("__")}
        found = {node.op for node in self.ops()} - harmless - _SAVER
        if self._tables_are_of_assets():
            found.discard(_TABLE_OF_FILE)
        for function in self._callable():
            found |= {node.op for node in function.node_def} & _SAVER
        found -= frozenset(allowed)
        if found:
            names = ", ".join(sorted(found))
            raise CheckpointError(
                f"{self.directory} holds operations that run code or touch files on this machine ({names})",
                f"refuse it, or pass allow_ops={sorted(found)} if you know why it has them",
            )

    def _tables_are_of_assets(self) -> bool:
        """Whether every table that is read from a file is read from an asset of this SavedModel."""
        bound = {
            name: [self.nodes[index].WhichOneof("kind") for index in function.bound_inputs]
            for name, function in self.meta_graph.object_graph_def.concrete_functions.items()
        }
        if any(node.op == _TABLE_OF_FILE for node in self.meta_graph.graph_def.node):
            return False
        for name, function in self.functions.items():
            # What a function captures comes last among its arguments.
            captured = dict(
                zip(
                    reversed([argument.name for argument in function.signature.input_arg]),
                    reversed(bound.get(name, [])),
                    strict=False,
                )
            )
            for node in function.node_def:
                if node.op == _TABLE_OF_FILE and captured.get("".join(node.input[1:2])) != "asset":
                    return False
        return True

    def _callable(self) -> Iterator[Any]:
        """The functions that a caller of the loaded model can reach."""
        waiting = deque(self.meta_graph.object_graph_def.concrete_functions)
        seen: set[str] = set()
        while waiting:
            name = waiting.popleft()
            if name in seen or name not in self.functions:
                continue
            seen.add(name)
            yield self.functions[name]
            for node in self.functions[name].node_def:
                for value in node.attr.values():
                    waiting.extend([value.func.name] if value.func.name else [])
                    waiting.extend(function.name for function in value.list.func)


def read_saved_model(directory: Path) -> SavedModel:
    """Parse `saved_model.pb`.

    Raises:
        FileNotFoundError: There is none.
        CheckpointError: It is damaged, too large, or not a TF2 SavedModel.
    """
    require("tensorflow", "tf")
    from tensorflow.core.protobuf import saved_model_pb2

    path = directory / SAVED_MODEL
    if not path.is_file():
        raise FileNotFoundError(f"{directory} holds no {SAVED_MODEL}")
    if path.stat().st_size > _MAX_BYTES:
        raise CheckpointError(
            f"{path} is larger than {_MAX_BYTES >> 20} MiB, far beyond any BERT", "refuse it"
        )
    message = saved_model_pb2.SavedModel()
    _parse(message, path.read_bytes(), path)
    with_objects = [graph for graph in message.meta_graphs if graph.object_graph_def.nodes]
    if not with_objects:
        raise CheckpointError(
            f"{path} is no TF2 SavedModel: it has no object graph, as TF1's TF-Hub modules have none",
            "take a version of the model that was published for TensorFlow 2",
        )
    graph = with_objects[0]
    size = len(graph.object_graph_def.nodes)
    for node in graph.object_graph_def.nodes:
        if any(not 0 <= child.node_id < size for child in node.children):
            raise CheckpointError(f"{path} is damaged: its object graph refers to objects that it lacks")
    return SavedModel(directory, graph)


def _parse(message: Any, content: bytes, path: Path) -> None:
    from google.protobuf.message import DecodeError

    try:
        message.ParseFromString(content)
    except DecodeError as error:
        raise CheckpointError(f"{path} is damaged ({error})", "download it again") from error


def _walk_together(left: Any, right: Any) -> Iterator[tuple[Any, Any]]:
    """Nodes of two object graphs that are reached from the roots by the same attributes."""
    waiting = deque([(0, 0)])
    seen = {0}
    while waiting and len(right):
        one, other = waiting.popleft()
        yield left[one], right[other]
        there = {child.local_name: child.node_id for child in right[other].children}
        for child in left[one].children:
            match = there.get(child.local_name)
            if match is not None and match < len(right) and child.node_id not in seen:
                seen.add(child.node_id)
                waiting.append((child.node_id, match))


def layer_numbers(names: Mapping[str, Any] | Iterable[str]) -> set[int]:
    """The numbers of the encoder layers that variables or nodes name as `layer_3/`."""
    found = (re.search(r"(?:^|/)layer_(\d+)/", name) for name in names)
    return {int(match[1]) for match in found if match}
