"""Errors that a caller, a file or a device can cause; each message says what was given, wanted and to do."""


class EdgeasrError(Exception):
    """Base of all errors of this package; the command line prints the message and exits with `exit_code`.

    fix: what to do, which becomes the end of the message; empty where there is no more to say than what is wrong, None
         where the message says it itself, after a colon
    """

    exit_code = 2

    def __init__(self, message: object = "", *, fix: str | None = None) -> None:
        super().__init__(f"{message}: {fix}" if fix else message)
        self.fix = fix


class AudioFormatError(EdgeasrError):
    """Audio that is missing, empty, truncated, malformed or of an impossible rate."""


class BundleError(EdgeasrError):
    """A model bundle that is missing, damaged, of another format version or not what its manifest says."""


class UnsupportedGraphError(BundleError):
    """A graph with an operator, or a use of one, that a backend does not have."""


class NativeCodeError(EdgeasrError):
    """C of this package that cannot be compiled here, or not be loaded."""


class ConfigError(EdgeasrError):
    """A configuration with an unknown key or an impossible value."""


class GrammarError(ConfigError):
    """A grammar that cannot be read, is not JSGF or has no sentence that could be recognised; it says where."""


class ManifestError(EdgeasrError):
    """A speech manifest with a missing key, a malformed line or a file that is not there."""


class StoreError(EdgeasrError):
    """A memory store that is missing, damaged, full, read-only, of a newer version or given something impossible."""


class StoreBusyError(StoreError):
    """A memory store that another process holds locked."""


class ProfileError(EdgeasrError):
    """A measurement that cannot be taken, or a report of one that cannot be read."""


class ExtraMissingError(EdgeasrError):
    """A feature whose optional packages are not installed; the message names the extra."""


class AcceleratorError(EdgeasrError):
    """A GPU, its driver or one of its libraries that is missing or fails."""


class ActionError(EdgeasrError):
    """A final that an action did not take. again: whether it may take it later"""

    def __init__(self, message: str, *, again: bool = False) -> None:
        super().__init__(message)
        self.again = again


class ServiceError(EdgeasrError):
    """A service that cannot be installed, removed or asked about."""


class ServeError(EdgeasrError):
    """A server that cannot be started as asked, or a client's request that is refused."""


class UnavailableError(ServeError):
    """A port or an address that cannot be listened at for now: in use, or not there yet after a boot."""

    exit_code = 3


class DeviceError(EdgeasrError):
    """No usable microphone or sound system."""

    exit_code = 3
