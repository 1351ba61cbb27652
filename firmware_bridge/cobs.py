"""Consistent Overhead Byte Stuffing (Cheshire and Baker, IEEE/ACM Transactions on Networking 7(2), 1999).

Written out here, thirty lines, rather than taken from the package `cobs`: the host then needs no compiled dependency,
and both ends follow one text. The tests compare the two.
"""

from __future__ import annotations

from edgeasr.firmware_bridge.messages import ProtocolError

BLOCK = 254  # bytes that one code byte can precede


def max_encoded_size(size: int) -> int:
    """The longest encoding of `size` bytes."""
    return size + max(1, -(-size // BLOCK))


def encode(data: bytes) -> bytes:
    """The same bytes without a zero among them; the delimiter is not added."""
    encoded = bytearray()
    *inner, last = data.split(b"\0")
    for run in inner:
        encoded += _blocks(run, len(run) // BLOCK)
    # A full block at the very end has no zero after it, and needs no further code byte.
    encoded += _blocks(last, (len(last) - 1) // BLOCK if last else 0)
    return bytes(encoded)


def _blocks(run: bytes, full: int) -> bytes:
    """`full` blocks without a zero after them, and the rest of the run."""
    parts = [b"\xff" + run[i * BLOCK : (i + 1) * BLOCK] for i in range(full)]
    rest = run[full * BLOCK :]
    return b"".join([*parts, bytes([len(rest) + 1]), rest])


def decode(encoded: bytes) -> bytes:
    """The bytes that were encoded.

    encoded: without the delimiter
    errors:  ProtocolError for nothing, a zero, and a code byte that points beyond the end
    """
    if not encoded:
        raise ProtocolError("got no encoded bytes, wanted one at least")
    decoded = bytearray()
    position = 0
    while position < len(encoded):
        code = encoded[position]
        end = position + code
        if code == 0 or end > len(encoded):
            raise ProtocolError(
                f"got code byte {code} at {position} of {len(encoded)} encoded bytes: it points nowhere"
            )
        decoded += encoded[position + 1 : end]
        position = end
        if code <= BLOCK and position < len(encoded):
            decoded.append(0)
    if 0 in encoded:
        raise ProtocolError("got a zero within encoded bytes, wanted it only as delimiter")
    return bytes(decoded)
