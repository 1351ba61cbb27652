import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeasr.firmware_bridge.messages import (
    ENUMS,
    MAX_PAYLOAD,
    MESSAGES,
    Ack,
    Audio,
    Event,
    Gap,
    Hello,
    IntField,
    Log,
    Ping,
    ProtocolError,
    Stats,
    Status,
    Transcript,
    decode,
    field_notes,
    fit_text,
)


def messages():
    """Any message with any values of its fields."""

    def values(message):
        return {name: value(field) for name, field in message.wire_fields().items()}

    def value(field):
        if isinstance(field, IntField):
            return st.integers(*field.bounds)
        return st.text(max_size=60) if field.text else st.binary(max_size=60)

    return st.one_of([st.builds(message, **values(message)) for message in MESSAGES.values()])


@given(messages())
def test_a_message_comes_back_as_it_was_sent(message):
    assert decode(message.TYPE, message.encode()) == message


@given(messages(), st.data())
def test_a_payload_that_is_cut_within_its_fixed_fields_is_refused(message, data):
    size = data.draw(st.integers(0, message.fixed_size() - 1))
    with pytest.raises(ProtocolError, match="is cut off") as caught:
        decode(message.TYPE, message.encode()[:size])
    assert caught.value.status == Status.TRUNCATED


@given(st.integers(0, 255), st.binary(max_size=64))
def test_any_bytes_give_a_message_or_a_protocol_error(message_type, payload):
    status = Status.OK
    try:
        decode(message_type, payload)
    except ProtocolError as error:
        status = error.status
    assert status in (Status.OK, Status.BAD_TYPE, Status.TRUNCATED, Status.MALFORMED)
    assert (status == Status.BAD_TYPE) == (not 1 <= message_type <= 15)


def test_fields_lie_on_the_wire_in_their_order_and_little_endian():
    assert Hello(1, 16000, 4096, 0x0103, 80, "né").encode().hex() == "01803e00000010030150" + "né".encode().hex()
    assert Event(2, 1, -2).encode().hex() == "0201feff"
    assert Gap(0x01020304, 3).encode().hex() == "0403020103"
    assert Transcript(1, 258, 3, "abc").encode().hex() == "0102010300616263"
    assert Stats.fixed_size() == 24


def test_the_types_are_numbered_from_1_without_a_hole():
    assert list(MESSAGES) == list(range(1, 16))


def test_an_error_names_the_field():
    with pytest.raises(ProtocolError, match="num_samples of AUDIO is cut off: got 2 bytes, wanted 3 or more"):
        Audio.decode(b"\0\0")
    with pytest.raises(ProtocolError, match="token of PING is 4294967296, wanted 0 to 4294967295"):
        Ping(1 << 32).encode()
    with pytest.raises(ProtocolError, match="PING has 2 bytes after its last field") as caught:
        Ping.decode(bytes(6))
    assert caught.value.status == Status.MALFORMED
    with pytest.raises(ProtocolError, match="got a message of type 16, wanted 1 to 15"):
        decode(16, b"")


def test_a_tail_fills_a_payload_and_no_more():
    assert len(Log(0, "x" * (MAX_PAYLOAD - 1)).encode()) == MAX_PAYLOAD
    with pytest.raises(ProtocolError, match="LOG takes 4097 bytes") as caught:
        Log(0, "x" * MAX_PAYLOAD).encode()
    assert caught.value.status == Status.OVERFLOW


def test_text_that_is_no_utf8_is_read_all_the_same():
    assert Log.decode(b"\1ab\xff\xc3").text == "ab��"


@given(st.text(), st.integers(-1, 40))
def test_text_is_cut_at_a_character(text, max_bytes):
    cut = fit_text(text, max_bytes)
    assert text.startswith(cut)
    assert len(cut.encode()) <= max(0, max_bytes)
    if cut != text:
        assert len(text[: len(cut) + 1].encode()) > max_bytes


@pytest.mark.parametrize("message", MESSAGES.values())
def test_every_field_is_described(message):
    assert set(field_notes(message)) == {field.name for field in dataclasses.fields(message)}


def test_values_of_enums_fit_into_their_fields():
    for kinds in ENUMS:
        assert max(kinds) < 1 << (16 if kinds.__name__ == "Capability" else 8)
    assert Ack(2, 0, Status.TRUNCATED).encode() == b"\2\0\x09"
