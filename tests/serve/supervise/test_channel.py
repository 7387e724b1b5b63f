"""Laws of the channel: what arrives is what was sent, whole, or the channel ends."""

import asyncio
import os
import socket
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.serve.supervise.channel import (
    MAX_BODY_BYTES,
    MEMFD_BYTES,
    AsyncChannel,
    BlockingChannel,
    Decoder,
    Frame,
    pack_header,
)

frames = st.lists(
    st.builds(Frame, st.integers(0, 255), st.integers(0, 2**64 - 1), st.binary(max_size=200)), max_size=5
)


def pack(frame):
    return pack_header(frame.kind, frame.id, frame.body) + frame.body


def feed(decoder, stream):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(stream)
        while stream:
            stream = stream[decoder.receive(ours) :]


def decode_all(decoder):
    found = []
    while (frame := decoder.next()) is not None:
        found.append(frame)
    return found


def test_the_bytes_of_a_frame_are_these():
    assert pack(Frame(7, 2, b"ab")).hex() == "545250310700000002000000020000000000000015970520" + b"ab".hex()


@given(frames, st.data())
def test_frames_survive_being_cut_anywhere(sent, data):
    stream = b"".join(map(pack, sent))
    decoder, received = Decoder(), []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        feed(decoder, stream[:cut])
        received += decode_all(decoder)
        stream = stream[cut:]
    assert received == sent


@given(frames.filter(len), st.data())
def test_a_flipped_bit_is_never_read_as_another_frame(sent, data):
    stream = bytearray(b"".join(map(pack, sent)))
    bit = data.draw(st.integers(0, 8 * len(stream) - 1))
    stream[bit // 8] ^= 1 << bit % 8
    decoder, received = Decoder(), []
    feed(decoder, bytes(stream))
    try:
        while (frame := decoder.next()) is not None:
            received.append(frame)
    except ConnectionAbortedError:
        pass
    assert received == sent[: len(received)]
    assert len(received) < len(sent)


@given(frames.filter(len), st.data())
def test_a_torn_frame_is_no_frame(sent, data):
    stream = b"".join(map(pack, sent))
    torn = data.draw(st.integers(1, len(pack(sent[-1]))))
    decoder = Decoder()
    feed(decoder, stream[: len(stream) - torn])
    assert decode_all(decoder) == sent[:-1]


def test_a_frame_over_the_limit_is_refused_before_its_body_is_read():
    header = bytearray(pack_header(1, 1, b""))
    header[8:12] = (MAX_BODY_BYTES + 1).to_bytes(4, "little")
    decoder = Decoder()
    feed(decoder, bytes(header))
    with pytest.raises(ConnectionAbortedError):
        decoder.next()


def test_blocking_ends_agree_on_small_and_large_bodies():
    left, right = map(BlockingChannel, socket.socketpair())
    descriptors = len(os.listdir("/proc/self/fd"))
    for body in (b"", b"x" * 1000, os.urandom(MEMFD_BYTES), os.urandom(20 * MEMFD_BYTES)):
        left.send(1, 5, body)
        assert right.receive(wait=True) == Frame(1, 5, body)
    assert right.receive(wait=False) is None
    assert len(os.listdir("/proc/self/fd")) == descriptors
    left.close()
    with pytest.raises(EOFError):
        right.receive(wait=True)
    right.close()


@pytest.mark.anyio
async def test_more_than_the_socket_takes_at_once_arrives_in_order():
    ours, theirs = socket.socketpair()
    reasons = []
    sender = AsyncChannel(ours, lambda _: None, reasons.append)
    sent = [Frame(1, number, bytes([number]) * 100_000 * (1 + number % 4)) for number in range(40)]
    for frame in sent:
        sender.send(*frame)
    received, done = [], asyncio.Event()

    def on_frame(frame):
        received.append(frame)
        if len(received) == len(sent):
            done.set()

    receiver = AsyncChannel(theirs, on_frame, reasons.append)
    await done.wait()
    assert received == sent
    sender.close()
    receiver.receive_all()
    assert reasons == ["", ""]


@pytest.mark.anyio
async def test_a_corrupt_frame_closes_the_channel_and_says_why():
    ours, theirs = socket.socketpair()
    closed = asyncio.get_running_loop().create_future()
    AsyncChannel(ours, lambda _: None, closed.set_result)
    with theirs:
        theirs.send(pack_header(1, 9, b"right") + b"wrong")
        assert "CRC" in await closed


def test_whoever_holds_a_closed_decoder_holds_no_buffer():
    tracemalloc.start()
    decoders = [Decoder() for _ in range(8)]
    assert tracemalloc.get_traced_memory()[0] > 8 * MEMFD_BYTES
    for decoder in decoders:
        decoder.close()
    assert tracemalloc.get_traced_memory()[0] < MEMFD_BYTES
    tracemalloc.stop()
