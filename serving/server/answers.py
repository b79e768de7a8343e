"""What is answered, as JSON."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from serving.bundle import Bundle
from serving.server.service import Said

TOP = 3


class Ranked(BaseModel):
    label: str
    probability: float


class Vote(BaseModel):
    """Of one backbone by itself."""

    label: str
    probability: float
    probabilities: dict[str, float] = Field(description="of every class; they sum to one")


class Prediction(BaseModel):
    """Of one image."""

    label: str = Field(description="the likeliest class")
    probability: float
    top: list[Ranked] = Field(description=f"the {TOP} likeliest classes")
    probabilities: dict[str, float] = Field(description="of every class; they sum to one")
    set: list[str] = Field(description="the conformal set, true as often as `coverage` in /model says")
    unsure: str | None = Field(description="what to think of the label where the set has more classes; else null")
    model: str = Field(description="which bundle answered")
    votes: dict[str, Vote | None] | None = Field(
        default=None, description="by backbone, with ?votes=true; null for one that the cascade did not ask"
    )


class File(BaseModel):
    """Of one of several images: a prediction or why there is none."""

    name: str
    prediction: Prediction | None = None
    error: str | None = None


class Predictions(BaseModel):
    files: list[File] = Field(description="in the order in which they came")


class Error(BaseModel):
    error: str = Field(description="what came and what was expected")


class Base64Image(BaseModel):
    image: str = Field(description="an image file in base64")


def prediction(bundle: Bundle, said: Said, version: str, with_votes: bool = False) -> Prediction:
    order, classes = said.ranked(), bundle.classes
    top = [Ranked(label=classes[number], probability=float(said.probabilities[number])) for number in order[:TOP]]
    chosen = [classes[number] for number in order if said.set[number]]
    return Prediction(
        label=top[0].label,
        probability=top[0].probability,
        top=top,
        probabilities=dict(zip(classes, said.probabilities.tolist(), strict=True)),
        set=chosen,
        unsure=unsure(chosen, bundle.manifest["sets"]["coverage"]),
        model=version,
        votes=votes(bundle.classes, said) if with_votes else None,
    )


def votes(classes: Sequence[str], said: Said) -> dict[str, Vote | None]:
    return {name: None if np.isnan(p).any() else vote(classes, p) for name, p in said.votes.items()}


def vote(classes: Sequence[str], p: np.ndarray) -> Vote:
    own = dict(zip(classes, p.tolist(), strict=True))
    label = max(own, key=own.__getitem__)
    return Vote(label=label, probability=own[label], probabilities=own)


def unsure(chosen: list[str], coverage: float) -> str | None:
    """In one line; None where the set has one class."""
    if len(chosen) == 1:
        return None
    *most, last = chosen
    return f"unsure: {', '.join(most)} or {last}; one of them is right for {coverage:.0%} of images"


def model(bundle: Bundle, version: str) -> dict[str, Any]:
    """What /model says: what the manifest knows that is of use to who asks."""
    known = ("commit", "parameters", "classes", "images", "versions")
    networks = {
        name: {"recipe": one["recipe"], "networks": len(one["networks"])} for name, one in bundle.backbones.items()
    }
    return {
        "model": version,
        **{name: bundle.manifest[name] for name in known},
        **judged(bundle),
        "coverage": bundle.manifest["sets"]["coverage"],
        "backbones": networks,
        "student": bundle.student,
        "cascade": cascade(bundle),
    }


def judged(bundle: Bundle) -> dict[str, Any]:
    """The scores of the stack, or of the student that answers in its place, and what its conformal sets are worth."""
    own, images = bundle.manifest if bundle.student is None else bundle.students[bundle.student], "test_images"
    scores = {**own["scores"], images: bundle.manifest["scores"][images]}
    return {"scores": scores, "conformal": own["conformal"]}


def cascade(bundle: Bundle) -> dict[str, Any] | None:
    """Who is asked first and what the whole is worth; None where all are asked at once."""
    known = ("first", "threshold", "out_of_fold", "test")
    return {name: bundle.manifest["cascade"][0][name] for name in known} if bundle.step else None
