"""The course's diagrams: drawings that are well formed, stay on their sheet, and say in words what they show."""

import html
import re
from base64 import b64decode
from xml.etree import ElementTree

import pytest
import torch

from rpm_tutorial import FiniteRPM, priors
from rpm_tutorial.course import lessons
from rpm_tutorial.course.figures import diagrams

Q = torch.tensor([0.5, 0.3, 0.2])
DIAGRAMS = {
    "three_names": diagrams.three_names(),
    "graphical_model": diagrams.graphical_model(),
    "seven_lines": diagrams.seven_lines(),
    "reweighting": diagrams.reweighting(Q, torch.tensor([[1.0, 2.0, 4.0], [1.0, 1.0, 1.0]])),
    "hidden_states": diagrams.hidden_states(),
    "course_map": diagrams.course_map(),
}


@pytest.mark.parametrize("name", DIAGRAMS)
def test_a_diagram_is_well_formed_on_a_white_sheet_and_described(name, monkeypatch):
    diagram, shown = DIAGRAMS[name], []
    monkeypatch.setattr(diagrams, "publish_display_data", shown.append)
    diagram._ipython_display_()
    (data,) = shown
    image = re.search(r'<img src="data:image/svg\+xml;base64,([^"]+)" alt="([^"]+)"', data["text/html"])
    svg = ElementTree.fromstring(b64decode(image[1]))
    assert html.unescape(image[2]) == diagram.alt and data["text/plain"] == f"{diagram.alt}\n{diagram.caption}"
    assert svg.get("role") == "img" and svg.get("aria-label") == diagram.alt and len(diagram.alt) > 60
    assert svg.find("{*}rect").get("fill") == "white"
    texts = svg.findall(".//{*}text")
    assert len(texts) > 5 and min(float(text.get("font-size")) for text in texts) >= 13
    for text in texts:  # half an em a letter is what common fonts take
        x, width = float(text.get("x")), 0.5 * float(text.get("font-size")) * len(text.text)
        left = {"start": x, "middle": x - width / 2, "end": x - width}[text.get("text-anchor")]
        assert 0 <= left and left + width <= diagram.width, text.text
        assert 0 < float(text.get("y")) < diagram.height, text.text


def test_the_reweighting_shows_the_infonce_prior():
    world = FiniteRPM.ring()
    log_f = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shown = diagrams.reweighting(world.q_z_prime, log_f.exp()).alt
    expected = priors.infonce(log_f, world.q_joint).exp() / world.q_z[:, None]
    for k, row in enumerate(expected.tolist()):
        assert f"P(z′|z = {k}): {', '.join(f'{p:.2f}' for p in row)}" in shown


def test_the_map_names_every_lesson():
    svg = DIAGRAMS["course_map"]._repr_svg_()
    lesson_numbers = [int(name.removeprefix("lesson_")) for name in lessons.LESSONS]
    assert all(f">{number} " in svg for number in lesson_numbers)
