"""The page of `k3dn app` in the browser, made with Gradio: drop files, restore, compare, download.

It is served to this machine alone, and reads nothing from the network: no analytics, no remote fonts; a policy forbids
the browser any other address. What is dropped is kept in a temporary folder that is removed when the page is closed.
This is the only file that knows gradio.
"""
import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from k3dn_plugin.analysis.photograph import PhotographSettings, restore_photograph, without_folder
from k3dn_plugin.console import environment_variable
from k3dn_plugin.data.raw.base import Axis
from k3dn_plugin.errors import DataError, DependencyError, K3DNError, OptionError
from k3dn_plugin.zoo.load import LoadedRestorer, load_restorer
from k3dn_plugin.zoo.released import default_weights
from k3dn_plugin.zoo.sources import released_names

Load = Callable[[str], LoadedRestorer]
HOST = "127.0.0.1"
HOSTS = (HOST, "localhost")
# Gradio's own code needs inline scripts and styles; nothing may come from elsewhere.
POLICY = ("default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
          "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
          "connect-src 'self' blob:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'")
AXES: dict[str, Axis | None] = {
    "as the files say": None, "along the columns (x)": "x", "along the rows (y, a turned camera)": "y"}
INTRODUCTION = """# Sharpen a dual-pixel photograph
Drop the left and the right view (PNG, TIFF or JPEG; names ending in `_L` and `_R`, or by the order of their names), or
one raw file that holds both (Canon Dual Pixel RAW, DNG). All work is done on this machine."""


def import_gradio() -> Any:
    """Return the package gradio, told to report nothing to anybody.

    Raises:
        DependencyError: it is not installed.
    """
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")
    try:
        import gradio  # pyright: ignore[reportMissingImports]  # optional and heavy: the extra [app]
    except ImportError as error:
        raise DependencyError(f"the page needs gradio ({error}): pip install 'k3dn_plugin[app]', or pip install "
                              "gradio") from None
    return gradio


@contextlib.contextmanager
def served_page(*, weights: Sequence[str] = (), load: Load = load_restorer, port: int | None = None,
                open_browser: bool = False) -> Iterator[str]:
    """Context in which the page is served to this machine; gives its address.

    Args:
        weights: names and files to choose from, beside the released ones; the first is the choice at the start.
        load: returns the restorer that a name or file stands for, ready to run where and as precisely as wanted.
        port: None for the first free one from 7860.
        open_browser: open the page in the user's browser.

    Raises:
        DependencyError: gradio is not installed.
        OptionError: the port is taken.
    """
    # Gradio keeps there what is dropped.
    with (tempfile.TemporaryDirectory(prefix="k3dn_app_") as folder,
          environment_variable("GRADIO_TEMP_DIR", str(Path(folder) / "gradio"))):
        gradio = import_gradio()
        from starlette.middleware import Middleware  # come with gradio
        from starlette.middleware.trustedhost import TrustedHostMiddleware
        page = build_page(gradio, Path(folder), weights=weights, load=load)
        theme = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
        middleware = [Middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS)), Middleware(_Policy)]
        try:
            _, address, _ = page.queue(default_concurrency_limit=1).launch(
                server_name=HOST, server_port=port, prevent_thread_lock=True, quiet=True, share=False,
                inbrowser=open_browser, ssr_mode=False, pwa=False, mcp_server=False, enable_monitoring=False,
                footer_links=[], show_error=True, theme=theme, allowed_paths=[folder],
                app_kwargs={"middleware": middleware})
        except OSError as error:
            raise OptionError(f"--port {port}: cannot be used ({error}); choose another, or leave it out") from None
        try:
            yield address
        finally:
            page.close(verbose=False)


def build_page(gradio: Any, folder: Path, *, weights: Sequence[str], load: Load) -> Any:
    """Return the page as Gradio's `Blocks`; results go into `folder`."""
    names = [*weights]
    with contextlib.suppress(OptionError):
        names.append(default_weights())
    choices = list(dict.fromkeys([*names, *released_names()]))
    with gradio.Blocks(title="k3dn: sharpen a dual-pixel photograph", analytics_enabled=False,
                       delete_cache=(3600, 3600)) as page:
        gradio.Markdown(INTRODUCTION)
        with gradio.Row():
            with gradio.Column(scale=1, min_width=280):
                files = gradio.File(file_count="multiple", type="filepath", label="two views, or one raw file",
                                    elem_id="files", height=150)
                source = gradio.Dropdown(choices, value=choices[0] if choices else None, allow_custom_value=True,
                                         label="weights: a name, or a file on this machine", elem_id="weights")
                strength = gradio.Slider(0, 1, value=1, step=0.05, label="strength")
                axis = gradio.Dropdown(list(AXES), value=next(iter(AXES)), label="the views are shifted")
                swap = gradio.Checkbox(label="exchange left and right")
                with_map = gradio.Checkbox(value=True, label="show the disparity map")
                button = gradio.Button("Restore", variant="primary", elem_id="restore")
            with gradio.Column(scale=3):
                slider = gradio.ImageSlider(label="before | after: drag the line, the wheel zooms", format="png",
                                            interactive=False, elem_id="slider", max_height=640,
                                            buttons=["fullscreen"])
                facts = gradio.Markdown(elem_id="facts")
                with gradio.Row():
                    download = gradio.DownloadButton("Download (PNG, 16 bit)", interactive=False, elem_id="download")
                    html = gradio.DownloadButton("Download the page with the slider", interactive=False,
                                                 elem_id="html")
                disparity = gradio.Image(label="disparity", interactive=False, visible=False, format="png",
                                         elem_id="map", buttons=["download", "fullscreen"])
        button.click(_answer(gradio, folder, load), [files, source, strength, axis, swap, with_map],
                     [slider, facts, download, html, disparity], api_visibility="private", concurrency_limit=1)
    return page


def _answer(gradio: Any, folder: Path, load: Load) -> Callable[..., tuple[Any, ...]]:
    """Return what a click on the button calls."""
    loaded = lru_cache(maxsize=2)(load)

    def answer(files: list[str] | None, source: str | None, strength: float, axis: str, swap: bool, with_map: bool,
               progress: Any = gradio.Progress()) -> tuple[Any, ...]:  # noqa: B008 - how gradio hands it in
        work = Path(tempfile.mkdtemp(dir=folder))
        try:
            progress(0, desc="reading")
            dropped = [beside_each_other(Path(file), work / "views") for file in files or ()]
            settings = PhotographSettings(swap=swap, disparity_axis=AXES[axis], strength=strength, with_map=with_map)
            found = restore_photograph(dropped, loaded(source or default_weights()), work, settings,
                                       lambda done, total: progress((done, total), unit="tiles", desc="restoring"))
        except K3DNError as error:
            shutil.rmtree(work, ignore_errors=True)
            raise gradio.Error(without_folder(error, work / "views", work), duration=None,
                               print_exception=False) from None
        shutil.rmtree(work / "views", ignore_errors=True)
        lines = [found.facts, *(f"Note: {without_folder(note, work / 'views', work)}" for note in found.notes)]
        return ((found.before, found.after), "\n\n".join(map(_plain, lines)),
                gradio.update(value=str(found.file), interactive=True),
                gradio.update(value=str(found.page), interactive=True),
                gradio.update(value=found.map, label=found.map_title, visible=found.map is not None))
    return answer


def beside_each_other(file: Path, folder: Path) -> Path:
    """Link or copy a dropped file into a folder with the others: a camera file may belong to another one.

    Raises:
        DataError: one of its name is there.
    """
    folder.mkdir(exist_ok=True)
    place = folder / file.name
    if place.exists():
        raise DataError(f"two files are named {file.name}: expected each view once; rename them NAME_L and "
                        "NAME_R")
    try:
        os.link(file, place)
    except OSError:
        shutil.copyfile(file, place)
    return place


def _plain(text: str) -> str:
    """Return text that Markdown shows as it is."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]()#+-.!<>|~$&" else c for c in text)


class _Policy:
    """Adds the content policy to every answer.

    Args:
        app: the ASGI application.
    """

    def __init__(self, app: Callable[..., Any]) -> None:
        self._app = app

    async def __call__(self, scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        async def with_policy(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"content-security-policy", POLICY.encode())]
            await send(message)
        await self._app(scope, receive, with_policy if scope["type"] == "http" else send)
