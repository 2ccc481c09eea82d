# %% [markdown]
# # Serve
#
# `prumerge serve` speaks OpenAI's protocol, so any client works. It is started as a process of its own
# here, on a port that is free; in a terminal it is `prumerge serve --model tiny`.

# %%
import base64
import json
import socket
import subprocess
import sys
import time
from urllib.error import URLError
from urllib.request import Request, urlopen

from prumerge.tiny import samples

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
command = [sys.executable, "-m", "prumerge", "serve", "--model", "tiny", "--port", str(port)]
server = subprocess.Popen(
    [*command, "--allow-reducers", "spatial"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
)

# %%
address = f"http://127.0.0.1:{port}"


def ready():
    try:
        return urlopen(f"{address}/ready").status == 200
    except URLError:
        return False


while not ready():
    assert server.poll() is None, "the server has ended"
    time.sleep(0.2)
print("ready")

# %% [markdown]
# A request as OpenAI's client would send it: a picture as data, and a question.

# %%
picture = base64.b64encode(samples()[1].path.read_bytes()).decode()


def ask(question, **more):
    content = [
        {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{picture}"}},
        {"type": "text", "text": question},
    ]
    body = {"model": "tiny", "messages": [{"role": "user", "content": content}], "max_tokens": 8, **more}
    request = Request(
        f"{address}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    return json.load(urlopen(request))


question = "what does the sign say?"
reply = ask(question)
print(question, "->", reply["choices"][0]["message"]["content"])

# %% [markdown]
# `usage` says how many visual tokens there were and are. A request may choose its own method and budget.

# %%
print(json.dumps(reply["usage"], indent=1))
print(json.dumps(ask(question, reducer="spatial", keep=16)["usage"], indent=1))

# %%
server.terminate()
print("ended with", server.wait(timeout=60))

# %% [markdown]
# Batches, streams, limits, and vLLM behind it: [Serving](../serving.md).
