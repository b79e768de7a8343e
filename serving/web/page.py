"""What the page has, and what happens on it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI
from gradio.themes import Default

from serving.server.refusals import RefusedError
from serving.server.service import Service
from serving.server.settings import MEBIBYTE
from serving.web import uploads, views

FONTS = ("ui-sans-serif", "system-ui", "sans-serif")
THEME = Default(primary_hue="blue", neutral_hue="slate", font=FONTS, font_mono=("ui-monospace", "monospace")).set(
    body_text_color_subdued="*neutral_500", body_text_color_subdued_dark="*neutral_400"
)  # its own are too pale to read
NOTHING = '<p class="fs-nothing">The answer appears here.</p>'
CHOOSE = """
element.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) trigger("click", { number: Number(button.value) });
});
"""
"""Tells which example was chosen."""
REFUSE = """
const check = (event) => {
    const files = [...(event.target.files ?? event.dataTransfer?.files ?? [])];
    const size = files.reduce((sum, file) => sum + file.size, 0);
    if (files.length <= props.files && size <= props.bytes) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (event.target.files) event.target.value = "";
    else event.target.dispatchEvent(new DragEvent("dragleave", { bubbles: true }));
    trigger("input", { count: files.length, size });
};
const panel = element.closest("[role=tabpanel]");
for (const kind of ["change", "drop"]) panel.addEventListener(kind, check, true);
"""
"""Tells of files that are too large before they are sent: Gradio would show what the server refuses for seconds."""
LIVE = '<div role="status" aria-live="polite">${value}</div>'
"""Read out when it changes."""
RAW: dict[str, Any] = {"preprocess": False, "show_progress": "minimal", "api_visibility": "private"}
"""Gradio itself opens no image: it would decode more formats, and keep other bytes."""
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
        gr.HTML(views.head(bundle), elem_id="fs-head")
        with gr.Tabs():
            with gr.Tab("One image"):
                one(service)
            with gr.Tab("Several images"):
                several(service)
        gr.HTML(views.about(bundle, service.version))
    # Events of the page and requests of the API go through the same batches, so the queue there is the bound.
    return blocks.queue(max_size=settings.queue, api_open=False, default_concurrency_limit=settings.batch)


def one(service: Service) -> None:
    folder, examples = service.bundle.folder, service.bundle.manifest["examples"]
    paths = [folder / each["file"] for each in examples]
    truths = {path.read_bytes(): each["label"] for path, each in zip(paths, examples, strict=True)}

    async def classify(file: File | None) -> str:
        if file is None:
            return NOTHING
        try:
            (content,) = await asyncio.to_thread(uploads.contents, [Path(file["path"])], service.settings)
            said = await service.classify(content)
            return views.answer(service.bundle, said, service.version, truths.get(content))
        except RefusedError as error:
            return views.refusal(error)

    def choose(chosen: gr.EventData) -> Path:
        return paths[chosen.number]

    with gr.Row(equal_height=False, elem_classes="fs-row"):
        with gr.Column():
            image = picture()
            if examples:
                gallery = gr.HTML(views.examples(paths), js_on_load=CHOOSE)
                gallery.click(choose, None, image, show_progress="hidden", api_visibility="private")
        with gr.Column():
            answer = place(NOTHING, service)
    image.change(classify, image, answer, trigger_mode="always_last", **RAW)


def place(nothing: str, service: Service) -> gr.HTML:
    """For an answer, or for why there is none. `nothing`: what it has before."""
    settings = service.settings
    answer = gr.HTML(
        nothing, html_template=LIVE, js_on_load=REFUSE, files=settings.files, bytes=settings.body * MEBIBYTE
    )

    def refuse(sent: gr.EventData) -> str:
        try:
            uploads.check(sent.count, sent.size, settings)
        except RefusedError as error:
            return views.refusal(error)
        return nothing

    answer.input(refuse, None, answer, show_progress="hidden", api_visibility="private")
    return answer


def picture() -> gr.Image:
    return gr.Image(
        label="Image",
        type="filepath",
        height=320,
        buttons=[],
        elem_classes="fs-picture",
        placeholder="Drop an image file here to upload",  # what Gradio calls the button for screen readers
        webcam_options=gr.WebcamOptions(mirror=False),
        alt_text="the image to classify",
    )


def several(service: Service) -> None:
    settings = service.settings

    async def classify(given: Sequence[File]) -> tuple[str, None]:
        paths = [Path(each["path"]) for each in given]
        try:
            contents = await asyncio.to_thread(uploads.contents, paths, settings)
            found = await service.classify_each(contents)
            return views.batch(service.bundle, paths, found), None
        except RefusedError as error:
            return views.refusal(error), None

    files = gr.File(label="Images", file_count="multiple", file_types=["image"], height=160)
    gr.HTML(
        f'<p class="fs-about">At most {settings.files} images of {settings.body} MiB together; more are refused.</p>'
    )
    table = place(NOTHING.replace("answer appears", "answers appear"), service)
    files.upload(classify, files, [table, files], **RAW)
