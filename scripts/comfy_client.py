"""Talk to a ComfyUI server: queue a prompt over HTTP, follow it over its WebSocket."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import websocket

Prompt = dict[str, Any]
Event = tuple[str, dict[str, Any]]

CANCEL_POLL_SECONDS = 0.05
ANSWER_SECONDS = 300.0  # a machine may be busy with other things
PREVIEW = "preview"
"""The name given to a preview picture among the events; it carries no data."""


class ClientError(RuntimeError):
    """The server did not do what was asked."""


class PromptRejectedError(ClientError):
    """The server found the prompt invalid; ``node_errors`` says where."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.node_errors: dict[str, Any] = answer.get("node_errors") or {}
        super().__init__(" ".join(_sentences(answer)))


class ExecutionError(ClientError):
    """A node failed; the message is the node's own."""


@dataclass(kw_only=True, slots=True)
class Run:
    """What happened to one queued prompt."""

    prompt_id: str
    status: str = "running"
    """``success``, ``error`` or ``interrupted`` at the end."""
    events: list[Event] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)
    """What the output nodes showed, by node id (from the history)."""
    error: str = ""

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The data of all events of one kind, in order."""
        return [data for name, data in self.events if name == kind]

    @property
    def cached(self) -> set[str]:
        """The nodes whose result was still there."""
        return {node for data in self.of("execution_cached") for node in data["nodes"]}

    @property
    def executed(self) -> list[str]:
        """The nodes that ran, in order."""
        nodes = [data["node"] for data in self.of("executing") if data["node"] is not None]
        return list(dict.fromkeys(nodes))

    def raise_for_status(self) -> Run:
        """Return this run if it succeeded.

        Raises:
            ExecutionError: If a node failed or the run was interrupted.
        """
        if self.status != "success":
            raise ExecutionError(self.error or f"The run ended as {self.status}.")
        return self


class ComfyClient:
    """A client of one server; every method is one request, but for :meth:`run`."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def object_info(self) -> dict[str, Any]:
        """Descriptions of all nodes that the server has."""
        return dict(self._request("/object_info"))

    def system_stats(self) -> dict[str, Any]:
        """The server's versions, and the memory of its devices."""
        return dict(self._request("/system_stats"))

    def history(self, prompt_id: str) -> dict[str, Any]:
        """The record of a finished prompt."""
        return dict(self._request(f"/history/{prompt_id}")[prompt_id])

    def view(self, image: dict[str, str]) -> bytes:
        """The file of a picture that an output node reported."""
        return self._read(f"/view?{urllib.parse.urlencode(image)}")

    def interrupt(self) -> None:
        """Stop the running prompt."""
        self._request("/interrupt", {})

    def cancel(self, prompt_id: str) -> None:
        """Take a prompt off the queue, or stop it, and wait until it is gone."""
        while prompt_id in self._unfinished():
            # Again and again: an interrupt that comes before the prompt starts is forgotten.
            self._request("/queue", {"delete": [prompt_id]})
            self._request("/interrupt", {"prompt_id": prompt_id})
            time.sleep(CANCEL_POLL_SECONDS)

    def _unfinished(self) -> set[str]:
        queue = self._request("/queue")
        return {item[1] for item in queue["queue_running"] + queue["queue_pending"]}

    def free(self) -> None:
        """Unload models and empty the cache of results."""
        self._request("/free", {"unload_models": True, "free_memory": True})

    def submit(
        self, prompt: Prompt, *, client_id: str, workflow: dict[str, Any] | None = None
    ) -> str:
        """Queue a prompt.

        Args:
            prompt: The prompt in API format.
            client_id: Whom the server tells about its progress.
            workflow: The same in UI format, to be embedded in saved pictures.

        Returns:
            The prompt's id.

        Raises:
            PromptRejectedError: If the server finds any part of the prompt invalid.
        """
        extra = {"extra_pnginfo": {"workflow": workflow}} if workflow else {}
        body = {"prompt": prompt, "client_id": client_id, "extra_data": extra}
        answer = self._request("/prompt", body)
        if answer["node_errors"]:
            # The rest of the prompt is queued nevertheless; half a result is not what was asked.
            self.cancel(answer["prompt_id"])
            raise PromptRejectedError(answer)
        return str(answer["prompt_id"])

    def run(
        self,
        prompt: Prompt,
        *,
        workflow: dict[str, Any] | None = None,
        on_event: Callable[[str, dict[str, Any]], None] | None = None,
        seconds: float = 600.0,
    ) -> Run:
        """Queue a prompt and follow it to its end, good or bad.

        Args:
            prompt: The prompt in API format.
            workflow: The same in UI format, to be embedded in saved pictures.
            on_event: Told of every event as it comes.
            seconds: How long the server may be silent.

        Raises:
            ClientError: If the prompt is rejected or the connection breaks.
        """
        client_id = uuid.uuid4().hex
        address = f"ws{self.url.removeprefix('http')}/ws?clientId={client_id}"
        try:
            socket = websocket.create_connection(address, timeout=seconds)
            try:
                run = Run(prompt_id=self.submit(prompt, client_id=client_id, workflow=workflow))
                while not _finished(run):
                    _take(run, socket.recv(), on_event)
            finally:
                socket.close()
        except (websocket.WebSocketException, OSError) as error:
            raise ClientError(f"The connection to ComfyUI broke: {error}") from error
        run.outputs = self.history(run.prompt_id)["outputs"]
        return run

    def _request(self, path: str, body: dict[str, Any] | None = None) -> Any:  # noqa: ANN401
        text = self._read(path, body)
        return json.loads(text) if text else None

    def _read(self, path: str, body: dict[str, Any] | None = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:  # noqa: S310
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            text = error.read()
            if error.code == 400 and path == "/prompt":
                raise PromptRejectedError(json.loads(text)) from error
            raise ClientError(f"ComfyUI answered {error.code} to {path}.") from error
        except urllib.error.URLError as error:
            raise ClientError(f"ComfyUI does not answer: {error.reason}") from error


def _sentences(answer: dict[str, Any]) -> list[str]:
    """What the server says against a prompt, most specific first."""
    errors = [e for node in (answer.get("node_errors") or {}).values() for e in node["errors"]]
    said = [str(e["details"] or e["message"]) for e in errors]
    return said or [str(answer.get("error", {}).get("message", "The prompt was rejected."))]


def _finished(run: Run) -> bool:
    """Whether the server has said that it is done, which it does after writing the history."""
    return bool(run.events) and run.events[-1][0] == "executing" and not run.events[-1][1]["node"]


_ENDS = {
    "execution_success": "success",
    "execution_error": "error",
    "execution_interrupted": "interrupted",
}


def _take(
    run: Run, message: str | bytes, on_event: Callable[[str, dict[str, Any]], None] | None
) -> None:
    """Add one message of the WebSocket to the run, if it is about it."""
    kind, data = PREVIEW, {}
    if isinstance(message, str):
        content = json.loads(message)
        kind, data = content["type"], content.get("data") or {}
        if data.get("prompt_id") != run.prompt_id:
            return
    run.events.append((kind, data))
    run.status = _ENDS.get(kind, run.status)
    if kind == "execution_error":
        run.error = str(data.get("exception_message", "")).strip()
    if on_event:
        on_event(kind, data)
