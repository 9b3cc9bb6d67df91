"""From the nodes of a ``.pt2`` graph to the model form: checked names, pure operators, constants folded."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.fx import Graph, GraphModule, Node

from modelmend.errors import ModelRefused, ModelUnsupported
from modelmend.model.arguments import BadArgument, arrange, bind, symbol
from modelmend.model.fold import fold, folding
from modelmend.model.names import Names, Value
from modelmend.model.operators import (
    CHECKS,
    CONSTRUCTORS,
    IN_PLACE,
    OPERATORS,
    SYMBOLIC,
    aliases,
    in_place,
    refuse,
    refuse_training,
)  # fmt: skip

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
_MAX_DEGREE = 16
"""Largest power of the batch size in its arithmetic; squaring without end would fill the memory with one number."""
_SCATTERS: dict[str, OpOverload] = {
    "aten.slice.Tensor": torch.ops.aten.slice_scatter.default,
    "aten.select.int": torch.ops.aten.select_scatter.default,
}
_MOVES = ("aten.to.dtype_layout", "aten.to.device", "aten._to_copy.default")


class Builder:
    """Builds one graph node by node; every name that enters it has been checked.

    In-place operators become pure ones: later readers of what was written read the result. Where a view of the
    written memory is still read afterwards, or a parameter is written, the model is refused.

    Args:
        where: The file, for errors.
        dtypes: Element type by tensor name, as the file states them.
    """

    def __init__(self, where: object, dtypes: dict[str, torch.dtype]) -> None:
        self._where, self._dtypes = where, dtypes
        self._graph, self._root = Graph(), nn.Module()
        self._env = Names()
        self._input: Node | None = None
        self._memory: dict[Node, list[Node]] = {}
        self._stale: set[Node] = set()
        self._folded: dict[tuple[int, int], tuple[Tensor, Node]] = {}
        self._temporary: list[str] = []
        self._folding = folding()

    def parameter(self, name: str, fqn: str, tensor: Tensor, *, trainable: bool, persistent: bool = True) -> None:
        """Put a tensor under its dotted name and let ``name`` stand for it."""
        self._define(name, self._attribute(fqn, tensor, trainable=trainable, persistent=persistent))

    def constant(self, name: str, tensor: Tensor) -> None:
        """Let ``name`` stand for a tensor that the graph itself brings."""
        self._define(name, tensor)

    def input(self, name: str, shape: tuple[int | None, ...]) -> None:
        """The one input of the model; ``None`` marks an axis of any length, the batch first of all."""
        if self._input is not None:
            raise ModelUnsupported(
                "the model takes more than one input", where=self._where, field="signature",
                fix="export a wrapper whose forward takes one tensor",
            )  # fmt: skip
        node = self._graph.placeholder("x")
        node.meta["shape"], node.meta["dtype"] = shape, self._dtypes[name]
        self._define(name, node)
        self._input = node

    def node(self, entry: dict[str, Any], module: str) -> None:
        """Add one operator of the file, ``module`` being the dotted path of the layer that it belongs to."""
        target, inputs, outputs = entry["target"], entry["inputs"], entry["outputs"]
        if target in CHECKS:
            return
        if target in SYMBOLIC:
            operands = tuple(symbol(i["arg"], self._env) for i in inputs)
            if len(operands) != (1 if target == "_operator.neg" else 2):
                raise BadArgument("batch arithmetic with a wrong number of operands", field="graph")
            node = self._graph.call_function(SYMBOLIC[target], operands)
            node.meta["module"] = module
            degrees = [int(o.meta.get("degree", 1)) for o in operands if isinstance(o, Node)]
            node.meta["degree"] = sum(degrees) if target == "_operator.mul" else max(degrees, default=0)
            if node.meta["degree"] > _MAX_DEGREE:
                raise BadArgument("arithmetic on the batch size grows without end", field="graph")
            self._name_results(node, ["int"], outputs)
            return
        op = IN_PLACE.get(target) or OPERATORS.get(target)
        if op is None:
            raise refuse(str(target), self._where)
        values = bind(op, inputs, self._env, in_place(op) if target in IN_PLACE else None)
        refuse_training(op, values, self._where)
        written = next(iter(values.values())) if target in IN_PLACE else None
        result = self._operator(op, values, written)
        if isinstance(result, Node):
            result.meta.setdefault("module", module)
        self._name_results(result, [str(r.type) for r in op._schema.returns], outputs)

    def output(self, name: str) -> GraphModule:
        """Close the graph with its one output and make the module."""
        if self._input is None:
            raise ModelRefused("the model has no input", where=self._where, field="signature")
        self._graph.output(self._as_node(self._env[name]))
        for dead in reversed(self._graph.nodes):
            if not dead.users and dead.op == "call_function":
                self._graph.erase_node(dead)
        return self._module()

    def _operator(self, op: OpOverload, values: dict[str, Any], written: Value | None) -> Any:
        """Fold, rewrite or add one operator; ``written`` is what its in-place form would change."""
        op, values = self._rewritten(op, values)
        operands = [v for v in _leaves(values.values()) if isinstance(v, (Node, Tensor))]
        if str(op) in _MOVES:
            if values.get("dtype") is None:
                return values["self"]
            op, values = torch.ops.aten.to.dtype, {"self": values["self"], "dtype": values["dtype"]}
        if all(isinstance(v, Tensor) for v in operands) and (operands or str(op) in CONSTRUCTORS):
            return fold(op, values, written=isinstance(written, Tensor), meter=self._folding, where=self._where)
        if isinstance(written, Tensor) and self._env.shares_memory(written):
            raise self._shared_write(op)
        args, kwargs = arrange(op, {key: _map(value, self._as_node) for key, value in values.items()})
        node = self._graph.call_function(op, args, kwargs)
        if written is not None:
            node.meta["in_place"] = True
            self._overwrite(op, written, node)
        elif aliases(op):
            shared = self._memory.setdefault(operands[0], [operands[0]]) if isinstance(operands[0], Node) else []
            shared.append(node)
            self._memory[node] = shared
        return node

    def _rewritten(self, op: OpOverload, values: dict[str, Any]) -> tuple[OpOverload, dict[str, Any]]:
        """Tensors of fixed size need no input; those of batch size are made where the input is."""
        _, packet, overload = str(op).split(".")
        if str(op) not in CONSTRUCTORS or overload != "default":
            return op, values
        symbolic = any(isinstance(v, Node) for key, v in values.items() if key != "self") or any(
            isinstance(v, Node) for v in values.get("size") or ()
        )
        if packet.startswith("new_") and not symbolic:
            like = values.pop("self")
            known = like.dtype if isinstance(like, Tensor) else like.meta.get("dtype")
            values = {"dtype": known, **values}
            return getattr(torch.ops.aten, packet.removeprefix("new_")).default, values
        if packet in ("zeros", "ones") and symbolic:
            values = {"dtype": torch.float32, **values, "self": self._input}
            return getattr(torch.ops.aten, f"new_{packet}").default, values
        return op, values

    def _overwrite(self, op: OpOverload, written: Value, node: Node) -> None:
        if isinstance(written, Node):
            shared = self._memory.get(written, [written])
            if any(n.op == "get_attr" for n in shared):
                raise ModelUnsupported(
                    f"the model changes its own parameters while it runs ({op})", where=self._where, field="graph"
                )
            self._stale.update(n for n in shared if n is not written)
            self._scatter(written, node)
        self._env.replace(written, node)

    def _scatter(self, part: Node, changed: Node) -> None:
        """What was written was a slice: the tensors that it was cut from are read with the change put back."""
        while (scatter := _SCATTERS.get(str(part.target))) and isinstance(whole := part.args[0], Node):
            node = self._graph.call_function(scatter, (whole, changed, *part.args[1:]))
            node.meta["module"] = part.meta.get("module", "")
            shared = self._memory.setdefault(changed, [changed])
            shared.append(node)
            self._memory[node] = shared
            self._env.replace(whole, node)
            part, changed = whole, node

    def _shared_write(self, op: object) -> ModelUnsupported:
        return ModelUnsupported(
            f"a tensor is changed in place while a view of it is still in use ({op})", where=self._where, field="graph",
            fix="use the operator that returns a new tensor",
        )  # fmt: skip

    def _name_results(self, result: Any, returns: list[str], outputs: list[Any]) -> None:
        """Let the names that the file gives to a node's outputs stand for its results."""
        if len(outputs) != len(returns):
            raise BadArgument("a node has a wrong number of outputs", field="graph")
        for index, (entry, kind) in enumerate(zip(outputs, returns, strict=True)):
            ((form, value),) = entry.items()
            part = result if len(returns) == 1 else self._item(result, index)
            if kind == "int" and form == "as_sym_int" and isinstance(part, Node):
                part.meta["symbolic"] = True
                self._define(value["as_name"], part)
            elif kind == "List[Tensor]" and form == "as_tensors":
                for position, one in enumerate(value):
                    self._define(one["name"], self._item(part, position))
            elif kind == "Tensor" and form == "as_tensor":
                self._define(value["name"], part)
            elif not (kind == "Tensor" and form == "as_none"):
                raise BadArgument(f"an output of a node is no {kind}", field="graph")

    def _item(self, result: Any, index: int) -> Value:
        if not isinstance(result, Node):
            item: Tensor = result[index]
            return item
        node = self._graph.call_function(operator.getitem, (result, index))
        node.meta["module"] = result.meta.get("module", "")
        shared = self._memory.setdefault(result, [result])
        shared.append(node)
        self._memory[node] = shared
        return node

    def _define(self, name: object, value: Value) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in self._env:
            raise BadArgument(f"a value has an odd name or one that is taken: {str(name)[:80]!r}", field="graph")
        if isinstance(value, Node) and name in self._dtypes:
            value.meta.setdefault("dtype", self._dtypes[name])
        self._env.define(name, value)

    def _as_node(self, value: Value) -> Node:
        """The node of a value; a known tensor becomes a buffer of its present content."""
        if isinstance(value, Node):
            if value in self._stale:
                raise self._shared_write(value.target)
            return value
        key = (id(value), value._version)
        if key not in self._folded:
            fqn = f"_folded_{len(self._folded)}"
            node = self._attribute(fqn, value.clone(), trainable=False, persistent=False)
            self._folded[key] = (value, node)
        return self._folded[key][1]

    def _attribute(self, fqn: str, tensor: Tensor, *, trainable: bool, persistent: bool) -> Node:
        place = self._root
        *path, leaf = fqn.split(".")
        try:
            for part in path:
                if part not in place._modules:
                    place.add_module(part, nn.Module())
                place = place.get_submodule(part)
            if trainable:
                place.register_parameter(leaf, nn.Parameter(tensor, requires_grad=tensor.is_floating_point()))
            else:
                place.register_buffer(leaf, tensor, persistent=persistent)
        except (KeyError, AttributeError) as error:
            raise ModelRefused("two tensors claim one name", where=self._where, field=fqn) from error
        if not persistent:
            self._temporary.append(fqn)
        return self._graph.create_node("get_attr", fqn)

    def _module(self) -> GraphModule:
        """The finished module: all named tensors, also those that the graph does not read, in eval mode."""
        module = GraphModule(self._root, self._graph)
        for fqn in self._temporary:
            path, _, leaf = fqn.rpartition(".")
            module.get_submodule(path)._non_persistent_buffers_set.add(leaf)
        for node in reversed(module.graph.nodes):
            if node.op == "get_attr" and not node.users:
                module.graph.erase_node(node)
        module.graph.lint()
        module.recompile()
        return module.eval()


def _leaves(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list):
            yield from _leaves(value)
        else:
            yield value


def _map(value: Any, change: Callable[[Value], Node]) -> Any:
    if isinstance(value, list):
        return [_map(v, change) for v in value]
    return change(value) if isinstance(value, (Node, Tensor)) else value
