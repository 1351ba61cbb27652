import os
import socket
import sys
import threading
import tty

import pytest

from edgeasr.errors import ConfigError, DeviceError, ExtraMissingError
from edgeasr.firmware_bridge.transport import (
    PtyTransport,
    TcpClient,
    TcpListener,
    TransportEnded,
    TransportLostError,
    TtyTransport,
    is_bridge_url,
    open_transport,
)

PATIENCE_S = 20
DATA = bytes(range(256)) * 100


def read_all(transport, num_bytes):
    data = b""
    while len(data) < num_bytes:
        part = transport.read(PATIENCE_S)
        assert part
        data += part
    return data


def exchange(one, other):
    """Each side gets what the other writes, however much it is and whatever the bytes."""
    for sender, receiver in ((one, other), (other, one)):
        thread = threading.Thread(target=sender.write, args=(DATA, PATIENCE_S))
        thread.start()
        assert read_all(receiver, len(DATA)) == DATA
        thread.join()


class TestUrl:
    @pytest.mark.parametrize(
        ("url", "is_bridge"),
        [
            ("serial:///dev/ttyACM0", True),
            ("tcp://board:9000", True),
            ("tcp-listen://:9000", True),
            ("pty:", True),
            ("pty", False),
            ("mic", False),
            ("-", False),
            ("talk.wav", False),
            ("/tmp/tcp/talk.wav", False),
        ],
    )
    def test_is_told_from_a_file(self, url, is_bridge):
        assert is_bridge_url(url) == is_bridge

    @pytest.mark.parametrize(
        "url", ["tcp://board", "tcp://:9000", "tcp://board:ninety", "udp://board:1", "serial://ttyACM0", "talk.wav"]
    )
    def test_that_is_incomplete_is_refused(self, url):
        with pytest.raises(ConfigError, match="want"):
            open_transport(url, print)

    @pytest.mark.parametrize("baud", ["fast", "0", "-9600", ""])
    def test_wants_a_baud_rate(self, baud):
        with pytest.raises(ConfigError, match="baud"):
            open_transport(f"serial:///dev/ttyACM0?baud={baud}", print)

    def test_carries_options_of_the_link(self):
        transport, options = open_transport("tcp-listen://127.0.0.1:0?codec=adpcm&vad=gate", lambda line: None)
        transport.close()
        assert options == {"codec": "adpcm", "vad": "gate"}


class TestTcp:
    @pytest.fixture
    def pair(self):
        said = []
        listener = TcpListener("127.0.0.1", 0, said.append)
        assert said == [f"waiting for a connection to 127.0.0.1, port {listener.port}"]
        client = TcpClient("127.0.0.1", listener.port)
        assert listener.read(0) == b""
        yield listener, client
        listener.close()
        client.close()

    def test_carries_bytes_both_ways(self, pair):
        exchange(*pair)

    def test_without_data_gives_nothing(self, pair):
        assert [transport.read(0) for transport in pair] == [b"", b""]

    def test_that_was_ended_can_still_be_answered(self, pair):
        listener, client = pair
        listener.write(b"last", PATIENCE_S)
        listener.end()
        assert read_all(client, 4) == b"last"
        with pytest.raises(TransportEnded):
            client.read(PATIENCE_S)
        assert client.write(b"answer", PATIENCE_S)
        assert read_all(listener, 6) == b"answer"

    def test_that_is_reset_is_lost(self, pair):
        listener, client = pair
        listener._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        listener.close()
        with pytest.raises(TransportLostError, match="broke off"):
            client.read(PATIENCE_S)
        assert not client.may_return

    def test_does_not_wait_for_ever_for_one_that_does_not_read(self, pair):
        assert not pair[0].write(bytes(50_000_000), 0.05)

    def test_without_a_device_is_an_error(self):
        listener = TcpListener("127.0.0.1", 0, lambda line: None)
        listener.close()
        with pytest.raises(DeviceError, match=r"cannot connect to tcp://127.0.0.1:\d+ \(Connection refused\)"):
            TcpClient("127.0.0.1", listener.port)

    def test_at_a_port_that_is_taken_is_an_error(self, pair):
        other = TcpListener("127.0.0.1", 0, lambda line: None)
        with pytest.raises(DeviceError, match="want a free port"):
            TcpListener("127.0.0.1", other.port, print)
        other.close()


class TestPty:
    @pytest.fixture
    def pair(self):
        said = []
        control = PtyTransport(said.append)
        path = control.name.removeprefix("pty:")
        assert said == [f"connect the device to {path}"]
        device = TtyTransport(path)
        yield control, device
        device.close()
        control.close()

    def test_carries_bytes_both_ways(self, pair):
        exchange(*pair)

    def test_waits_for_a_device_that_is_not_there_yet(self):
        control = PtyTransport(lambda line: None)
        assert control.read(0) == b""
        control.close()

    def test_ends_when_the_device_goes(self, pair):
        control, device = pair
        device.write(b"last", PATIENCE_S)
        assert read_all(control, 4) == b"last"
        device.close()
        with pytest.raises(TransportEnded):
            control.read(PATIENCE_S)

    def test_ends_when_the_host_goes(self, pair):
        control, device = pair
        control.close()
        with pytest.raises(TransportEnded):
            device.read(PATIENCE_S)

    def test_wants_a_terminal(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(DeviceError, match="is no terminal"):
            TtyTransport(str(tmp_path / "file"))
        with pytest.raises(DeviceError, match="cannot open"):
            TtyTransport(str(tmp_path / "none"))


class TestSerial:
    """A pseudo-terminal stands in for the port; pyserial does not know the difference."""

    @pytest.fixture
    def port(self):
        pytest.importorskip("serial", reason="serial ports need the extra `bridge`")
        control, terminal = os.openpty()
        tty.setraw(terminal)
        transport, options = open_transport(f"serial://{os.ttyname(terminal)}?baud=115200&codec=ulaw", print)
        assert options == {"codec": "ulaw"}
        yield control, terminal, transport
        transport.close()
        for descriptor in (control, terminal):
            os.close(descriptor)

    def test_carries_bytes_both_ways(self, port):
        control, _, transport = port
        os.write(control, DATA[:1000])
        assert read_all(transport, 1000) == DATA[:1000]
        assert transport.write(DATA[:1000], PATIENCE_S)
        assert os.read(control, 2000) == DATA[:1000]
        assert transport.read(0) == b""

    def test_knows_what_the_line_carries(self, port):
        assert port[2].bytes_per_s == 11_520

    def test_that_is_unplugged_is_lost_and_may_come_back(self, port):
        transport = port[2]
        transport.close()
        with pytest.raises(TransportLostError, match=r"broke off .* check the plug"):
            transport.read(0)
        assert transport.may_return
        assert transport.reopen()
        assert transport.write(b"again", PATIENCE_S)

    def test_that_is_not_there_is_an_error_that_lists_those_there_are(self):
        pytest.importorskip("serial", reason="serial ports need the extra `bridge`")
        with pytest.raises(DeviceError, match=r"cannot open /dev/ttyNone at 921600 baud .* found "):
            open_transport("serial:///dev/ttyNone", print)

    def test_without_pyserial_names_the_extra(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "serial", None)
        monkeypatch.delitem(sys.modules, "edgeasr.firmware_bridge.serial_port", raising=False)
        with pytest.raises(ExtraMissingError, match=r"pip install 'edgeasr\[bridge\]'"):
            open_transport("serial:///dev/ttyACM0", print)
