import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address

import pytest

from edgeasr.actions.hosts import HostPolicy
from edgeasr.actions.webhook import Webhook
from edgeasr.errors import ActionError, ConfigError

FINAL = {"type": "final", "segment": 3, "start": 0.0, "end": 1.0, "text": "lights on", "tags": ["on"]}


@pytest.fixture
def server():
    """A web server on this machine: `answers` are its next statuses, 200 without one; `got` what came."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.server.got.append((self.path, dict(self.headers), json.loads(body)))
            self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")
            self.end_headers()

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        http.answers, http.got, http.timeout = [], [], 10
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield http
        http.shutdown()
        thread.join()


def looks_up(monkeypatch, *addresses):
    """Any name is found at these addresses; which names were asked for."""
    asked = []

    def getaddrinfo(host, port, **options):
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    # Connecting looks an address up as well, which stays as it is.
    original = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *args, **options: (original if _is_address(host) else getaddrinfo)(host, *args, **options),
    )
    return asked


def _is_address(host):
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def test_a_final_is_posted_as_it_is(server):
    Webhook(f"http://127.0.0.1:{server.server_port}/api/hook?who=me", HostPolicy()).deliver(FINAL)
    ((path, headers, body),) = server.got
    assert (path, body) == ("/api/hook?who=me", FINAL)
    assert headers["Content-Type"] == "application/json"
    assert headers["Host"] == f"127.0.0.1:{server.server_port}"


def test_what_is_tried_again_can_be_recognised(server):
    hook = Webhook(f"http://localhost:{server.server_port}", HostPolicy())
    server.answers = [503]
    with pytest.raises(ActionError):
        hook.deliver(FINAL)
    hook.deliver(FINAL)
    hook.deliver({**FINAL, "segment": 4})
    keys = [headers["Idempotency-Key"] for _, headers, _ in server.got]
    assert keys[0] == keys[1] != keys[2]
    assert server.got[0][0] == "/"


@pytest.mark.parametrize(
    ("status", "again", "message"),
    [
        (500, True, "answered 500"),
        (429, True, "answered 429"),
        (404, False, "answered 404"),
        (302, False, "answered 302, and redirects are not followed"),
        (307, False, "redirects are not followed"),
    ],
)
def test_answers_that_are_no_success(server, status, again, message):
    server.answers = [status]
    with pytest.raises(ActionError, match=message) as caught:
        Webhook(f"http://127.0.0.1:{server.server_port}/x", HostPolicy()).deliver(FINAL)
    assert caught.value.again is again
    assert [path for path, _, _ in server.got] == ["/x"]


def test_nobody_who_listens_is_worth_another_try():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ActionError, match="cannot be reached") as caught:
        Webhook(f"http://127.0.0.1:{port}/", HostPolicy()).deliver(FINAL)
    assert caught.value.again is True


def test_a_server_that_does_not_answer_is_left_in_time():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hook = Webhook(f"http://127.0.0.1:{silent.getsockname()[1]}/", HostPolicy(), timeout_s=0.2)
        with pytest.raises(ActionError, match="timed out") as caught:
            hook.deliver(FINAL)
    assert caught.value.again is True


def test_a_server_of_nonsense_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as odd:

        def answer():
            connection, _ = odd.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(b"\x00\xff nonsense\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ActionError, match="cannot be reached"):
            Webhook(f"http://127.0.0.1:{odd.getsockname()[1]}/", HostPolicy()).deliver(FINAL)
        thread.join()


def test_an_https_server_that_speaks_http_is_an_error(server):
    with pytest.raises(ActionError, match="cannot be reached"):
        Webhook(f"https://127.0.0.1:{server.server_port}/", HostPolicy(), timeout_s=2).deliver(FINAL)
    assert server.got == []


def test_proxies_of_the_environment_get_nothing(server, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    Webhook(f"http://127.0.0.1:{server.server_port}/", HostPolicy()).deliver(FINAL)
    assert len(server.got) == 1


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1/",
        "http://",
        "127.0.0.1:80",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1/a b",
        "http://127.0.0.1/\r\nX: y",
        "http://127.0.0.1/ä",
        "http://[::1/",
        "http://me:secret@127.0.0.1/",
        "http://127.0.0.1/#x",
        "",
    ],
)
def test_urls_that_cannot_be_called_are_refused(url):
    with pytest.raises(ConfigError, match="wanted http://HOST"):
        Webhook(url, HostPolicy())


class TestHosts:
    @pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost", "LOCALHOST.", "::ffff:127.0.0.1"])
    def test_this_machine_needs_no_permission(self, host):
        HostPolicy().check(host)

    @pytest.mark.parametrize("host", ["192.168.1.2", "8.8.8.8", "hub.local", "::ffff:8.8.8.8"])
    def test_others_do(self, host):
        with pytest.raises(
            ConfigError, match=f"got --webhook to {host}, wanted a host on this .* add --webhook-allow {host}"
        ):
            HostPolicy().check(host)

    @pytest.mark.parametrize(
        ("allowed", "host"),
        [
            ("192.168.1.2", "192.168.1.2"),
            ("192.168.1.0/24", "192.168.1.77"),
            ("Hub.local", "hub.LOCAL."),
            ("fd00::/8", "fd00::7"),
        ],
    )
    def test_those_that_were_named_are_permitted(self, allowed, host):
        HostPolicy([allowed]).check(host)

    @pytest.mark.parametrize("host", ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "224.0.0.1", "0.0.0.0"])
    def test_some_are_never_called(self, monkeypatch, host):
        """Not where a network holds them, nor where a named host is there."""
        hosts = HostPolicy(["0.0.0.0/0", "::/0", "hub.local"])
        with pytest.raises(ConfigError, match=f"got --webhook to {host}, and link-local, .* are never called"):
            hosts.check(host)
        looks_up(monkeypatch, host)
        with pytest.raises(ActionError, match="are never called"):
            hosts.addresses("hub.local", 80)

    @pytest.mark.parametrize("allowed", ["169.254.169.254", "169.254.0.0/16", "fe80::/10", "ff02::1"])
    def test_nor_can_they_be_named(self, allowed):
        with pytest.raises(ConfigError, match=f"got --webhook-allow {allowed}, and link-local"):
            HostPolicy([allowed])

    @pytest.mark.parametrize("allowed", ["", "http://host", "a b", "host:80", "1.2.3.4/99"])
    def test_nonsense_is_no_host(self, allowed):
        with pytest.raises(ConfigError, match="wanted a host's name"):
            HostPolicy([allowed])

    def test_a_named_host_is_where_its_name_is_found(self, monkeypatch):
        looks_up(monkeypatch, "192.168.1.5", "192.168.1.6")
        assert HostPolicy(["hub.local"]).addresses("hub.local", 80) == [
            ip_address("192.168.1.5"),
            ip_address("192.168.1.6"),
        ]

    @pytest.mark.parametrize("address", ["169.254.169.254", "224.0.0.1", "0.0.0.0", "240.0.0.1"])
    def test_a_named_host_that_is_found_somewhere_odd_is_not_called(self, monkeypatch, address):
        looks_up(monkeypatch, "192.168.1.5", address)
        with pytest.raises(ActionError, match=f"the host hub.local is at {address}"):
            HostPolicy(["hub.local"]).addresses("hub.local", 80)

    def test_a_name_that_stops_being_this_machine_is_not_called(self, server, monkeypatch):
        """DNS rebinding: what was found is checked, and that very address is connected to."""
        hook = Webhook(f"http://localhost:{server.server_port}/", HostPolicy())
        asked = looks_up(monkeypatch, "192.0.2.1")
        with pytest.raises(ActionError, match=r"the host localhost is at 192\.0\.2\.1"):
            hook.deliver(FINAL)
        assert asked == ["localhost"]
        looks_up(monkeypatch, "127.0.0.1")
        hook.deliver(FINAL)
        assert [body for _, _, body in server.got] == [FINAL]

    def test_a_name_is_looked_up_once_a_call(self, server, monkeypatch):
        asked = looks_up(monkeypatch, "127.0.0.1")
        Webhook(f"http://hub.local:{server.server_port}/", HostPolicy(["hub.local"])).deliver(FINAL)
        assert asked == ["hub.local"]
        assert server.got[0][1]["Host"] == f"hub.local:{server.server_port}"

    def test_names_are_permitted_by_a_network_where_all_their_addresses_are_in_it(self, monkeypatch):
        policy = HostPolicy(["10.0.0.0/8"])
        policy.check("hub.local")
        looks_up(monkeypatch, "10.1.2.3")
        assert policy.addresses("hub.local", 80) == [ip_address("10.1.2.3")]
        looks_up(monkeypatch, "10.1.2.3", "8.8.8.8")
        with pytest.raises(ActionError, match=r"is at 8\.8\.8\.8"):
            policy.addresses("hub.local", 80)

    def test_a_name_that_is_not_found_is_tried_again(self, monkeypatch):
        def fails(*args, **options):
            raise socket.gaierror(-2, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", fails)
        with pytest.raises(ActionError, match=r"the host hub\.local is not found") as caught:
            HostPolicy(["hub.local"]).addresses("hub.local", 80)
        assert caught.value.again is True
