"""Run a notebook's cells in a fresh kernel, with a hook for progress."""

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from nbclient import NotebookClient
from nbformat import NotebookNode

Listener = Callable[[int, str], None]  # called with a cell's index and the text that the cell just printed


class ListeningClient(NotebookClient):
    """An nbclient that passes each printed text on while the cell still runs."""

    listener: Listener | None = None
    main: asyncio.Task | None = None
    stopped = False

    async def async_start_new_kernel(self, **kwargs) -> None:
        self.main = asyncio.current_task()
        await super().async_start_new_kernel(**kwargs)

    async def _async_cleanup_kernel(self) -> None:
        if asyncio.current_task() is not self.main:  # nbclient's handler of SIGINT and SIGTERM, while a cell runs
            self.stopped = True
            self.shutdown_kernel = "immediate"  # asked kindly, it prints a traceback of its own
        if self.km is not None:
            await super()._async_cleanup_kernel()

    def output(self, outs: list, msg: dict, display_id: str | None, cell_index: int) -> NotebookNode | None:
        if self.listener is not None and msg["msg_type"] == "stream":
            self.listener(cell_index, msg["content"]["text"])
        return super().output(outs, msg, display_id, cell_index)


@contextmanager
def private_jupyter() -> Iterator[dict[str, str]]:
    """Keep kernels away from the user's IPython start-up files and history, and from a home that cannot be written.

    Sets this process's environment (the connection file is written here) and yields what the kernel's has to say.
    """
    names = ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR")
    before = {name: os.environ.get(name) for name in names}
    with tempfile.TemporaryDirectory(prefix="minivlm-", ignore_cleanup_errors=True) as scratch:
        private = {name: str(Path(scratch, name.lower())) for name in names}
        os.environ.update(private)
        try:
            yield private
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


def execute(
    notebook: NotebookNode,
    folder: Path,
    environment: Mapping[str, str],
    on_start: Callable[[int], None] | None = None,
    on_text: Listener | None = None,
    on_done: Callable[[int], None] | None = None,
) -> None:
    """Run every cell in place, in a kernel of this Python whose working directory is `folder`.

    Raises nbclient's CellExecutionError at the first cell that fails; the outputs up to there are kept.
    """
    hooks = {}
    if on_start is not None:
        hooks["on_cell_start"] = lambda cell, cell_index: on_start(cell_index)
    if on_done is not None:
        hooks["on_cell_executed"] = lambda cell, cell_index, execute_reply: on_done(cell_index)
    with private_jupyter() as private:
        client = ListeningClient(
            notebook,
            timeout=None,
            startup_timeout=120,
            kernel_name="python3",
            record_timing=False,
            store_widget_state=False,
            coalesce_streams=True,
            extra_arguments=["--log-level=ERROR"],  # else each kernel warns of TCP without encryption
            resources={"metadata": {"path": str(folder)}},
            **hooks,
        )
        client.listener = on_text
        try:
            client.execute(env={**environment, **private})
        except BaseException:
            if client.stopped:
                raise KeyboardInterrupt from None
            raise
