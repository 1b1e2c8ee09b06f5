"""Plain names and a fixed order in ONNX files that tf2onnx wrote.

It numbers names on from one conversion to the next, and the order of its nodes depends on the names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any


def with_plain_names(model: Any, axes: Sequence[str]) -> Any:
    """The `onnx.ModelProto`, changed in place: the same model gives the same file whatever was converted before.

    Nodes come in the order in which the outputs need them, and values and nodes are numbered as they appear. The
    graph's inputs and outputs keep their names.

    Args:
        model: the file.
        axes: names of the first axes of the inputs and outputs, where these are open.
    """
    graph = model.graph
    for value in (*graph.input, *graph.output):
        for dimension, axis in zip(value.type.tensor_type.shape.dim, axes, strict=False):
            if not dimension.HasField("dim_value"):
                dimension.dim_param = axis
    _order(graph)
    _rename(graph, {value.name: value.name for value in (*graph.input, *graph.output)})
    graph.name = "sequence"
    model.doc_string = model.producer_version = ""
    used = {node.domain for node in _nodes(graph)}
    opsets = [opset for opset in model.opset_import if not opset.domain or opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    return model


def _order(graph: Any) -> None:
    """Put nodes in the order in which the outputs need them, inputs first; what nothing needs is left out."""
    for node in graph.node:
        for body in _bodies(node):
            _settle_copies(body)
            _order(body)
    nodes = list(graph.node)
    producers = {name: at for at, node in enumerate(nodes) for name in node.output if name}
    ordered: list[int] = []
    done: set[int] = set()
    # Each entry: a node, and what it needs that has not been looked at yet. No recursion: unrolled loops are deep.
    stack: list[tuple[int, Iterator[str]]] = [(-1, iter([value.name for value in graph.output]))]
    while stack:
        at, needed = stack[-1]
        found = next((producers[name] for name in needed if name in producers and producers[name] not in done), None)
        if found is not None:
            done.add(found)
            stack.append((found, iter(_needed(nodes[found]))))
        else:
            stack.pop()
            ordered.append(at)
    kept = [nodes[at] for at in ordered[:-1]]
    del graph.node[:]
    graph.node.extend(kept)


def _settle_copies(body: Any) -> None:
    """Let every reader of a copy read the original, and the first output that is a copy be the original.

    Where a loop gives a value twice, tf2onnx leaves it to chance which of the two is the copy.
    """
    from onnx import helper

    originals: dict[str, str] = {}
    nodes: list[Any] = body.node
    for node in nodes:
        _read_originals(node, originals)
        if node.op_type == "Identity":
            originals[node.output[0]] = node.input[0]
    made: set[str] = {name for node in nodes for name in node.output}
    given: set[str] = set()
    for at, value in enumerate(body.output):
        original = str(originals.get(value.name, value.name))
        if original in made and original not in given:
            value.name = original
        elif value.name in originals or value.name in given:
            value.name = f"{original}/copy_{at}"
            body.node.append(helper.make_node("Identity", [original], [value.name]))
        given.add(value.name)


def _read_originals(node: Any, originals: dict[str, str]) -> None:
    node.input[:] = [originals.get(name, name) for name in node.input]
    for body in _bodies(node):
        for inner in body.node:
            _read_originals(inner, originals)


def _needed(node: Any) -> list[str]:
    """Names that a node reads, those that its bodies read from outside included."""
    names = list(node.input)
    for body in _bodies(node):
        names += [name for inner in body.node for name in _needed(inner)]
        names += [value.name for value in body.output]
    return names


def _rename(graph: Any, names: dict[str, str]) -> None:
    """Number what the graph defines; `names` holds what was numbered before."""

    def plain(name: str) -> str:
        return names.setdefault(name, f"v{len(names)}") if name else name

    del graph.value_info[:]
    graph.doc_string = ""
    for value in graph.input:
        value.name = plain(value.name)
    for number, node in enumerate(graph.node):
        node.name, node.doc_string = f"{node.op_type}_{number}", ""
        node.input[:] = [plain(name) for name in node.input]
        for body in _bodies(node):
            _rename(body, names)
            body.name = f"body_{number}"
            for value in body.input:
                for dimension in value.type.tensor_type.shape.dim:
                    dimension.ClearField("dim_param")
            # Some conversions note these shapes, some do not; a runtime infers them anyway.
            for value in body.output:
                value.type.tensor_type.ClearField("shape")
        node.output[:] = [plain(name) for name in node.output]
    for value in graph.output:
        value.name = plain(value.name)
    for tensor in graph.initializer:
        tensor.name, tensor.doc_string = plain(tensor.name), ""
    constants = sorted(graph.initializer, key=lambda tensor: int(tensor.name[1:]))
    del graph.initializer[:]
    graph.initializer.extend(constants)


def _bodies(node: Any) -> list[Any]:
    """The subgraphs of a node: of `Loop`, `If` and `Scan`."""
    from onnx import AttributeProto

    single = [a.g for a in node.attribute if a.type == AttributeProto.GRAPH]
    return single + [body for a in node.attribute for body in a.graphs]


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for body in _bodies(node):
            yield from _nodes(body)
