"""Reads inference requests to one model, and keeps what it has understood of those that come over and over.

Where all tensors of a request are binary sections, the JSON before them says only which they are: clients send the same
one each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from workbench.server.protocol import Asked, decode
from workbench.server.tensors import TensorSpec, from_bytes

MAX_LAYOUTS = 64
MAX_JSON = 2 << 10
"""Bytes of the JSON of a request that is kept to know it again."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What the JSON of a request says whose tensors all are binary sections, in that order. ``size``: bytes of all
    together."""

    size: int
    tensors: tuple[tuple[TensorSpec, tuple[int, ...], int], ...]
    """What the model takes, the shape, and the bytes of the section."""
    outputs: list[str]
    binary: frozenset[str]
    timeout: float | None

    def asked(self, sections: memoryview) -> Asked:
        """The request with these ``sections``, which have the size of all together; RequestError 400 where one is not
        what its datatype takes."""
        feed, at = {}, 0
        for spec, shape, size in self.tensors:
            feed[spec.name] = from_bytes(sections[at : at + size], spec, shape)
            at += size
        return Asked(feed, self.outputs, self.binary, None, self.timeout)


class Reader:
    """Reads requests to a model with these ``inputs`` and ``outputs``."""

    def __init__(self, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec]) -> None:
        self._inputs = inputs
        self._outputs = outputs
        elements = {spec.datatype.element for spec in inputs.values()}
        self._element = elements.pop() if len(elements) == 1 else None
        self._layouts: dict[bytes, Layout] = {}

    def read(self, body: bytes | memoryview, header: int | None) -> Asked:
        """The request in ``body``, as :func:`decode` has it; RequestError 400 where it is not one."""
        if header is None or header > MAX_JSON:
            return decode(body, header, self._inputs, self._outputs, self._element)
        text = bytes(body[:header])
        layout = self._layouts.get(text)
        if layout is not None and len(body) - header == layout.size:
            return layout.asked(memoryview(body)[header:])
        asked = decode(body, header, self._inputs, self._outputs, self._element)
        self._keep(text, len(body) - header, asked)
        return asked

    def _keep(self, text: bytes, size: int, asked: Asked) -> None:
        """Keeps what the JSON ``text`` says, where all it asks for is in the ``size`` bytes after it. Strings have not
        always the same length, and requests with an id do not come again."""
        arrays = asked.feed
        if asked.id is not None or size != sum([array.nbytes for array in arrays.values()]):
            return
        if any(array.dtype.hasobject for array in arrays.values()):
            return
        if len(self._layouts) >= MAX_LAYOUTS:
            self._layouts.clear()
        tensors = tuple((self._inputs[name], array.shape, array.nbytes) for name, array in arrays.items())
        self._layouts[text] = Layout(size, tensors, asked.outputs, asked.binary, asked.timeout)
