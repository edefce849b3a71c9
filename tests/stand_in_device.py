"""A device that no machine lacks: it computes on the processor, and refuses what a GPU refuses.

Within `with StandIn("cuda") as device:` an operation on tensors of two devices raises, but for numbers without dimensions,
copies, and indices from the processor; a generator must be of the device on which it draws; `.numpy()` raises; `mem_get_info`
says what is free; autocast rounds the products of matrices to bfloat16. "mps" has no float64 besides.

For PyTorch's own code a tensor of the device is a meta tensor, one without numbers, so that all that autograd, optimisers and
modules make "like" it is one too. Every operation is caught on its way down (`_run`), done on the processor's tensors which
they stand for, and what comes out is wrapped again. Where the caller names a device, the mode puts "meta" in its place.
"""

import contextlib
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

aten = torch.ops.aten
FREE = 2**24  # bytes, so small that tiles and strips are cut by it
COPIES = (aten._to_copy.default, aten.copy_.default, aten._copy_from.default)
INDEXED = (aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default)
JOINED = (aten.cat.default, aten.stack.default)  # these take no number from the processor
PRODUCTS = ("mm", "addmm", "bmm", "convolution")
NEW = (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor)
_now: list["StandIn"] = []


class OnDevice(torch.Tensor):
    """Stands for `elem`, a tensor of the processor."""

    @staticmethod
    def __new__(cls, elem: torch.Tensor):
        if elem.dtype == torch.float64 and _now[-1].device.type == "mps":
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
            )
        layout = {"strides": elem.stride(), "storage_offset": elem.storage_offset(), "dtype": elem.dtype}
        made = torch.Tensor._make_wrapper_subclass(cls, elem.size(), device="meta", **layout)
        made.elem, made.where = elem, _now[-1].device
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: self.where)
    is_meta = is_cpu = property(lambda self: False)
    is_cuda = property(lambda self: self.where.type == "cuda")

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})

    def __deepcopy__(self, memo):
        copy = self.detach().clone().requires_grad_(self.requires_grad)
        copy._is_param = isinstance(self, torch.nn.Parameter)
        return memo.setdefault(id(self), copy)

    def __reduce_ex__(self, protocol):  # in a file it is a tensor of the processor; `load` brings it back
        return self.elem.__reduce_ex__(protocol)


class Generator(torch.Generator):
    """Draws on the processor, and says that it belongs to the device that it was made for."""

    def __new__(cls, device="cpu"):
        made = super().__new__(cls, "cpu")
        made.where = torch.device(device)
        return made

    device = property(lambda self: self.where)


def _each(function, thing):
    """The function of all that lies in lists, tuples and dicts; PyTorch's own walk over trees would take most of the time."""
    if isinstance(thing, dict):
        return {key: _each(function, part) for key, part in thing.items()}
    if type(thing) in (list, tuple) or hasattr(thing, "n_sequence_fields"):  # or one of torch.return_types
        return type(thing)([_each(function, part) for part in thing])
    return function(thing)


def _tensors(thing) -> list[torch.Tensor]:
    found = []
    _each(lambda leaf: found.append(leaf) if isinstance(leaf, torch.Tensor) else None, thing)
    return found


def _run(func, args, kwargs):
    leaves = _tensors((args, kwargs))
    ours = any(isinstance(leaf, OnDevice) for leaf in leaves)
    if func.namespace == "c10d" and not all(isinstance(leaf, OnDevice) for leaf in leaves):  # as NCCL
        raise RuntimeError("No backend type associated with device type cpu")
    if ours and func not in COPIES:
        _refuse_mixed(func, leaves[:1] if func in INDEXED and isinstance(args[0], OnDevice) else leaves)
    target = kwargs.get("device")
    wrapped = ours if target is None else target.type == "meta"
    if func is aten.copy_.default:
        wrapped = isinstance(args[0], OnDevice)
    plain = {id(leaf.elem): leaf for leaf in leaves if isinstance(leaf, OnDevice)}
    inner, named = _each(lambda leaf: leaf.elem if isinstance(leaf, OnDevice) else leaf, (args, kwargs))
    if target is not None:
        named["device"] = torch.device("cpu")
    if ours and _now and _now[-1].autocast and func.overloadpacket.__name__ in PRODUCTS:
        inner = _each(lambda t: t.bfloat16().to(t.dtype) if isinstance(t, torch.Tensor) else t, inner)
    found = func(*inner, **named)
    if not wrapped:
        return args[0] if func is aten.copy_.default else found

    def outside(leaf):
        return leaf if not isinstance(leaf, torch.Tensor) else plain[id(leaf)] if id(leaf) in plain else OnDevice(leaf)

    return _each(outside, found)


def _refuse_mixed(func, tensors) -> None:
    allowed = 0 if func in JOINED else 1
    if any(not isinstance(t, OnDevice) and (t.dim() >= allowed) for t in tensors):
        raise RuntimeError(
            f"{func}: expected all tensors to be on the same device, but found two, {_now[-1].device} and cpu"
        )
    if func._schema.is_mutable and not isinstance(tensors[0], OnDevice):
        raise RuntimeError(f"{func}: a result on {_now[-1].device} does not fit a tensor on cpu")


class _Dispatch(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls) -> bool:  # it would be imported, for seconds
        return False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class StandIn(TorchFunctionMode):
    """The device of this type, within a block."""

    def __init__(self, kind: str = "cuda"):
        super().__init__()
        self.device, self.autocast, self.asked = torch.device(kind, 0), False, []

    def __enter__(self) -> torch.device:
        self.stack = contextlib.ExitStack()
        for name, stand_in in self._patched().items():
            self.stack.enter_context(mock.patch(name, stand_in))
        _now.append(self)
        self.stack.callback(_now.pop)
        self.stack.enter_context(_Dispatch())
        super().__enter__()
        return self.device

    def __exit__(self, *error):
        super().__exit__(*error)
        self.stack.close()

    def _patched(self) -> dict:
        """What the library, and PyTorch for it, asks of the machine."""
        load = torch.load

        def loaded(file, map_location=None, **options):
            with _disable_current_modes(), torch._C.DisableTorchFunction():
                state = load(file, map_location="cpu" if self._is_here(map_location) else map_location, **options)
            if not self._is_here(map_location):
                return state
            return _each(lambda t: t.to(self.device) if isinstance(t, torch.Tensor) else t, state)

        def free(device=None):
            self.asked.append(torch.device(device))
            return FREE, 2 * FREE

        @contextlib.contextmanager
        def autocast(device_type, dtype=None, enabled=True, cache_enabled=None):
            before = self.autocast
            self.autocast = enabled if device_type == self.device.type else before
            try:
                yield
            finally:
                self.autocast = before

        cuda = self.device.type == "cuda"
        return {
            "torch.load": loaded,
            "torch.Generator": Generator,
            "torch.autocast": autocast,
            "torch.cuda.is_available": lambda: cuda,
            "torch.cuda.mem_get_info": free,
            "torch.cuda.get_device_name": lambda device=None: "a stand-in",
            "torch.cuda.is_current_stream_capturing": lambda: False,  # which AdamW asks a torch built for CUDA
            "torch.cuda.get_rng_state": lambda device: torch.get_rng_state(),
            "torch.cuda.set_rng_state": lambda state, device: torch.set_rng_state(state),
            "torch.mps.get_rng_state": torch.get_rng_state,
            "torch.mps.set_rng_state": torch.set_rng_state,
        }

    def _is_here(self, device) -> bool:
        return isinstance(device, str | torch.device) and str(device).split(":")[0] == self.device.type

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.device:
            return func(*args, **kwargs)
        first = next(iter(_tensors(args)), None)
        place = kwargs.get("device") or (torch.device("cpu") if first is None else first.device)
        draw = kwargs.get("generator")
        if draw is not None and draw.device.type != torch.device(place).type:
            raise RuntimeError(
                f"Expected a '{torch.device(place).type}' device type for generator but found '{draw.device.type}'"
            )
        if isinstance(first, OnDevice) and func in (torch.Tensor.numpy, torch.Tensor.__array__):
            raise TypeError(f"can't convert {first.device} device type tensor to numpy. Use Tensor.cpu() first.")
        if isinstance(first, OnDevice) and func is torch.Tensor.tolist:
            return first.elem.tolist()
        if func in NEW:
            args = _each(lambda t: t.cpu() if isinstance(t, OnDevice) else t, args)
            return func(*args, **{**kwargs, "device": "cpu"}).to("meta" if self._is_here(place) else place)
        args, kwargs = _each(lambda a: "meta" if self._is_here(a) else a, (args, kwargs))
        return func(*args, **kwargs)
