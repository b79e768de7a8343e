"""What may be set: `--port 9000` or `FOLDSTACK_PORT=9000`."""

from pathlib import Path

from limits import parse
from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, CliPositionalArg, SettingsConfigDict

MEBIBYTE = 1 << 20


class Settings(BaseSettings):
    """Answer for new images over HTTP, with a page to try, at / (docs/serving.md)."""

    model_config = SettingsConfigDict(
        env_prefix="FOLDSTACK_",
        cli_prog_name="python -m serving.server",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
    )

    bundle: CliPositionalArg[Path] = Field(Path("models/bundle"), description="its folder")
    host: str = Field("127.0.0.1", description="address to listen at; 0.0.0.0: from anywhere")
    port: int = Field(8000, ge=0, le=65535, description="0: any that is free")
    web: bool = Field(True, description="the page to try, which needs Gradio")
    cascade: bool = Field(False, description="ask all networks only where the cheapest are unsure")
    student: str = Field("", description="a network of the bundle that answers in place of the stack")
    threads: int = Field(0, ge=0, description="of each network; 0: all cores")
    batch: int = Field(32, ge=1, description="images that go through the networks together, at most")
    queue: int = Field(128, ge=1, description="images that wait or are worked on, at most; the next is told 503")
    deadline: float = Field(10.0, gt=0, description="seconds that an image may wait before it is told 503")
    body: int = Field(16, ge=1, description="MiB of a request, at most")
    bodies: int = Field(256, ge=1, description="MiB of all requests that are arriving or under way, at most")
    files: int = Field(64, ge=1, description="images of one request, at most")
    megapixels: int = Field(40, ge=1, description="of an image, at most")
    patience: float = Field(30.0, gt=0, description="seconds that headers, and then a body, may take to arrive")
    rate: str = Field("", description="requests of one address, as in 120/minute; empty: any number")
    drain: int = Field(30, ge=1, description="seconds after SIGTERM in which what was begun is finished")

    @field_validator("rate")
    @classmethod
    def is_rate(cls, value: str) -> str:
        if value:
            parse(value)
        return value
