"""The engine behind a URL: stock vLLM with the language model alone, which is sent embeddings."""

from __future__ import annotations

import asyncio
import base64
import io
import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from prumerge.errors import PrumergeError
from prumerge.pipeline.reduce import Pipeline
from prumerge.serve.answers import visual
from prumerge.serve.asked import Allowed, Asked
from prumerge.serve.encoder import Encoder
from prumerge.serve.engine import Attempt
from prumerge.serve.envelope import Chat
from prumerge.serve.host import Host
from prumerge.serve.limits import Limits
from prumerge.serve.metrics import Metrics
from prumerge.serve.probe import probe
from prumerge.serve.prompts import prompt_of
from prumerge.serve.reduced import Reduced
from prumerge.serve.refusal import Refusal
from prumerge.serve.travel import check_travels
from prumerge.serve.upstream import Failed, Upstream

# Fields that would change how the engine reads its prompt.
_OURS = {
    "add_generation_prompt", "add_special_tokens", "allowed_token_ids", "cache_salt", "chat_template",
    "chat_template_kwargs", "continue_final_message", "documents", "echo", "image_embeds",
    "kv_transfer_params", "media_io_kwargs", "mm_processor_kwargs", "priority", "prompt_embeds",
    "prompt_logprobs", "request_id", "truncate_prompt_tokens", "vllm_xargs",
}  # fmt: skip


class Vllm:
    """Answers by a vLLM server, or by a router in front of several."""

    def __init__(
        self, host: Host, encoder: Encoder, metrics: Metrics, allowed: Allowed, url: str, limits: Limits
    ) -> None:
        self.host, self.encoder, self.allowed = host, encoder, allowed
        self.upstream = Upstream(url, metrics, connect=5, first=limits.seconds)
        self.model, self.context = "", host.context

    async def start(self) -> None:
        """Look whether this model can be served so, and whether the engine has its weights."""
        check_travels(self.host.model, self.host.processor)
        self._check(Pipeline(self.allowed.default, self.allowed.options))
        if self.allowed.options.placing != "compact":
            raise PrumergeError("vLLM counts positions without gaps; leave --positions out")
        url = self.upstream.url
        try:
            card = (await self.upstream.get("/v1/models"))["data"][0]
            self.model = card["id"]
            self.context = min(self.context, card.get("max_model_len") or self.context)
        except (Failed, LookupError, TypeError) as error:
            raise PrumergeError(
                f"no engine answers at {url} ({type(error).__name__}: {str(error)[:80]}); start one: "
                "vllm serve FOLDER --enable-prompt-embeds, with a folder of prumerge export-lm"
            ) from None
        await probe(self)
        await self.host.run(_forget_layers, self.host.model)

    async def stop(self) -> None:
        await self.upstream.close()

    async def ready(self) -> bool:
        try:
            await self.upstream.get("/health")
        except Failed:
            return False
        return True

    def check(self, chat: Chat) -> None:
        if other := next((name for name in chat.more if name in _OURS), None):
            raise Refusal(
                f"{other!r} is not taken from clients; leave it out",
                param=other,
                code="unsupported_parameter",
            )

    async def attempt(self, asked: Asked, pictures: Sequence[Reduced], least: float) -> Attempt:
        body = await self._body(asked, pictures)
        found = await self.upstream.whole({**body, "logprobs": True, "return_token_ids": True})
        try:
            [choice] = found["choices"]
            sure = [float(one["logprob"]) for one in choice["logprobs"]["content"]]
            return Attempt(choice["token_ids"], math.exp(sum(sure)), found["usage"]["prompt_tokens"])
        except (LookupError, TypeError, ValueError):
            raise Refusal(
                "the engine does not say how probable its answers are, which a guard needs",
                502,
                code="engine_unavailable",
            ) from None

    async def whole(self, asked: Asked) -> dict[str, Any]:
        self._check(asked.pipeline)
        pictures = await self.encoder.reduce(asked)
        body = await self._body(asked, pictures)
        found = await self.upstream.whole(body)
        for choice in found["choices"]:
            if isinstance(content := choice["message"].get("content"), str):
                choice["message"]["content"] = content.lstrip()
        return {**found, "usage": _counted(found.get("usage"), pictures)}

    async def stream(self, asked: Asked) -> AsyncGenerator[dict[str, Any], None]:
        self._check(asked.pipeline)
        pictures = await self.encoder.reduce(asked)
        body = await self._body(asked, pictures)
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        begun: set[int] = set()  # choices whose first words came
        async with aclosing(self.upstream.stream(body)) as chunks:
            async for chunk in chunks:
                for choice in chunk.get("choices") or ():
                    delta, index = choice.get("delta") or {}, choice.get("index", 0)
                    if index not in begun and (content := delta.get("content")):
                        delta["content"] = content.lstrip()
                        begun |= {index} if delta["content"] else set()
                if not chunk.get("usage"):
                    yield {name: value for name, value in chunk.items() if name != "usage"}
                else:
                    yield {**chunk, "usage": _counted(chunk["usage"], pictures)}

    def _check(self, pipeline: Pipeline) -> None:
        """Raise Refusal for what happens inside the language model."""
        if pipeline.placed.layers is not None:
            raise Refusal(
                f"{pipeline.method} works inside the language model, which vLLM has its own; take a method "
                "before it, or serve without --engine",
                param="reducer",
                code="invalid_value",
            )

    async def _body(self, asked: Asked, pictures: Sequence[Reduced]) -> dict[str, Any]:
        """What the engine is asked."""
        embeddings = await self.host.run(self.embedded, asked, pictures)
        room = self.context - len(embeddings)
        if room < 1:
            raise Refusal(
                f"the prompt has {len(embeddings)} tokens, and the model reads {self.context} with its "
                "answer; send less",
                code="context_length_exceeded",
            )
        chat = asked.chat
        given = {"top_p": chat.top_p, "seed": chat.seed, "stop": chat.stop, "n": chat.n}
        return {
            **chat.more,
            **{name: value for name, value in given.items() if value is not None},
            "model": self.model,
            "messages": [{"role": "user", "content": [await asyncio.to_thread(part, embeddings)]}],
            "chat_template_kwargs": {"rendered": True},
            "temperature": chat.temperature or 0.0,
            "max_tokens": min(asked.most, room),
        }

    def embedded(self, asked: Asked, pictures: Sequence[Reduced]) -> Float[Tensor, "L H"]:
        """The shortened prompt as the language model reads it, in the model's thread."""
        prompt = prompt_of(self.host, [asked], [pictures])
        shorter = dict(prompt.inputs)
        if pictures:
            left = [one.left for one in pictures]
            shorter = asked.pipeline.splice(prompt, left, [one.embeddings for one in pictures])
        if (whole := shorter.get("inputs_embeds")) is not None:
            return whole[0].cpu()
        ids = shorter["input_ids"][0]
        embeddings = self.host.model.get_input_embeddings()(ids)
        if pictures:
            shown = ids == self.host.model.config.image_token_id
            embeddings[shown] = torch.cat([one.embeddings for one in pictures]).to(embeddings)
        return embeddings.cpu()


def part(embeddings: Float[Tensor, "L H"]) -> dict[str, str]:
    """Embeddings as the one part of a message to vLLM."""
    buffer = io.BytesIO()
    torch.save(embeddings.contiguous().clone(), buffer)
    return {"type": "prompt_embeds", "data": base64.b64encode(buffer.getvalue()).decode()}


def _counted(usage: Any, pictures: Sequence[Reduced]) -> dict[str, Any]:
    """The engine's counts, and the visual tokens."""
    counted = usage if isinstance(usage, dict) else {}
    details = counted.get("prompt_tokens_details") or {}
    return {
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "total_tokens": 0,
        **counted,
        "prompt_tokens_details": {**details, **visual(pictures)},
    }


def _forget_layers(model: Any) -> None:
    """Let go of the language model's layers, which the engine has: what is left embeds words."""
    model.get_decoder().layers = nn.ModuleList()
