import asyncio
import json
import socket
import ssl
import subprocess
from pathlib import Path
from runpy import run_path

import aiohttp
import pytest

from edgeasr.errors import ServeError
from edgeasr.serve.listener import open_ports, server_tls
from edgeasr.serve.security import Access, check_host, checked_token, is_loopback, read_token
from edgeasr.serve.server import ServerConfig

SERVED = run_path(str(Path(__file__).with_name("served.py")))
served, run = SERVED["served"], SERVED["run"]

TOKEN = "a.long_enough~token-1"


def statuses(requests, access=None, **limits):
    """Of GET requests, given as (path, headers)."""

    async def ask():
        async with served(access=access, **limits) as server:
            answers = []
            for path, headers in requests:
                sent = {name: value.format(port=server.port) for name, value in headers.items()}
                async with server.client.get(server.url + path, headers=sent) as response:
                    answers.append(response.status)
            return answers

    return run(ask())


def opens(url_of, access, *, headers=None, protocols=()):
    """Whether a web socket opens; the status where it does not, and the protocol where it does."""

    async def ask():
        async with served(access=access) as server:
            try:
                async with server.client.ws_connect(url_of(server), headers=headers, protocols=protocols) as socket:
                    return socket.protocol or "open"
            except aiohttp.WSServerHandshakeError as error:
                return error.status

    return run(ask())


def test_other_names_of_this_machine_are_refused():
    """A page whose name was made to point here would be the same origin to its browser."""
    names = [
        "evil.example",
        "evil.example:{port}",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "0.0.0.0",
        "a b",
    ]
    assert statuses([("/health", {"Host": name}) for name in names]) == [403] * len(names)


def test_names_of_loopback_and_those_allowed_are_accepted():
    names = [
        "localhost",
        "LOCALHOST:{port}",
        "127.0.0.1:{port}",
        "127.0.0.2",
        "192.168.1.5:8000",
        "[::1]:{port}",
        "a.localhost",
        "board.lan:1",
    ]
    access = Access(hosts=frozenset({"board.lan"}))
    assert statuses([("/health", {"Host": name}) for name in names], access) == [200] * len(names)


def test_pages_of_others_are_refused():
    origins = [
        "http://evil.example",
        "null",
        "http://localhost:1",
        "http://127.0.0.1",
        "file://",
        "https://evil.example",
    ]
    assert statuses([("/v1/models", {"Origin": origin}) for origin in origins]) == [403] * len(origins)
    own = {"Host": "localhost:{port}", "Origin": "http://localhost:{port}"}
    allowed = {"Origin": "http://desk:3000"}
    access = Access(origins=frozenset({"http://desk:3000"}))
    assert statuses([("/v1/models", own), ("/v1/models", allowed), ("/v1/models", {})], access) == [200, 200, 200]


def test_a_web_socket_of_another_page_is_refused():
    def url(server):
        return server.url

    assert opens(url, Access(), headers={"Origin": "http://evil.example"}) == 403
    assert opens(url, Access()) == "open"


def test_with_a_token_all_but_health_want_it():
    access = Access(TOKEN)
    right = {"Authorization": f"Bearer {TOKEN}"}
    paths = ["/metrics", "/v1/models"]
    assert statuses([(path, right) for path in paths], access) == [200, 200]
    wrong = [{}, {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": TOKEN}, {"Authorization": "Bearer é"}]
    for headers in wrong:
        assert statuses([(path, headers) for path in [*paths, "/nothing"]], access) == [401, 401, 401]
    assert statuses([(f"/v1/models?token={TOKEN}", {})], access) == [401]  # addresses are written to logs
    assert statuses([("/health", {})], access) == [200]


@pytest.mark.parametrize("path", ["/", "/vosk"])
def test_web_sockets_can_bring_the_token_in_three_ways(path):
    access = Access(TOKEN)
    assert opens(lambda server: server.url + path, access) == 401
    assert opens(lambda server: f"{server.url}{path}?token={TOKEN}", access) == "open"
    assert opens(lambda server: f"{server.url}{path}?token=x", access) == 401
    assert opens(lambda server: server.url + path, access, headers={"Authorization": f"bearer {TOKEN}"}) == "open"
    offered = ("edgeasr", f"token.{TOKEN}")
    assert opens(lambda server: server.url + path, access, protocols=offered) == "edgeasr"


def test_addresses_that_others_reach_need_a_token():
    for host in ("0.0.0.0", "192.168.1.5", "::", "board.lan", ""):
        with pytest.raises(ServeError, match="and no token, so anybody in the network"):
            check_host(host, None)
        check_host(host, TOKEN)
    for host in ("127.0.0.1", "::1", "localhost"):
        check_host(host, None)
    with pytest.raises(ServeError, match="no token"):
        ServerConfig(Access(), "0.0.0.0")
    assert not is_loopback("localhost.example")


def test_tokens_are_long_enough_and_can_be_sent(tmp_path):
    file = tmp_path / "token"
    file.write_text(f"  {TOKEN}\n")
    assert read_token(file) == TOKEN
    for bad in ("short", "with spaces in the middle", "ümlaut-ümlaut-ümlaut", "x" * 201, ""):
        with pytest.raises(ServeError, match=r"wanted 16 to 200 of A-Z"):
            checked_token(bad, "--token")
    with pytest.raises(ServeError, match="cannot read the token"):
        read_token(tmp_path / "missing")


def test_a_port_in_use_is_said():
    (taken,) = open_ports("127.0.0.1", 0)
    with taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServeError, match=f"port {port} of 127.0.0.1 is in use"):
            open_ports("127.0.0.1", port)


def test_all_addresses_of_a_name_get_the_same_port():
    opened = open_ports("localhost", 0)
    ports = {one.getsockname()[1] for one in opened}
    for one in opened:
        one.close()
    assert len(ports) == 1
    with pytest.raises(ServeError, match="wanted one of this machine"):
        open_ports("no such name", 0)
    with pytest.raises(ServeError, match=r"cannot listen at 203\.0\.113\.7"):
        open_ports("203.0.113.7", 0)


def test_connections_over_the_limit_are_told_to_come_again():
    async def ask():
        async with served(max_connections=2) as server:
            held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(2)]
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = await reader.read()
            for _, one in [*held, (reader, writer)]:
                one.close()
                await one.wait_closed()
            while server.server.num_connections:
                await asyncio.sleep(0.01)
            async with server.client.get(server.url + "/health") as response:
                return answer, response.status, server.metric("edgeasr_refused_total", reason="connections")

    answer, status, refused = run(ask())
    assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\n")
    assert b"2 connections, as many as it takes" in answer
    assert (status, refused) == (200, 1)


def test_who_is_gone_before_it_is_told_to_come_again_leaves_no_trace():
    faults = []

    async def ask():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: faults.append(context))
        async with served(max_connections=1) as server:
            _, held = await asyncio.open_connection("127.0.0.1", server.port)
            socket.create_connection(("127.0.0.1", server.port)).close()  # before anybody accepts it
            while not (refused := server.metric("edgeasr_refused_total", reason="connections")):
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            held.close()
            await held.wait_closed()
            return refused

    assert run(ask()) == 1
    assert faults == []


@pytest.mark.parametrize("head", [b"", b"GET /health HTTP/1.1\r\nHost: local"])
def test_who_connects_and_sends_no_whole_head_is_closed(head):
    async def ask():
        async with served(request_s=2.0) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(head)
            ended = await reader.read()
            writer.close()
            await writer.wait_closed()
            return ended

    assert run(ask()) == b""


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\x16\x03\x01secret-bytes\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nA" + b"x" * 9000 + b": y\r\n\r\n", 400),
    ],
)
def test_what_is_no_http_is_answered_without_an_echo(request_bytes, status):
    async def ask():
        async with served() as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(request_bytes)
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
            return answer

    head, _, body = run(ask()).partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.0 {status} ".encode())
    assert b"Server: edgeasr\r\n" in head
    assert b"X-Content-Type-Options: nosniff\r\n" in head
    error = {
        "message": "the request ended by: bad request",
        "type": "invalid_request_error",
        "param": None,
        "code": "http",
    }
    assert json.loads(body) == {"error": error}


def test_https(tmp_path):
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    try:
        subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed: apt-get install openssl")

    async def ask():
        client_tls = ssl.create_default_context(cafile=certificate)
        client_tls.check_hostname = False
        async with served(certificate=certificate, key=key) as server:
            assert server.url.startswith("https://")
            async with server.client.get(server.url + "/health", ssl=client_tls) as response:
                return response.status

    assert run(ask()) == 200
    with pytest.raises(ServeError, match="cannot use the certificate"):
        server_tls(key, None)
    with pytest.raises(ServeError, match="No such file"):
        server_tls(tmp_path / "missing.pem", None)
