#!/usr/bin/env python3
"""The engine of ClickHouse (chDB, in this process) behind the part of ClickHouse's HTTP interface that clients use.

A test fixture: the real engine behind a thin front. It lacks what a server has around the engine: replication, clusters,
users (`--password` asks for one all the same, so that a refusal can be tested), and limits by user.
Each request borrows one connection of the engine (one ClickHouse session) from a pool."""

import argparse
import base64
import email
import email.policy
import json
import queue
import re
import signal
import struct
import sys
import tempfile
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import chdb
import lz4.block

# Parameters of the URL that are no settings of the engine.
RESERVED = {
    "add_http_cors_header", "buffer_size", "client_protocol_version", "close_session", "compress", "database", "decompress",
    "default_format", "enable_http_compression", "http_headers_progress_interval_ms", "password", "query", "query_id",
    "quota_key", "role", "send_progress_in_http_headers", "session_check", "session_id", "session_timeout", "stacktrace",
    "user", "wait_end_of_query",
}
INSERT_FORMAT = re.compile(r"^\s*INSERT\s+INTO\b.*\bFORMAT\s+(\w+)\s*;?\s*$", re.I | re.S)
STATUS = {"60": 404, "81": 404, "62": 400, "516": 403, "202": 503}  # of ClickHouse's error codes; else 500

connections: "queue.LifoQueue" = queue.LifoQueue()
version = ""
wanted_password = ""


def unframe(body: bytes) -> bytes:
    """ClickHouse's framing of compressed blocks: 16 bytes of checksum, method, both sizes, data."""
    out, at = [], 0
    while at < len(body):
        method, compressed, size = struct.unpack_from("<BII", body, at + 16)
        data = body[at + 25 : at + 16 + compressed]
        if method == 0x82:
            out.append(lz4.block.decompress(data, uncompressed_size=size))
        elif method == 0x02:
            out.append(data)
        else:
            raise RuntimeError(f"Code: 432. DB::Exception: Unknown codec family code: {method}. (UNKNOWN_CODEC)")
        at += 16 + compressed
    return b"".join(out)


def literal(value: str) -> str:
    if re.fullmatch(r"-?\d+(\.\d+)?", value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


class Front(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, *_):
        pass

    def exactly(self, length: int) -> bytes:
        data = self.rfile.read(length)
        if len(data) != length:
            raise ConnectionError("the body was cut off")  # nothing of an insert that was broken off is written
        return data

    def body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            return self.exactly(int(self.headers.get("Content-Length") or 0))
        out = []
        while True:
            length = int(self.rfile.readline().split(b";")[0], 16)
            data = self.exactly(length)
            self.rfile.readline()
            if length == 0:
                return b"".join(out)
            out.append(data)

    def reply(self, status: int, data: bytes, headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-ClickHouse-Server-Display-Name", "chdb")
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def do_GET(self):
        url = urlsplit(self.path)
        if url.path == "/ping" or (url.path == "/" and not url.query):
            return self.reply(200, b"Ok.\n")
        self.do_POST()

    def do_POST(self):
        try:
            raw = self.body()
        except (ConnectionError, ValueError):
            self.close_connection = True
            return
        query_id = str(uuid.uuid4())
        try:
            out, headers = self.run(raw, dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True)))
            self.reply(200, out, [("X-ClickHouse-Query-Id", query_id), *headers])
        except ConnectionError:
            self.close_connection = True
        except Exception as error:  # what the engine refuses is answered as ClickHouse does
            text = str(error)
            text = text[text.find("Code:") :] if "Code:" in text else "Code: 1002. DB::Exception: " + text
            code = re.match(r"Code: (\d+)", text)
            code = code.group(1) if code else "1002"
            headers = [("X-ClickHouse-Exception-Code", code), ("X-ClickHouse-Query-Id", query_id)]
            self.reply(STATUS.get(code, 500), f"{text.rstrip()} (version {version} (chdb))\n".encode(), headers)

    def password(self, url) -> str:
        scheme, _, given = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            return base64.b64decode(given).decode().partition(":")[2]
        return self.headers.get("X-ClickHouse-Key") or url.get("password", "")

    def run(self, raw: bytes, url: dict):
        """The answer's body and headers."""
        if wanted_password and self.password(url) != wanted_password:
            raise RuntimeError("Code: 516. DB::Exception: Authentication failed: password is incorrect. (AUTHENTICATION_FAILED)")
        kind = self.headers.get("Content-Type", "")
        if kind.startswith("multipart/form-data"):
            parts = email.message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + raw, policy=email.policy.HTTP)
            for part in parts.iter_parts():
                url[part.get_param("name", header="content-disposition")] = part.get_payload(decode=True).decode()
            raw = b""
        if url.get("decompress") in ("1", "true"):
            raw = unframe(raw)
        settings = [(name, value) for name, value in url.items() if name not in RESERVED and not name.startswith("param_")]
        parameters = {name[6:]: value for name, value in url.items() if name.startswith("param_")}
        database = url.get("database") or self.headers.get("X-ClickHouse-Database") or "default"
        form = self.headers.get("X-ClickHouse-Format") or url.get("default_format") or "TabSeparated"
        connection = connections.get()
        try:
            connection.query("USE `" + database.replace("`", "\\`") + "`")
            if settings:
                connection.query("SET " + ", ".join(f"{name}={literal(value)}" for name, value in settings))
            started = time.monotonic_ns()
            out, summary = self.query(connection, url.get("query", ""), raw, form, parameters)
            summary["elapsed_ns"] = time.monotonic_ns() - started
        finally:
            self.give_back(connection, settings)
        summary = json.dumps({name: str(value) for name, value in summary.items()})
        return out, [("X-ClickHouse-Format", form), ("X-ClickHouse-Summary", summary), ("Content-Type", "application/octet-stream")]

    def query(self, connection, sql: str, raw: bytes, form: str, parameters: dict):
        insert = INSERT_FORMAT.match(sql)
        if insert and insert.group(1).lower() != "values":
            into = sql[: sql.upper().rindex("FORMAT")]
            # Through a file: the engine's streaming insert says "done" where it refuses, and data behind the statement ends
            # at the first empty line.
            with tempfile.NamedTemporaryFile() as file:
                file.write(raw)
                file.flush()
                done = connection.query(f"{into} FROM INFILE '{file.name}' COMPRESSION 'none' FORMAT {insert.group(1)}")
            return b"", {"written_rows": done.rows_read(), "written_bytes": done.bytes_read()}
        if raw:
            sql = (sql + ("\n" if sql else "") + raw.decode()).strip()
        done = connection.query(sql, form, params=parameters) if parameters else connection.query(sql, form)
        read = done.rows_read()
        return done.bytes() or b"", {"read_rows": read, "read_bytes": done.bytes_read(), "written_rows": read, "result_rows": read}

    def give_back(self, connection, settings):
        try:
            if settings:
                connection.query("SET " + ", ".join(f"{name}=DEFAULT" for name, _ in settings))
        except Exception:
            pass  # a name that the engine did not know either
        connections.put(connection)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


def main():
    global version, wanted_password
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--port", type=int, required=True)
    arguments.add_argument("--path", required=True, help="where the engine keeps its data")
    arguments.add_argument("--connections", type=int, default=8)
    arguments.add_argument("--password", default="")
    given = arguments.parse_args()
    wanted_password = given.password
    opened = [chdb.connect(given.path) for _ in range(given.connections)]
    for connection in opened:
        connections.put(connection)
    version = opened[0].query("select version()", "TabSeparated").data().strip()
    server = Server(("127.0.0.1", given.port), Front)

    def stop(*_):
        threading.Thread(target=server.shutdown, daemon=True).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print(f"ClickHouse {version} on http://127.0.0.1:{given.port}", flush=True)
    server.serve_forever(poll_interval=0.1)
    server.server_close()
    for connection in opened:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
