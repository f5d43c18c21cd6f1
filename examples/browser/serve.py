"""Serve the page and the API under one origin, so that no CORS is needed. In production, nginx does it.

python examples/browser/serve.py [--port 8080] [http://localhost:8000]
"""

from __future__ import annotations

import argparse
import http.client
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

PAGE = Path(__file__).with_name("index.html")
PASSED = ("content-type", "x-request-id", "last-event-id", "x-on-disconnect", "x-disconnect-grace-secs")


class Handler(BaseHTTPRequestHandler):
    upstream: str

    def do_GET(self) -> None:
        if self.path == "/":
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(PAGE.read_bytes())
        else:
            self.forward()

    def do_POST(self) -> None:
        self.forward()

    def forward(self) -> None:
        """Forward a call without buffering. When the page closes its connection, close the one to the frontend."""
        connection = http.client.HTTPConnection(self.upstream, timeout=60)
        try:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name: value for name, value in self.headers.items() if name.lower() in PASSED}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.getheader("Content-Type", "text/plain"))
            self.end_headers()
            while piece := answer.read1(65_536):
                self.wfile.write(piece)
        except ConnectionError:
            pass  # the page was closed or reloaded
        finally:
            connection.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("frontend", nargs="?", default="http://localhost:8000")
    arguments = parser.parse_args()
    Handler.upstream = urlsplit(arguments.frontend).netloc
    server = ThreadingHTTPServer(("127.0.0.1", arguments.port), Handler)
    print(f"http://127.0.0.1:{server.server_port}/", flush=True)
    server.serve_forever()
