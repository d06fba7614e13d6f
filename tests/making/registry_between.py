"""registry_between.py DIRECTORY [UPSTREAM]

Stands between a registry on UPSTREAM (host:port) and those who ask it, and makes trouble. Without UPSTREAM it has
nothing. In DIRECTORY it writes `port`, and a line for each request into `log`: method, path, Range and Authorization,
each - if there is none. It reads there, anew for each request:

rules       a list of JSON: {"path": REGEX, "times": N (else always), and what is to happen:
            "status", "headers", "body"      this answer instead
            "cut": N                         after N bytes of the answer's body, the connection is reset
            "hang": N                        after N bytes, nothing comes any more
            "short": N                       the answer's body is N bytes, and says so
            "turn": N                        byte N of the body is another one
            "whole": true                    a Range is not looked at
            "pace": N                        N bytes every 0.05 s}
login       {"basic": "user:password"}, or {"token": "user:password" or "", "realm": URL (else its own /token)}
cert.pem, key.pem   TLS, if they are there when it begins"""

import base64
import http.client
import http.server
import json
import os
import re
import socket
import ssl
import struct
import sys
import threading
import time

DIRECTORY = sys.argv[1]
UPSTREAM = sys.argv[2] if len(sys.argv) > 2 else None
SECRET = "a-token-for-those-who-asked"
lock = threading.Lock()
used = {}


def read(name, otherwise):
    try:
        with open(os.path.join(DIRECTORY, name)) as file:
            return json.load(file)
    except FileNotFoundError:
        return otherwise


def basic(text):
    return "Basic " + base64.b64encode(text.encode()).decode()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def rule(self):
        with lock:
            for rule in read("rules", []):
                key = json.dumps(rule)
                if not re.search(rule["path"], self.path):
                    continue
                if "times" in rule and used.get(key, 0) >= rule["times"]:
                    continue
                used[key] = used.get(key, 0) + 1
                return rule
        return {}

    def answer(self, status, headers, body=b""):
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def refused(self):
        """Whether the login that there is was not enough, and the answer says so."""
        login, got = read("login", {}), self.headers.get("Authorization")
        own = f"{'https' if TLS else 'http'}://127.0.0.1:{PORT}"
        if self.path.startswith("/token"):
            if login.get("token") and got != basic(login["token"]):
                self.answer(401, {}, b'{"errors":[{"code":"UNAUTHORIZED","message":"who are you?"}]}')
            else:
                self.answer(200, {}, json.dumps({"token": SECRET}).encode())
            return True
        if "basic" in login and got != basic(login["basic"]):
            self.answer(401, {"WWW-Authenticate": 'Basic realm="here"'})
            return True
        if "token" in login and got != "Bearer " + SECRET:
            realm = login.get("realm", own + "/token")
            self.answer(401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="here",scope="x"'})
            return True
        return False

    def do_GET(self):
        line = [self.command, self.path, self.headers.get("Range", "-"), self.headers.get("Authorization", "-")]
        with lock, open(os.path.join(DIRECTORY, "log"), "a") as log:
            log.write(" ".join(word.replace(" ", "_") for word in line) + "\n")
        rule = self.rule()
        if "status" in rule:
            body = rule.get("body", "")
            body = body if isinstance(body, str) else json.dumps(body)
            return self.answer(rule["status"], rule.get("headers", {}), body.encode())
        if self.refused():
            return None
        if UPSTREAM is None:
            return self.answer(404, {}, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')
        return self.pass_on(rule)

    do_POST = do_GET

    def pass_on(self, rule):
        upstream = http.client.HTTPConnection(UPSTREAM)
        drop = {"authorization", "host"} | ({"range"} if rule.get("whole") else set())
        headers = {name: value for name, value in self.headers.items() if name.lower() not in drop}
        upstream.request("GET", self.path, headers=headers)
        answer = upstream.getresponse()
        body = bytearray(answer.read())
        if "turn" in rule:
            body[rule["turn"]] ^= 0xFF
        if "short" in rule:
            body = body[: rule["short"]]
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if "cut" in rule:
            self.wfile.write(body[: rule["cut"]])
            self.wfile.flush()
            time.sleep(0.1)
            # Reset, not closed in order.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        if "hang" in rule:
            self.wfile.write(body[: rule["hang"]])
            self.wfile.flush()
            time.sleep(60)
            self.close_connection = True
            return
        step = rule.get("pace", len(body) or 1)
        for at in range(0, len(body), step):
            self.wfile.write(body[at : at + step])
            if "pace" in rule:
                time.sleep(0.05)

    def handle(self):
        try:
            super().handle()
        except (ConnectionError, BrokenPipeError, ValueError, OSError):
            self.close_connection = True


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass


server = Server(("127.0.0.1", 0), Handler)
PORT = server.server_address[1]
TLS = os.path.exists(os.path.join(DIRECTORY, "cert.pem"))
if TLS:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.path.join(DIRECTORY, "cert.pem"), os.path.join(DIRECTORY, "key.pem"))
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
with open(os.path.join(DIRECTORY, "port.new"), "w") as file:
    file.write(str(PORT))
os.rename(os.path.join(DIRECTORY, "port.new"), os.path.join(DIRECTORY, "port"))
server.serve_forever()
