"""`Array`: a NumPy array in shared memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, TypeVar

from ..errors import MissingExtra
from . import layout as at
from .blocks import Block, Reference
from .kinds import K_ARRAY
from .memory import Mapping

try:
    import numpy
except ImportError:
    raise MissingExtra("share.Array needs NumPy: pip install 'lightwork[numpy]'") from None

if TYPE_CHECKING:
    _Base = numpy.ndarray[Any, numpy.dtype[Any]]
else:
    _Base = numpy.ndarray

__all__ = ["Array", "open_array"]


class Array(_Base):
    """A NumPy array whose memory is shared: who gets it, or a slice of it, sees the same numbers.

    Args:
        source: a shape (a whole number, or a tuple of them), or an array (or a list), which is
        copied. dtype: the type of the elements; float64, or that of `source`, if none is given. Not
            ``object``.
        name: for error messages.

    Zeros at first, if made from a shape. Passing it to another process copies nothing, whatever
    its size (some 50 us); slices, views and transposes of it travel the same way. The results
    of computing with it are ordinary arrays. The memory is freed when the last view of it is gone
    in the last process.

    Writing to the same elements from two sides is a race: use a `Lock`. Raises MissingExtra without
    NumPy; OSError: there is no memory for it.
    """

    _block: Block | None

    def __new__(cls, source: Any, dtype: Any = None, *, name: str = "") -> Self:
        data = None
        if isinstance(source, int | numpy.integer) or (
            isinstance(source, tuple) and all(isinstance(n, int | numpy.integer) for n in source)
        ):
            shape = source
            kind = numpy.dtype(numpy.float64 if dtype is None else dtype)
        else:
            data = numpy.asarray(source, dtype)
            shape, kind = data.shape, data.dtype
        if kind.hasobject:
            raise TypeError("an array of Python objects cannot be shared")
        size = int(numpy.prod(shape, dtype=numpy.int64)) * kind.itemsize
        block = Block.create(K_ARRAY, size=max(size, 1))
        block.name = name
        made = _view(cls, block, shape, kind)
        if data is not None:
            made[...] = data
        return made

    def __array_finalize__(self, source: Any) -> None:
        block = getattr(source, "_block", None)
        self._block = block if block is not None and numpy.may_share_memory(self, source) else None

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        if array is self:  # changed in place
            return array
        plain = array.view(numpy.ndarray)
        return plain[()] if return_scalar or plain.ndim == 0 else plain

    def __reduce_ex__(self, protocol: Any) -> Any:
        block = self._block
        if block is not None:
            start = self.__array_interface__["data"][0] - _address(self)
            place = (start, self.shape, self.strides, self.dtype)
            return open_array, (type(self), block.reference(), place)
        return numpy.asarray(self).__reduce_ex__(protocol)

    def __reduce__(self) -> Any:
        return self.__reduce_ex__(2)


A = TypeVar("A", bound=Array)


def _address(array: Array) -> int:
    """Where the shared memory begins that `array` is a part of."""
    base: Any = array
    while isinstance(base, numpy.ndarray):
        base = base.base
    owner: Any = base.obj if isinstance(base, memoryview) else base  # as versions of NumPy differ
    address: int = owner.address_of_mapping
    return address


def _view(
    cls: type[A], block: Block, shape: Any, kind: Any, start: int = 0, strides: Any = None
) -> A:
    cells = block.cells
    mapping = Mapping(block.commons.fd, cells[at.R_SIZE], cells[at.R_EXTENT])
    # Whatever looks into the memory keeps its owner, and so the block.
    owner: Any = mapping.owner
    owner.block, owner.address_of_mapping = block, mapping.address
    made = numpy.ndarray.__new__(
        cls, shape, kind, buffer=memoryview(owner), offset=start, strides=strides
    )
    made._block = block
    return made


def open_array(cls: type[Array], reference: Reference, place: tuple[Any, ...]) -> Array:
    """Open a pickled array. Raises ReferenceError: it is gone."""
    start, shape, strides, kind = place
    return _view(cls, Block.attach(Reference(*reference)), shape, kind, start, strides)
