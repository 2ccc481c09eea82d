"""A server that speaks OpenAI's protocol and judges by the words that two answers share."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def opinion(question, gold, prediction):
    """Yes if they are the same words, and 5 or 0."""
    right = prediction.strip().lower() == gold.lower()
    return json.dumps({"pred": "yes" if right else "no", "score": 5 if right else 0})


class Server:
    """What was asked of it, and how it answers."""

    def __init__(self):
        self.requests, self.keys, self.together, self.most = [], [], 0, 0
        self.models = ["judge-7b"]
        self.reply = opinion  # of question, correct and predicted answer
        self.status = lambda number: 200  # of the number of the request
        self.body = None  # in place of what it would send
        self.hold = None  # called before it answers
        self.lock = threading.Lock()
        self.url = ""


@contextmanager
def serving():
    """A server that runs meanwhile."""
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send(200, {"data": [{"id": name} for name in server.models]})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server.lock:
                server.requests.append(body)
                server.keys.append(self.headers.get("Authorization"))
                number = len(server.requests)
                server.together += 1
                server.most = max(server.most, server.together)
            try:
                if server.hold:
                    server.hold()
                if (status := server.status(number)) != 200:
                    return self.send(status, {"error": {"message": "too many cooks"}})
                text = body["messages"][-1]["content"]
                told = [
                    text.partition(f"{name}: ")[2].partition("\n")[0]
                    for name in ("Question", "Correct answer", "Predicted answer")
                ]
                self.send(200, {"choices": [{"message": {"content": server.reply(*told)}}]})
            finally:
                with server.lock:
                    server.together -= 1

        def send(self, status, value):
            data = json.dumps(value).encode() if server.body is None else server.body
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "http://127.0.0.1:9/elsewhere")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_):  # a client that went away
            pass

    http = Quiet(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
