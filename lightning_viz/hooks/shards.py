"""Models whose parameters are sharded over processes: FSDP2 between passes, and tensors that are gathered.

Everything here does nothing on a model that is whole, and imports nothing of torch's that the model has not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from lightning_viz.errors import ObservationError
from lightning_viz.hooks.pytree import first_tensor

_gather_into = getattr(torch.distributed, "all_gather_single", None) or torch.distributed.all_gather_into_tensor


def is_sharded(model: nn.Module) -> bool:
    """Whether a process holds only a part of a parameter, so that passes are collective: all processes must run them.

    Args:
        model: any module.
    """
    return bool(_fsdp_states(model)) or any(map(is_distributed, model.parameters()))


def is_distributed(tensor: Any) -> bool:
    """Whether a tensor lies on several processes (a DTensor)."""
    kind = getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", None)
    return kind is not None and isinstance(tensor, kind)


def whole(tensor: Tensor) -> Tensor:
    """A tensor gathered from all processes, which all must call; one that is whole as it is.

    Args:
        tensor: any.
    """
    if not is_distributed(tensor):
        return tensor
    parts: Any = tensor
    if not tensor.requires_grad and parts.device_mesh.ndim == 1 and parts.placements[0].is_shard(0):
        own = parts.to_local().contiguous()
        if own.shape[0] * parts.device_mesh.size() == tensor.shape[0]:  # without a copy of the whole on the way
            gathered: Tensor = own.new_empty(tensor.shape)
            _gather_into(gathered, own, group=parts.device_mesh.get_group())
            return gathered
    return parts.full_tensor()  # type: ignore[no-any-return]


def own_part(tensor: Tensor) -> Tensor:
    """The part of a tensor that lies on this process, in the same memory; one that is whole as it is.

    Args:
        tensor: any.
    """
    return tensor._local_tensor if is_distributed(tensor) else tensor  # type: ignore[attr-defined]


def arrive(tensor: Tensor) -> Tensor:
    """A tensor that is on its way from other processes has come; it is returned, gathered where it is distributed.

    Args:
        tensor: any.
    """
    wait = getattr(tensor, "trigger_wait", None)  # of an AsyncCollectiveTensor
    if wait is not None:
        wait()
    return whole(tensor)


# FSDP2.


def _fsdp_states(model: nn.Module) -> list[Any]:
    """The states that FSDP2 keeps of a model's modules, each once."""
    kind = getattr(sys.modules.get("torch.distributed.fsdp"), "FSDPModule", None)
    if kind is None or not torch.distributed.is_initialized():
        return []
    states = [module._get_fsdp_state() for module in model.modules() if isinstance(module, kind)]
    return list({id(state): state for state in states}.values())


def _groups(state: Any) -> list[Any]:
    """The groups of parameters of one of FSDP2's states, each gathered together."""
    groups = getattr(state, "_fsdp_param_groups", None)
    return [group for group in ([state._fsdp_param_group] if groups is None else groups) if group is not None]


def fsdp_records(model: nn.Module) -> list[Any]:
    """The objects in which FSDP2 keeps how far a pass is: their attributes change with each.

    Args:
        model: any module.
    """
    records: dict[int, Any] = {}
    for state in _fsdp_states(model):
        groups = _groups(state)
        for part in (state, state._state_ctx, state._comm_ctx, *groups, *(group.comm_ctx for group in groups)):
            records[id(part)] = part
    return list(records.values())


def settle(model: nn.Module) -> None:
    """Have each process hold its own parts of parameters again, also after a pass that was not finished.

    What is gathered for one more pass, as FSDP2's outermost module stays after one without a backward, is let go of.
    Nothing is sent.

    Args:
        model: any module, not in the midst of a pass.
    """
    for state in _fsdp_states(model):
        idle = type(state._training_state).IDLE
        for group in _groups(state):
            _wait_for_gathering(group)
            group._training_state = idle
            group.reshard()
        state._training_state = idle
        state._state_ctx.iter_forward_root = None
        state._state_ctx.post_backward_final_callback_queued = False


IN_PLACE = "_sharded_state"
"""Of a group of parameters, whether they are gathered: an attribute that goes with what its modules hold."""


def gathered_groups(model: nn.Module) -> set[int]:
    """The groups of parameters that FSDP2 holds gathered, by their ids.

    Args:
        model: between passes.
    """
    return {id(group) for state in _fsdp_states(model) for group in _groups(state) if not group.is_sharded}


def keep_in_place(model: nn.Module, gathered: set[int]) -> None:
    """See that modules hold the parameters that FSDP2 takes them to hold, and that no more are gathered than before.

    What has been sharded meanwhile stays so, because nothing is sent: passes did it, on all processes alike.

    Args:
        model: whose modules' attributes have been restored.
        gathered: groups of parameters that were gathered then.
    """
    for state in _fsdp_states(model):
        for group in _groups(state):
            if not group.is_sharded and id(group) not in gathered:
                _wait_for_gathering(group)
                group._training_state = type(state._training_state).IDLE
                group.reshard()
            for parameter in group.fsdp_params if group.is_sharded or group.is_unsharded else ():
                held = parameter.sharded_param if group.is_sharded else parameter._unsharded_param
                parameter._setattr_on_modules(held)


def owned_parameters(model: nn.Module) -> dict[int, nn.Parameter]:
    """By the id of a parameter that is gathered for a pass, the one that the optimizer has.

    Args:
        model: between passes.
    """
    return {
        id(parameter._unsharded_param): parameter.sharded_param
        for state in _fsdp_states(model)
        for group in _groups(state)
        if group.is_unsharded
        for parameter in group.fsdp_params
    }


def _wait_for_gathering(group: Any) -> None:
    """Let what a group of parameters has begun to gather arrive, and drop it."""
    result, group._all_gather_result = group._all_gather_result, None
    if result is None:
        return
    if result.all_gather_event is not None:
        group.device_handle.current_stream().wait_event(result.all_gather_event)
    wait = getattr(result.all_gather_work, "wait", None)
    if wait is not None:
        wait()


def economize(model: nn.Module) -> None:
    """Have FSDP2 send no gradients, which may be those of training that wait for another batch, and gather late.

    What it gathers ahead of time speeds up training, and holds two more layers in memory. Undone by `preserve_state`.

    Args:
        model: any module.
    """
    for state in _fsdp_states(model):
        state._states_to_forward_prefetch = []
        state._states_to_backward_prefetch = [state]  # none by default means the layer before
        for group in _groups(state):
            group.reduce_grads, group.unshard_async_op = False, True


# Tensor parallelism.


def _split_modules(model: nn.Module) -> dict[nn.Module, Any]:
    """Modules that compute with a part of their parameters, and the mesh of the processes that share them."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return {}
    data_meshes = {
        id(parameter.sharded_param): group.mesh_info.mesh
        for state in _fsdp_states(model)
        for group in _groups(state)
        for parameter in group.fsdp_params
    }
    split = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if is_distributed(parameter) and (mesh := _sharing(parameter, data_meshes.get(id(parameter)))) is not None:
                split[module] = mesh
    return split


def _sharing(parameter: Any, data: Any) -> Any:
    """The mesh of the processes that compute with one part each, by that over which FSDP2 gathers them; or None."""
    mesh = parameter.device_mesh
    if data is None:
        return mesh
    names = tuple(name for name in mesh.mesh_dim_names or () if name not in (data.mesh_dim_names or ()))
    return mesh[names] if names and mesh.ndim > data.ndim else None


def is_tensor_parallel(model: nn.Module) -> bool:
    """Whether processes share the work of single layers, each of which has a part of their outputs.

    Args:
        model: between passes.
    """
    return bool(_split_modules(model))


class Outputs:
    """The outputs of layers as they are in the whole model, where processes share the work of single layers.

    Args:
        split: modules that compute with a part of their parameters, and the meshes of their processes.
    """

    def __init__(self, split: dict[nn.Module, Any]) -> None:
        self._split = split
        self._parts: dict[int, tuple[Tensor, Any]] = {}  # by the id of a plain tensor, the distributed one that it was

    def first(self, module: nn.Module) -> bool:
        """Whether a hook on a module must come before others, which make a plain tensor of a distributed one."""
        return module in self._split

    def whole(self, inputs: Any, tensor: Tensor, name: str) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """A layer's output of the whole model, and what gives the form back that it had; all processes must call it.

        Args:
            inputs: of the call.
            tensor: the layer's output, as a hook sees it that is `first` where that is said.
            name: of the layer.

        Raises:
            ObservationError: it is a part of the whole, and it is unclear which.
        """
        if not self._split:
            return tensor, _as_it_is
        if is_distributed(tensor):
            return _replicated(tensor), partial(_like, tensor)
        parts = self._parts_of(inputs, tensor)
        if parts is not None:
            return _replicated(_from_part(tensor, parts)), lambda result: _like(parts, result).to_local()
        if not _is_same_everywhere(tensor, next(iter(self._split.values()))):
            raise ObservationError(
                f"layer {name!r} puts out a part on each process (tensor parallel), and it is unclear which: name the "
                "layer whose weights are split, before or behind it"
            )
        return tensor, _as_it_is

    def _parts_of(self, inputs: Any, tensor: Tensor) -> Any:
        """The distributed tensor that a plain one is a part of: as its input, of a layer that keeps shapes."""
        given = first_tensor(inputs)
        known = None if given is None else self._parts.get(id(given))
        if known is None or given is None or given.shape != tensor.shape:
            return None
        self._parts[id(tensor)] = tensor, known[1]
        return known[1]

    def note(self, output: Any, parts: Any) -> None:
        """A module that is split has put out a plain tensor.

        Args:
            output: of the module.
            parts: the distributed tensor that was made plain.
        """
        plain = first_tensor(output)
        if parts is None or plain is None or is_distributed(plain):
            return
        if plain.shape == own_part(parts).shape != parts.shape:
            self._parts[id(plain)] = plain, parts.detach()


@contextmanager
def whole_outputs(model: nn.Module) -> Iterator[Outputs]:
    """Hooks that follow which tensors are parts of others, during a pass.

    Args:
        model: between passes.
    """
    split = _split_modules(model)
    outputs, raw, handles = Outputs(split), dict[nn.Module, Any](), []

    def before(module: nn.Module, inputs: Any, output: Any) -> None:
        raw[module] = output if is_distributed(output) else None

    def after(module: nn.Module, inputs: Any, output: Any) -> None:
        outputs.note(output, raw.pop(module, None))

    for module in split:
        handles += [module.register_forward_hook(before, prepend=True), module.register_forward_hook(after)]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


def _replicated(parts: Any) -> Tensor:
    """A distributed tensor as a plain one that each process has, and that gradients lead through."""
    from torch.distributed.tensor import Replicate

    everywhere = [Replicate()] * parts.device_mesh.ndim
    return parts.redistribute(placements=everywhere).to_local()  # type: ignore[no-any-return]


def _from_part(tensor: Tensor, like: Any) -> Any:
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(tensor, like.device_mesh, like.placements, run_check=False)


def _like(parts: Any, tensor: Tensor) -> Any:
    """A plain tensor that each process has, distributed as another one; sums are no longer outstanding."""
    from torch.distributed.tensor import DTensor, Replicate

    kept = [Replicate() if place.is_partial() else place for place in parts.placements]
    everywhere = [Replicate()] * parts.device_mesh.ndim
    return DTensor.from_local(tensor, parts.device_mesh, everywhere, run_check=False).redistribute(placements=kept)


def _is_same_everywhere(tensor: Tensor, mesh: Any) -> bool:
    """Whether all processes of a mesh have the same values."""
    from torch.distributed import ReduceOp, all_reduce

    values = tensor.detach().double()
    sums = torch.stack([values.sum(), values.abs().sum(), values.square().sum()])
    ends = torch.cat([sums, -sums])
    for group in mesh.get_all_groups():
        all_reduce(ends, op=ReduceOp.MAX, group=group)
    highest, lowest = ends[:3], -ends[3:]
    return bool(torch.allclose(highest, lowest, rtol=1e-6, atol=1e-12, equal_nan=True))
