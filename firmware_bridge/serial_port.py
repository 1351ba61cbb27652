"""Serial ports through pyserial, the only file that imports it."""

from __future__ import annotations

import serial
from serial.tools import list_ports

from edgeasr.errors import DeviceError
from edgeasr.firmware_bridge.transport import Transport, TransportLostError

_BITS_A_BYTE = 10  # start bit, eight bits, stop bit


class SerialTransport(Transport):
    """A UART or USB-CDC port, 8N1; a plug that was pulled may come back under the same name."""

    may_return = True

    def __init__(self, path: str, baud: int) -> None:
        self.name = f"serial://{path}?baud={baud}"
        self.bytes_per_s = baud / _BITS_A_BYTE
        self._path, self._baud = path, baud
        try:
            self._port = self._open()
        except (OSError, ValueError) as error:
            ports = ", ".join(port.device for port in list_ports.comports()) or "none"
            raise DeviceError(
                f"cannot open {path} at {baud} baud ({error}), want a serial port: check plug and rights; found {ports}"
            ) from error

    def read(self, timeout_s: float) -> bytes:
        try:
            self._port.timeout = timeout_s
            data: bytes = self._port.read(1)
            if data and self._port.in_waiting:
                data += self._port.read(self._port.in_waiting)
        except (OSError, TypeError) as error:  # TypeError: pyserial, for a port closed by another thread
            raise self._lost(error) from error
        return data

    def write(self, data: bytes, timeout_s: float) -> bool:
        try:
            self._port.write_timeout = timeout_s
            self._port.write(data)
        except serial.SerialTimeoutException:
            return False
        except (OSError, TypeError) as error:
            raise self._lost(error) from error
        return True

    def end(self) -> bool:
        return False

    def reopen(self) -> bool:
        self._port.close()
        try:
            self._port = self._open()
        except (OSError, ValueError):
            return False
        return True

    def close(self) -> None:
        self._port.close()

    def _open(self) -> serial.Serial:
        return serial.Serial(self._path, self._baud, exclusive=True)

    def _lost(self, error: Exception) -> TransportLostError:
        reason = " ".join(str(error).split())
        return TransportLostError(f"{self.name} broke off ({reason}), want a steady stream: check the plug")
