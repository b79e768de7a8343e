"""What the page has, and what happens on it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI

from serving.server.refusals import RefusedError
from serving.server.service import FORMATS, Service
from serving.server.settings import MEBIBYTE
from serving.web import uploads, views

FONTS = ("ui-sans-serif", "system-ui", "sans-serif")
THEME = gr.themes.Default(primary_hue="blue", neutral_hue="slate", font=FONTS, font_mono=("ui-monospace", "monospace"))
NOTHING = '<p class="fs-nothing">The answer appears here.</p>'
LIVE = '<div role="status" aria-live="polite">${value}</div>'
"""Read out when it changes."""
File = dict[str, Any]
"""What Gradio says of an upload: its path, among others."""


def application(service: Service) -> FastAPI:
    """Gradio's, with the page at its root."""
    settings = service.settings
    return gr.mount_gradio_app(
        FastAPI(openapi_url=None),
        page(service),
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=settings.body * MEBIBYTE,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        theme=THEME,
        css=(views.FOLDER / "style.css").read_text(encoding="utf-8"),
    )


def page(service: Service) -> gr.Blocks:
    bundle, settings = service.bundle, service.settings
    with gr.Blocks(title="foldstack", analytics_enabled=False) as blocks:
        count, classes = len(bundle.backbones), len(bundle.classes)
        gr.HTML(f"<h1>foldstack</h1><p>A stack of {count} backbones tells {classes} classes apart.</p>", elem_id="fs-head")
        with gr.Tabs():
            with gr.Tab("One image"):
                one(service)
            with gr.Tab("Several images"):
                several(service)
        gr.HTML(views.about(bundle, service.version))
    # Events of the page and requests of the API go through the same batches, so the queue there is the bound.
    return blocks.queue(max_size=settings.queue, api_open=False, default_concurrency_limit=settings.batch)


def one(service: Service) -> None:
    async def classify(file: File | None) -> str:
        if file is None:
            return NOTHING
        try:
            (content,) = await asyncio.to_thread(uploads.contents, [Path(file["path"])], service.settings)
            return views.answer(service.bundle, await service.classify(content), service.version)
        except RefusedError as error:
            return views.refusal(error)

    with gr.Row(equal_height=False):
        with gr.Column():
            image = gr.Image(
                label="Image",
                type="filepath",
                image_mode=None,
                height=320,
                buttons=[],
                webcam_options=gr.WebcamOptions(mirror=False),
                alt_text="the image to classify",
            )
            if examples := service.bundle.manifest.get("examples"):
                paths = [str(service.bundle.folder / each["file"]) for each in examples]
                gr.Examples(paths, image, label="Images of the test set")
        with gr.Column():
            answer = gr.HTML(NOTHING, html_template=LIVE)
    event(image, classify, answer)


def several(service: Service) -> None:
    settings = service.settings

    async def classify(files: Sequence[File] | None) -> str:
        if not files:
            return NOTHING
        paths = [Path(each["path"]) for each in files]
        try:
            contents = await asyncio.to_thread(uploads.contents, paths, settings)
            found = await service.classify_each(contents)
            return views.batch(service.bundle, paths, found, service.version)
        except RefusedError as error:
            return views.refusal(error)

    label = f"At most {settings.files} images, {settings.body} MiB together"
    files = gr.File(label=label, file_count="multiple", file_types=[f".{name.lower()}" for name in FORMATS] + [".jpg"], height=160)
    table = gr.HTML(NOTHING, html_template=LIVE)
    event(files, classify, table)


def event(given: Any, classify: Any, answer: gr.HTML) -> None:
    """Whatever changes the images, by hand or from the examples. Gradio itself opens none of them."""
    given.change(
        classify, given, answer, preprocess=False, show_progress="minimal", trigger_mode="always_last", api_visibility="private"
    )
